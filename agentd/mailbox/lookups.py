"""What can be asked about how messages hang together: where one came from, what an agent has, a conversation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from agentd.mailbox.commands import sound_messages
from agentd.mailbox.rows import COLUMNS, NUMBER, Row, intact, message_of
from agentd.mailbox.schema import DELIVERED, ENDED
from agentd.mailbox.transaction import Transaction
from agentd.records import Message, MessageState

# What is leased has its own index: what waits may be long.
_LEASED = (
    "SELECT max(seq) FROM box INDEXED BY box_due"  # noqa: S608  a number of ours
    f" WHERE due>0 AND state={NUMBER[MessageState.DELIVERING]} AND agent=?"
)
_NEWEST = "SELECT seq FROM box WHERE agent=? AND place=? AND state=? ORDER BY seq DESC LIMIT 1"
_THREAD = (
    f"SELECT {COLUMNS} FROM message WHERE (thread=:thread OR seq=:first)"  # noqa: S608
    " AND (:party IS NULL OR agent=:party OR sender=:party) ORDER BY seq LIMIT :limit"
)


@dataclass(frozen=True, slots=True)
class Origins:
    """Read what messages say about where they belong, without their bodies."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    seqs: Sequence[int]

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.seqs)

    def run(self, tx: Transaction) -> list[Message]:
        """Return those that are there and not damaged."""
        return [message_of(row)._replace(body="") for row in tx.rows(self.seqs).values() if intact(row)]


@dataclass(frozen=True, slots=True)
class Known:
    """Look for the messages that keys stand for."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    names: Sequence[bytes]

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.names)

    def run(self, tx: Transaction) -> list[int | None]:
        """Return the number of each, None for a key that is not known."""
        return tx.known(self.names)


@dataclass(frozen=True, slots=True)
class LastReceived:
    """Look for the newest message that an agent has."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    agent: str

    def run(self, tx: Transaction) -> Message | None:
        """Return it, None when nothing was ever handed out to the agent."""
        found = [
            tx.connection.execute(_LEASED, (self.agent,)).get,
            tx.connection.execute(_NEWEST, (self.agent, DELIVERED, NUMBER[MessageState.DELIVERED])).get,
            tx.connection.execute(_NEWEST, (self.agent, ENDED, NUMBER[MessageState.ACKED])).get,
        ]
        seqs = [seq for seq in found if seq is not None]
        rows = tx.rows([max(seqs)] if seqs else [])
        return next((message_of(row) for row in rows.values() if intact(row)), None)


@dataclass(frozen=True, slots=True)
class Thread:
    """Read one shard's part of a conversation."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    thread: str
    first: int  # the seq of the message that began it, of whichever shard
    party: str | None  # only messages that this inbox sent or received
    limit: int

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return min(self.limit, 1000)

    def run(self, tx: Transaction) -> list[Message]:
        """Return the oldest messages, oldest first; damaged ones are counted and left out."""
        values = {"thread": self.thread, "first": self.first, "party": self.party, "limit": self.limit}
        found: list[Any] = tx.connection.execute(_THREAD, values).fetchall()
        return sound_messages(tx, [Row._make(each) for each in found])
