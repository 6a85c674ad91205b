"""What the commands of one transaction read and change."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import apsw

from agentd.errors import AgentdError
from agentd.mailbox import journal
from agentd.mailbox.depths import Depths
from agentd.mailbox.ids import STEP, first_seq_at, not_below, shard_of, text_of
from agentd.mailbox.keys import Keys, put_meta
from agentd.mailbox.moved import Moved
from agentd.mailbox.rows import (
    COLUMNS,
    FIRST_REACHED,
    HEAD_COLUMNS,
    NUMBER,
    STATES,
    WAITING,
    Head,
    MessagePart,
    Row,
    box_part,
    fragment,
    fresh,
    message_part,
    place_of,
    without_last,
)
from agentd.mailbox.schema import INSERT, INSERT_ENTRY
from agentd.records import Change, Draft, MessageState, Receipt

_ROWS = f"SELECT {COLUMNS} FROM message WHERE seq IN (SELECT value FROM carray(?))"  # noqa: S608
_HEADS = f"SELECT {HEAD_COLUMNS} FROM message WHERE seq IN (SELECT value FROM carray(?))"  # noqa: S608
_UPDATE = "UPDATE box SET place=?, state=?, tries=?, due=?, hist=? WHERE agent=? AND place=? AND seq=?"


class Step(NamedTuple):
    """One committed change of one message, as the memory of inboxes needs it."""

    seq: int
    was: MessageState
    due_ns: int
    change: Change


class Move(NamedTuple):
    """The state a message shall go to."""

    state: MessageState
    detail: str = ""
    tries: int | None = None  # None: unchanged
    due_ns: int = 0
    forget: bool = False  # leave no trace of the last transition: the attempt did not happen
    replaces: bool = False  # takes the place of the last transition: an attempt that goes on is one


class Mark(NamedTuple):
    """How far a transaction had come."""

    effects: int = 0
    records: int = 0
    rows: int = 0
    keys: int = 0
    depths: int = 0


BEGIN = Mark()


class Stall(NamedTuple):
    """An inbox that had nothing to offer because each waiting message stands behind one of its sender's."""

    agent: str
    senders: frozenset[str]


class Arrivals(NamedTuple):
    """New messages, in order."""

    changes: list[Change]


Effect = Step | Stall | Arrivals


