"""A message as a line of JSON, whole, as archives and exports have it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from agentd.errors import InvalidValue
from agentd.mailbox.ids import seq_of, text_of
from agentd.mailbox.rows import NUMBER, STATES, Row, encode, envelope_of, fragment, transitions
from agentd.records import Draft, MessageState, Priority


class Line(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What a line says; times are nanoseconds since 1970, the history begins after `accepted`."""

    id: str
    to: str
    sender: str = msgspec.field(name="from")
    body: str
    state: MessageState
    created_ns: int
    attempts: int = 0
    key: str | None = None
    priority: int = int(Priority.NORMAL)
    expires_ns: int | None = None
    due_ns: int = 0
    reply_to: str | None = None
    headers: dict[str, str] = {}
    thread: str | None = None
    trace: str | None = None
    hops: int = 0
    history: list[tuple[MessageState, int, str]] = []


_encode: Final = msgspec.json.Encoder().encode


def line_of(row: Row) -> Line:
    """Return the line of an intact row."""
    envelope = envelope_of(row.body)
    return Line(
        id=text_of(row.seq),
        to=row.agent,
        sender=row.sender,
        body=envelope.text,
        state=STATES[row.state],
        created_ns=row.ts,
        attempts=row.tries,
        key=envelope.key,
        priority=row.prio,
        expires_ns=row.exp,
        due_ns=row.due,
        reply_to=row.reply_to,
        headers=envelope.headers,
        thread=envelope.thread,
        trace=envelope.trace,
        hops=envelope.hops,
        history=[(later.state, later.at_ns, later.detail) for later in transitions(row.hist)],
    )


def row_of_line(line: Line) -> Row:
    """Return the row that a line stands for; raises NotFound or InvalidValue for what no message can have."""
    seq = seq_of(line.id)
    numbers = (
        line.created_ns,
        line.attempts,
        line.hops,
        line.due_ns,
        line.expires_ns or 0,
        *(at for _, at, _ in line.history),
    )
    if not all(0 <= number < 1 << 63 for number in numbers) or line.priority not in list(Priority):
        raise InvalidValue(f"{line.id} has a number that no message has", hint="export it again")
    draft = Draft(
        to=line.to,
        sender=line.sender,
        body=line.body,
        key=line.key,
        priority=Priority(line.priority),
        reply_to=line.reply_to,
        headers=line.headers,
        thread=line.thread,
        trace=line.trace,
        hops=line.hops,
    )
    row = encode(seq, draft, line.expires_ns, line.created_ns)
    hist = "".join(fragment(state, at_ns, detail) for state, at_ns, detail in line.history)
    return row._replace(state=NUMBER[line.state], tries=line.attempts, due=line.due_ns, hist=hist)


def text_of_rows(rows: Iterable[Row]) -> bytes:
    """Return the lines of intact rows, each with its newline."""
    return b"".join(_encode(line_of(row)) + b"\n" for row in rows)
