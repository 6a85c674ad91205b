"""What the commands of one transaction read and change."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import apsw

from agentd.mailbox import journal
from agentd.mailbox.ids import STEP, first_seq_at, text_of
from agentd.mailbox.keys import Keys, put_meta
from agentd.mailbox.rows import (
    COLUMNS,
    HEAD_COLUMNS,
    NUMBER,
    STATES,
    WAITING,
    Head,
    Row,
    fragment,
    without_last,
)
from agentd.records import Change, MessageState

INSERT = f"INSERT INTO m({COLUMNS}) VALUES({', '.join('?' * len(Row._fields))})"


class Step(NamedTuple):
    """One committed change of one message, as the memory of inboxes needs it."""

    seq: int
    was: MessageState | None
    due_ns: int
    change: Change


class Move(NamedTuple):
    """The state a message shall go to."""

    state: MessageState
    detail: str = ""
    tries: int | None = None  # None: unchanged
    due_ns: int = 0
    forget: bool = False  # leave no trace of the last transition: the attempt did not happen


class Mark(NamedTuple):
    """How far a transaction had come."""

    effects: int
    records: int


class Stall(NamedTuple):
    """An inbox that had nothing to offer because each waiting message stands behind one of its sender's."""

    agent: str
    senders: frozenset[str]


class Transaction:
    """One transaction on one shard: its rows, its journal records, and what it changes in memory once committed."""

    def __init__(
        self,
        connection: apsw.Connection,
        keys: Keys,
        depths: Counter[str],
        last_seq: int,
        now_ns: int,
        wall_ns: int,
        max_inbox_messages: int,
    ) -> None:
        self.connection = connection
        self.keys = keys
        self.now_ns = now_ns
        self.wall_ns = wall_ns
        self.max_inbox_messages = max_inbox_messages
        self.last_seq = last_seq
        self.effects: list[Step | Stall] = []
        self.damaged: list[int] = []
        self.records: list[bytes] = []
        self._depths = depths
        self._added: Counter[str] = Counter()
        self._first_seq = first_seq_at(now_ns, last_seq & (STEP - 1))

    def next_seq(self) -> int:
        """Return a new message's primary key: later than every one before, whatever the clock did."""
        self.last_seq = max(self.last_seq + STEP, self._first_seq)
        return self.last_seq

    def depth(self, agent: str) -> int:
        """Return how many messages wait in an inbox, those of this transaction included."""
        return self._depths[agent] + self._added[agent]

    def insert(self, rows: Sequence[Row], records: Iterable[bytes]) -> None:
        """Add new messages."""
        self.connection.executemany(INSERT, rows)
        self.records += map(journal.frame, records)
        for row in rows:
            self._added[row.agent] += 1
            self.effects.append(accepted(row))

    def head(self, seq: int) -> Head | None:
        """Return the part of a message that a change of state looks at."""
        found = self.connection.execute(f"SELECT {HEAD_COLUMNS} FROM m WHERE seq=?", (seq,)).fetchone()  # noqa: S608
        return Head._make(found) if found else None

    def row(self, seq: int) -> Row | None:
        """Return a message as the file holds it."""
        found = self.connection.execute(f"SELECT {COLUMNS} FROM m WHERE seq=?", (seq,)).fetchone()  # noqa: S608
        return Row._make(found) if found else None

    def move(self, head: Head, move: Move) -> Head:
        """Give a message another state; returns its head as it stands then."""
        tries = head.tries if move.tries is None else move.tries
        hist = without_last(head.hist) if move.forget else head.hist + fragment(move.state, self.wall_ns, move.detail)
        number = NUMBER[move.state]
        self.connection.execute(
            "UPDATE m SET state=?, tries=?, due=?, hist=? WHERE seq=?", (number, tries, move.due_ns, hist, head.seq)
        )
        if move.state is not MessageState.DELIVERING and not move.forget:  # leases are not worth a second copy
            self.records.append(journal.moved(head.seq, number, self.wall_ns, move.detail))
        was = STATES[head.state]
        self._added[head.agent] += (move.state in WAITING) - (was in WAITING)
        change = Change(text_of(head.seq), head.agent, move.state, head.sender, head.reply_to, move.detail)
        self.effects.append(Step(head.seq, was, move.due_ns, change))
        return head._replace(state=number, tries=tries, hist=hist)

    def drop(self, seq: int) -> None:
        """Delete a message; its seq is not given again even if it was the last one."""
        self.connection.execute("DELETE FROM m WHERE seq=?", (seq,))
        put_meta(self.connection, "last_seq", self.last_seq)
        self.records.append(journal.dropped(seq))

    def mark(self) -> Mark:
        """Return how far this transaction has come."""
        return Mark(len(self.effects), len(self.records))

    def back_to(self, mark: Mark) -> None:
        """Forget what a failed command did, as its savepoint does in the file."""
        for step in self.effects[mark.effects :]:
            if isinstance(step, Stall):
                continue
            waited = step.was in WAITING if step.was else False
            self._added[step.change.to] += waited - (step.change.state in WAITING)
        del self.effects[mark.effects :]
        del self.records[mark.records :]

    def settle_depths(self) -> None:
        """Make what was committed the depths that the next transaction starts from."""
        for agent, added in self._added.items():
            self._depths[agent] += added
            if not self._depths[agent]:
                del self._depths[agent]


def accepted(row: Row) -> Step:
    """Return the change that a new message is."""
    change = Change(text_of(row.seq), row.agent, MessageState.ACCEPTED, row.sender, row.reply_to)
    return Step(row.seq, None, 0, change)