class Transaction:
    """One transaction on one shard: its rows, its journal records, and what it changes in memory once committed.

    New rows and moves are gathered and written in bulk, before anything of the transaction reads and at its end.
    """

    def __init__(
        self, connection: apsw.Connection, keys: Keys, depths: Depths, last_seq: int, now_ns: int, wall_ns: int
    ) -> None:
        self.connection = connection
        self.now_ns = now_ns
        self.wall_ns = wall_ns
        self.last_seq = last_seq
        self.inserted = 0
        self.soonest_ns: int | None = None  # when the first of the new messages expires
        self.effects: list[Effect] = []
        self.damaged: list[int] = []
        self.records: list[bytes] = []
        self._keys = keys
        self._depths = depths
        self._new_keys: list[bytes] = []
        self._rows: list[MessagePart] = []
        self._moves: dict[int, tuple[int, int, int, int, str, str, int, int]] = {}  # by seq; at most one of each
        self._moved = Moved()
        self._fragments: dict[tuple[MessageState, str], str] = {}
        self._first_seq = first_seq_at(now_ns, shard_of(last_seq))

    def accept(self, drafts: Sequence[Draft], names: Sequence[bytes | None]) -> list[Receipt | AgentdError]:
        """Add new messages; `names` are those of their keys. A known key gets its first receipt again."""
        arrived: list[Change] = []
        results = [self._accept(draft, name, arrived) for draft, name in zip(drafts, names, strict=True)]
        if arrived:
            self.effects.append(Arrivals(arrived))
        return results

    def _accept(self, draft: Draft, name: bytes | None, arrived: list[Change]) -> Receipt | AgentdError:
        known = name and self._keys.find(name)
        if known:
            return Receipt(text_of(known), draft.to, duplicate=True)
        seq = max(self.last_seq + STEP, self._first_seq)  # later than every one before, whatever the clock did
        exp = None if draft.ttl_s is None else self._expiry(draft.ttl_s)
        part, record = fresh(seq, draft, exp, self.wall_ns)
        _, agent, _, _, _, sender, reply_to, _, crc, body = part
        refusal = self._depths.admit(agent, sender, len(body))
        if refusal:
            return refusal
        self.last_seq = seq
        self._rows.append(part)
        self.records.append(journal.frame(record, crc))
        if name:
            self._keys.remember(name, seq)
            self._new_keys.append(name)
        id_ = text_of(seq)
        arrived.append(Change(id_, agent, MessageState.ACCEPTED, sender, reply_to))
        return Receipt(id_, agent)

    def _expiry(self, ttl_s: float) -> int:
        exp = self.now_ns + int(ttl_s * 1e9)
        self.soonest_ns = min(exp, self.soonest_ns or exp)
        return exp

    def known(self, names: Sequence[bytes]) -> list[int | None]:
        """Return the messages that keys, by their names, stand for."""
        return self._keys.known(names)

    def flush(self) -> None:
        """Write what was gathered."""
        if self._rows:
            self.connection.executemany(INSERT, self._rows)
            self.inserted += len(self._rows)
            self._rows.clear()
        if self._moves:
            self.connection.executemany(_UPDATE, self._moves.values())
            self._moves.clear()
            self.records += self._moved.records(self.wall_ns)

    def heads(self, seqs: Iterable[int]) -> dict[int, Head]:
        """Return, of the messages there are, the part that a change of state looks at."""
        return {head.seq: head for head in map(Head._make, self._read(_HEADS, seqs))}

    def rows(self, seqs: Iterable[int]) -> dict[int, Row]:
        """Return, of the messages there are, what the file holds."""
        return {row.seq: row for row in map(Row._make, self._read(_ROWS, seqs))}

    def _read(self, sql: str, seqs: Iterable[int]) -> list[Any]:
        numbers = array("q", seqs)
        return self.connection.execute(sql, (apsw.carray(numbers),)).fetchall() if numbers else []

    def move(self, head: Head, *moves: Move) -> Head:
        """Take a message from state to state; returns its head as it stands then."""
        seq, agent, prio, first, tries, due_ns, sender, reply_to, hist, size_bytes = head
        number, id_ = first, text_of(seq)
        for state, detail, new_tries, due_ns, forget, replaces in moves:
            was, number = STATES[number], NUMBER[state]
            tries = tries if new_tries is None else new_tries
            hist = without_last(hist) if forget or replaces else hist
            if not forget:
                hist += self._fragment(state, detail)
                if state is not MessageState.DELIVERING:  # leases are not worth a second copy
                    self._moved.add(seq, number, detail)
            self.effects.append(Step(seq, was, due_ns, Change(id_, agent, state, sender, reply_to, detail)))
        before = self._moves.get(seq)
        place = before[6] if before else place_of(first, prio)  # as the file has it
        self._moves[seq] = (place_of(number, prio), number, tries, due_ns, hist, agent, place, seq)
        waits = (number < FIRST_REACHED) - (first < FIRST_REACHED)
        if waits:
            self._depths.add(agent, sender, waits, waits * size_bytes)
        return Head(seq, agent, prio, number, tries, due_ns, sender, reply_to, hist, size_bytes)

    def _fragment(self, state: MessageState, detail: str) -> str:
        """Return what a move adds to a history; those of one command mostly add the same."""
        known = self._fragments.get((state, detail))
        if known is None:
            known = self._fragments[state, detail] = fragment(state, self.wall_ns, detail)
        return known

    def restore(self, row: Row, name: bytes | None) -> None:
        """Add a message that was accepted before, here or elsewhere, as it stood; `name` is that of its key."""
        self.connection.execute(INSERT, message_part(row))
        self.connection.execute(INSERT_ENTRY, box_part(row))
        self.inserted += 1
        self.records.append(journal.copy_of(row))
        self.last_seq = not_below(max(self.last_seq, row.seq), shard_of(self.last_seq))
        if name:
            self._keys.restore(name, row.seq)
        state = STATES[row.state]
        if state in WAITING:
            self._depths.add(row.agent, row.sender, 1, len(row.body))
            change = Change(text_of(row.seq), row.agent, MessageState.ACCEPTED, row.sender, row.reply_to)
            self.effects.append(Arrivals([change]))
            if row.due:
                self.effects.append(Step(row.seq, MessageState.ACCEPTED, row.due, change._replace(state=state)))

    def drop(self, seqs: Sequence[int]) -> None:
        """Delete messages; a seq is not given again even if it was the last one."""
        self.connection.executemany("DELETE FROM m WHERE seq=?", [(seq,) for seq in seqs])
        put_meta(self.connection, "last_seq", self.last_seq)
        self.records += map(journal.dropped, seqs)

    @property
    def changed(self) -> bool:
        """Tell whether a message came, went, or is in another state."""
        return bool(self.records) or any(not isinstance(effect, Stall) for effect in self.effects)

    def mark(self) -> Mark:
        """Return how far this transaction has come."""
        return Mark(len(self.effects), len(self.records), len(self._rows), len(self._new_keys), self._depths.mark())

    def back_to(self, mark: Mark) -> None:
        """Forget what a failed command did, as its savepoint does in the file."""
        for name in self._new_keys[mark.keys :]:
            self._keys.forget(name)
        self._depths.back_to(mark.depths)
        self._moves.clear()  # flushed before each command: these are its own
        self._moved.clear()
        del self.effects[mark.effects :]
        del self.records[mark.records :]
        del self._rows[mark.rows :]
        del self._new_keys[mark.keys :]
