"""Bringing exported messages back, as they stood."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from agentd.errors import AgentdError, Conflict, InvalidValue
from agentd.mailbox.ids import first_seq_at, text_of
from agentd.mailbox.keys import digest
from agentd.mailbox.rows import Row, envelope_of
from agentd.mailbox.transaction import Transaction

_AHEAD_NS: Final = 86_400_000_000_000  # ids of a later time would be what all new ones have to follow


@dataclass(frozen=True, slots=True)
class Restore:
    """Add messages that were accepted before."""

    sends: ClassVar[bool] = True
    lists: ClassVar[bool] = True
    rows: Sequence[Row]

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.rows)

    def run(self, tx: Transaction) -> list[bool | AgentdError]:
        """Return for each whether it was added or was there already, or what is against it."""
        there = tx.rows([row.seq for row in self.rows])
        latest = first_seq_at(tx.now_ns + _AHEAD_NS, 0)
        results: list[bool | AgentdError] = []
        for row in self.rows:
            known = there.get(row.seq)
            if known is not None:
                results.append(_compared(known, row))
            elif row.seq > latest:
                results.append(InvalidValue(f"{text_of(row.seq)} would be of a time to come", hint="set the clock"))
            else:
                key = envelope_of(row.body).key
                tx.restore(row, None if key is None else digest(row.sender, row.agent, key))
                there[row.seq] = row
                results.append(True)
        return results


def _compared(known: Row, row: Row) -> bool | AgentdError:
    if (known.agent, known.sender, known.ts) == (row.agent, row.sender, row.ts):
        return False
    return Conflict(f"{text_of(row.seq)} is another message here", hint="it was left as it is")
