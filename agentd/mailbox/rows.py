"""What a message looks like on disk, and how damage is noticed."""

from __future__ import annotations

import json
import zlib
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

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
_STATE_OF: Final = {str(state): state for state in STATES}
_PRIORITIES: Final = tuple(Priority)  # by their numbers on disk
WAITING: Final = frozenset({MessageState.ACCEPTED, MessageState.DELIVERING})  # what an inbox's depth counts

FIRST_REACHED: Final = NUMBER[MessageState.DELIVERED]  # the numbers below it are those of WAITING

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
    thread: str | None
    hist: str  # `,["state",at_ns,"detail"]` once for each state after `accepted`
    crc: int
    body: bytes


class Head(NamedTuple):
    """The part of a row that a change of state looks at."""

    seq: int
    agent: str
    prio: int
    state: int
    tries: int
    due: int
    sender: str
    reply_to: str | None
    hist: str
    size: int  # of the body's envelope, in bytes


COLUMNS: Final = ", ".join(Row._fields)  # of the view `message`
HEAD_COLUMNS: Final = ", ".join(Head._fields[:-1]) + ", length(body)"
# The places in a shard's table `box`, besides those of what waits, which are the priorities.
_PLACES: Final = {2: 3, 3: 4, 4: 5, 5: 4}

# What never changes about a message, as msgpack. It is the journal's record, and its CRC-32 stands in the row:
#
#   [0, seq, agent, prio, exp, ts, sender, reply_to, body]
#
# and `body` is itself msgpack, which may end early (version 1 ends after the headers):
#
#   [text, key, headers, thread, trace, hops]

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode
_read_json: Final = msgspec.json.Decoder(list[tuple[str, int, str]]).decode


class Envelope(NamedTuple):
    """What a row's `body` holds."""

    text: str
    key: str | None
    headers: dict[str, str]
    thread: str | None = None
    trace: str | None = None
    hops: int = 0


# What the table of messages holds, in the order of its columns.
MessagePart = tuple[int, str, int, int | None, int, str, str | None, str | None, int, bytes]


def fresh(seq: int, draft: Draft, exp: int | None, wall_ns: int) -> tuple[MessagePart, bytes]:
    """Return what the table holds of a new message, and its journal record for `frame`."""
    to, sender, text, key, priority, _, reply_to, headers, thread, trace, hops = draft
    body = _pack((text, key, headers, thread, trace, hops))
    prio = int(priority)
    record = _pack((ACCEPTED_RECORD, seq, to, prio, exp, wall_ns, sender, reply_to, body))
    return (seq, to, prio, exp, wall_ns, sender, reply_to, thread, zlib.crc32(record), body), record


def encode(seq: int, draft: Draft, exp: int | None, wall_ns: int) -> Row:
    """Return the row of a new message."""
    (seq, to, prio, exp, wall_ns, sender, reply_to, thread, crc, body), _ = fresh(seq, draft, exp, wall_ns)
    return Row(seq, to, prio, 0, 0, 0, exp, wall_ns, sender, reply_to, thread, "", crc, body)


def row_of(record: bytes) -> Row:
    """Return the row that a journal record of a whole message stands for."""
    _, seq, agent, prio, exp, ts, sender, reply_to, body = _unpack(record)
    thread = envelope_of(body).thread
    return Row(seq, agent, prio, 0, 0, 0, exp, ts, sender, reply_to, thread, "", zlib.crc32(record), body)


def envelope_of(body: bytes) -> Envelope:
    """Return what a row's `body` says."""
    return Envelope(*_unpack(body))


def record_of(row: Row) -> bytes:
    """Return the journal record of a whole message."""
    return _pack((ACCEPTED_RECORD, row.seq, row.agent, row.prio, row.exp, row.ts, row.sender, row.reply_to, row.body))


def place_of(state: int, prio: int) -> int:
    """Return where in the box a message stands, by the numbers of its state and priority."""
    return _PLACES.get(state, prio)


def message_part(row: Row) -> MessagePart:
    """Return what the table of messages holds of a row."""
    return (row.seq, row.agent, row.prio, row.exp, row.ts, row.sender, row.reply_to, row.thread, row.crc, row.body)


def box_part(row: Row) -> tuple[object, ...]:
    """Return what the box holds of a row."""
    place, size_bytes = place_of(row.state, row.prio), len(row.body)
    return (row.agent, place, row.seq, row.state, row.tries, row.due, row.exp, size_bytes, row.sender, row.hist)


def intact(row: Row) -> bool:
    """Tell whether a row is, bit for bit, what was accepted, and in a state that there is."""
    return zlib.crc32(record_of(row)) == row.crc and 0 <= row.state < len(STATES)


@lru_cache(maxsize=256)  # messages that went through a command together have the same
def transitions(hist: str) -> tuple[HistoryEntry, ...]:
    """Return each transition in a `hist`; of a damaged one, which says nothing about the message itself, none."""
    try:
        found = _read_json(f"[{hist[1:]}]")
        return tuple([HistoryEntry(_STATE_OF[state], at_ns, detail) for state, at_ns, detail in found])
    except (msgspec.MsgspecError, KeyError):
        return ()


def fragment(state: MessageState, at_ns: int, detail: str) -> str:
    """Return what a transition appends to a row's `hist`."""
    return f',["{state}",{at_ns},{json.dumps(detail)}]' if detail else f',["{state}",{at_ns},""]'


def without_last(hist: str) -> str:
    """Return a `hist` without its last transition; a quote inside a detail is escaped, so this finds its start."""
    return hist[: max(hist.rfind(',["'), 0)]


def message_of(row: Row, head: Head | None = None, due_ns: int | None = None) -> Message:
    """Return the message of a row that is intact, with `head` as it stands after a move."""
    text, key, headers, thread, trace, hops = envelope_of(row.body)
    now = head or row
    return Message(
        text_of(row.seq),
        row.agent,
        row.sender,
        text,
        STATES[now.state],
        now.tries,
        key,
        _PRIORITIES[row.prio],
        row.ts,
        row.exp,
        row.due if due_ns is None else due_ns,
        row.reply_to,
        headers,
        _history(row.ts, now.hist),
        thread,
        trace,
        hops,
    )


def _history(accepted_ns: int, hist: str) -> tuple[HistoryEntry, ...]:
    first = HistoryEntry(MessageState.ACCEPTED, accepted_ns)
    return (first, *transitions(hist)) if hist else (first,)


def damaged(seq: int) -> StorageError:
    """Return the error for a message whose bytes on disk are not what was accepted."""
    return StorageError(
        f"message {text_of(seq)} is damaged on disk; it was not delivered",
        hint="ask its sender to send it again",
    )
