"""What a message looks like on disk, and how damage is noticed."""

from __future__ import annotations

import json
import zlib
from typing import Any, Final, NamedTuple

import msgpack

from agentd.errors import StorageError
from agentd.mailbox.ids import text_of
from agentd.records import Draft, HistoryEntry, Message, MessageState, Priority

# The numbers of the states on disk; never reordered.
STATES: Final = (
    MessageState.ACCEPTED,
    MessageState.DELIVERING,
    MessageState.DELIVERED,
    MessageState.ACKED,
    MessageState.DEAD,
    MessageState.EXPIRED,
)
NUMBER: Final = {state: number for number, state in enumerate(STATES)}
WAITING: Final = frozenset({MessageState.ACCEPTED, MessageState.DELIVERING})  # what an inbox's depth counts

ACCEPTED_RECORD: Final = 0  # the first element of a journal record that holds a whole message


class Row(NamedTuple):
    """A message as the file holds it."""

    seq: int
    agent: str
    prio: int
    state: int
    tries: int
    due: int  # not offered before; a lease or back-off moves it forward
    exp: int | None
    ts: int  # wall clock of acceptance
    sender: str
    reply_to: str | None
    hist: str  # `,["state",at_ns,"detail"]` once for each state after `accepted`
    crc: int
    body: bytes


class Head(NamedTuple):
    """The part of a row that a change of state looks at."""

    seq: int
    agent: str
    state: int
    tries: int
    sender: str
    reply_to: str | None
    hist: str


COLUMNS: Final = ", ".join(Row._fields)
HEAD_COLUMNS: Final = ", ".join(Head._fields)

# What never changes about a message, as msgpack. It is the journal's record, and its CRC-32 stands in the row:
#
#   [0, seq, agent, prio, exp, ts, sender, reply_to, body]
#
# and `body` is itself msgpack:
#
#   [text, key, headers]


def encode(seq: int, draft: Draft, exp: int | None, wall_ns: int) -> tuple[Row, bytes]:
    """Return the row of a new message and its journal record."""
    envelope = msgpack.packb([draft.body, draft.key, dict(draft.headers)])
    prio = int(draft.priority)
    record = _immutable(seq, draft.to, prio, exp, wall_ns, draft.sender, draft.reply_to, envelope)
    crc = zlib.crc32(record)
    row = Row(seq, draft.to, prio, 0, 0, 0, exp, wall_ns, draft.sender, draft.reply_to, "", crc, envelope)
    return row, record


def row_of(record: bytes) -> Row:
    """Return the row that a journal record of a whole message stands for."""
    _, seq, agent, prio, exp, ts, sender, reply_to, body = msgpack.unpackb(record)
    return Row(seq, agent, prio, 0, 0, 0, exp, ts, sender, reply_to, "", zlib.crc32(record), body)


def key_of(row: Row) -> str | None:
    """Return the idempotency key that a message was sent with."""
    key: str | None = msgpack.unpackb(row.body)[1]
    return key


def intact(row: Row) -> bool:
    """Tell whether a row is, bit for bit, what was accepted."""
    return (
        zlib.crc32(_immutable(row.seq, row.agent, row.prio, row.exp, row.ts, row.sender, row.reply_to, row.body))
        == row.crc
    )


def _immutable(
    seq: int, agent: str, prio: int, exp: int | None, ts: int, sender: str, reply_to: str | None, body: bytes
) -> bytes:
    packed: bytes = msgpack.packb([ACCEPTED_RECORD, seq, agent, prio, exp, ts, sender, reply_to, body])
    return packed


def fragment(state: MessageState, at_ns: int, detail: str) -> str:
    """Return what a transition appends to a row's `hist`."""
    return f',["{state}",{at_ns},{json.dumps(detail)}]' if detail else f',["{state}",{at_ns},""]'


def without_last(hist: str) -> str:
    """Return a `hist` without its last transition; a quote inside a detail is escaped, so this finds its start."""
    return hist[: max(hist.rfind(',["'), 0)]


def message_of(row: Row) -> Message:
    """Return the message; a row that does not match its checksum raises StorageError."""
    if not intact(row):
        raise damaged(row.seq)
    text, key, headers = msgpack.unpackb(row.body)
    return Message(
        id=text_of(row.seq),
        to=row.agent,
        sender=row.sender,
        body=text,
        state=STATES[row.state],
        attempts=row.tries,
        key=key,
        priority=Priority(row.prio),
        created_ns=row.ts,
        expires_ns=row.exp,
        due_ns=row.due,
        reply_to=row.reply_to,
        headers=headers,
        history=_history(row),
    )


def _history(row: Row) -> tuple[HistoryEntry, ...]:
    first = HistoryEntry(MessageState.ACCEPTED, row.ts)
    if not row.hist:
        return (first,)
    later: list[list[Any]] = json.loads(f"[{row.hist[1:]}]")
    return (first, *(HistoryEntry(MessageState(state), at_ns, detail) for state, at_ns, detail in later))


def damaged(seq: int) -> StorageError:
    """Return the error for a message whose bytes on disk are not what was accepted."""
    return StorageError(
        f"message {text_of(seq)} is damaged on disk; it was not delivered",
        hint="ask its sender to send it again",
    )
