"""A row of a shard and the message it stands for.

body := msgpack [text, key | nil, {header: value}]
crc  := CRC-32 of what never changes after put: msgpack [seq, agent, prio, exp, ts, sender, reply, body]
hist := JSON array elements, each after a comma: ,["delivered",<ns since 1970>,"detail"]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import msgpack

from agentd.errors import StorageError
from agentd.mailbox.ids import id_of
from agentd.records import Draft, HistoryEntry, Message, MessageState, Priority

STATES = (
    MessageState.ACCEPTED,
    MessageState.DELIVERING,
    MessageState.DELIVERED,
    MessageState.ACKED,
    MessageState.DEAD,
    MessageState.EXPIRED,
)
ACCEPTED, DELIVERING, DELIVERED, ACKED, DEAD, EXPIRED = range(6)
CODES = {state: code for code, state in enumerate(STATES)}
COLUMNS = "seq, agent, prio, state, tries, due, exp, ts, sender, reply, crc, body, hist"
Row = tuple[int, str, int, int, int, int, int, int, str, str, int, bytes, str]


def new_row(seq: int, draft: Draft, now_ns: int) -> Row:
    """Return the row of a draft that is accepted now."""
    body = msgpack.packb([draft.body, draft.key, dict(draft.headers)])
    expires_ns = now_ns + round(draft.ttl_s * 1e9) if draft.ttl_s is not None else 0
    reply = draft.reply_to or ""
    crc = _crc(seq, draft.to, int(draft.priority), expires_ns, now_ns, draft.sender, reply, body)
    return (
        *(seq, draft.to, int(draft.priority), ACCEPTED, 0, 0, expires_ns, now_ns),
        *(draft.sender, reply, crc, body, ""),
    )


def message_of(row: Sequence[Any]) -> Message:
    """Return the message; raises StorageError when what was accepted is not what is stored."""
    seq, agent, prio, state, tries, due, exp, ts, sender, reply, crc, blob, hist = row
    if _crc(seq, agent, prio, exp, ts, sender, reply, blob) != crc:
        raise StorageError(
            f"message {id_of(seq)} is damaged on disk; it was not delivered and is kept",
            hint="look at it with a copy of the shard; its journal may hold it whole",
        )
    body, key, headers = msgpack.unpackb(blob)
    accepted = HistoryEntry(MessageState.ACCEPTED, ts)
    return Message(
        id=id_of(seq),
        to=agent,
        sender=sender,
        body=body,
        state=STATES[state],
        attempts=tries,
        key=key,
        priority=Priority(prio),
        created_ns=ts,
        expires_ns=exp or None,
        due_ns=due,
        reply_to=reply or None,
        headers=headers,
        history=(accepted, *_history(hist)),
    )


def entry(state: int, at_ns: int, detail: str) -> str:
    """Return what a transition appends to a row's history."""
    return "," + json.dumps([STATES[state], at_ns, detail], ensure_ascii=False)


def _history(hist: str) -> list[HistoryEntry]:
    return [HistoryEntry(MessageState(state), at, detail) for state, at, detail in json.loads(f"[{hist[1:]}]")]


def _crc(*values: object) -> int:
    return crc32(msgpack.packb(values))
