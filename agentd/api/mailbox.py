"""Calls about the mailbox itself."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from agentd.api.parts import Parts
from agentd.api.sending import recipients
from agentd.api.views import error_row
from agentd.errors import AgentdError, InvalidValue, NotFound
from agentd.mailbox.ids import seq_of, text_of
from agentd.mailbox.lines import Line, line_of, row_of_line
from agentd.mailbox.rows import Row, intact
from agentd.records import Caller
from agentd.wire import calls

PAGE_ROWS = 500
PAGE_BYTES = 512 * 1024  # of messages in one answer


async def stats(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Count what each shard holds, one shard after the other."""
    return {"shards": [await _shard_row(parts, shard) for shard in parts.mailbox.shards]}


async def _shard_row(parts: Parts, shard: int) -> dict[str, Any]:
    tally = await parts.mailbox.tally(shard)
    oldest_ns = tally.oldest_waiting_ns
    return {
        "shard": shard,
        "health": parts.mailbox.standings()[shard].state,
        "inboxes": tally.inboxes,
        "waiting": tally.waiting,
        "delivered": tally.delivered,
        "ended": tally.ended,
        "dead": tally.dead,
        "message_bytes": tally.size_bytes,
        "oldest_waiting_s": None if oldest_ns is None else round(max(time.time_ns() - oldest_ns, 0) / 1e9, 3),
        **await parts.mailbox.sizes(shard),
    }


async def verify(parts: Parts, _caller: Caller, params: calls.MailboxVerify) -> dict[str, Any]:
    """Look for damage in a small part of a shard."""
    return asdict(await parts.mailbox.verify(_known(parts, params.shard), params.cursor))


async def compact(parts: Parts, _caller: Caller, params: calls.OneShard) -> dict[str, Any]:
    """Rewrite a shard's file without its gaps."""
    shard = _known(parts, params.shard)
    before = sum((await parts.mailbox.sizes(shard)).values())
    await parts.mailbox.compact(shard)
    after = sum((await parts.mailbox.sizes(shard)).values())
    return {"shard": shard, "before_bytes": before, "after_bytes": after}


async def export(parts: Parts, caller: Caller, params: calls.MailboxExport) -> dict[str, Any]:
    """Return the next messages with all there is about them; damaged ones are only named."""
    wanted = None if params.target is None else set(recipients(parts, caller, params.target))
    rows = _page(await parts.mailbox.page(seq_of(params.cursor) if params.cursor else 0, PAGE_ROWS))
    sound = [row for row in rows if intact(row)]
    lines = [msgspec.to_builtins(line_of(row)) for row in sound if wanted is None or row.agent in wanted]
    since_ns = int(params.since * 1e9)
    return {
        "messages": [
            line
            for line in lines
            if line["created_ns"] >= since_ns and (not params.states or line["state"] in params.states)
        ],
        "damaged": [text_of(row.seq) for row in rows if not intact(row)],
        "cursor": text_of(rows[-1].seq) if rows else None,
        "inboxes": None if wanted is None else sorted(wanted),
    }


def _page(rows: Sequence[Row]) -> list[Row]:
    """Return as many of the first rows as an answer may hold, one at least."""
    room, page = PAGE_BYTES, list(rows[:1])
    for row in rows[1:]:
        room -= len(row.body) + len(row.hist)
        if room < 0:
            break
        page.append(row)
    return page


async def import_(parts: Parts, _caller: Caller, params: calls.MailboxImport) -> dict[str, Any]:
    """Bring exported messages back; each answer stands in the place of its message."""
    results: list[Row | bool | AgentdError] = [_row(item) for item in params.messages]
    rows = [result for result in results if isinstance(result, Row)]
    answers = iter(await parts.mailbox.restore(rows))
    settled = [next(answers) if isinstance(result, Row) else result for result in results]
    return {"results": [error_row(one) if isinstance(one, AgentdError) else {"added": one} for one in settled]}


def _row(item: dict[str, Any]) -> Row | AgentdError:
    try:
        return row_of_line(msgspec.convert(item, Line))
    except msgspec.ValidationError as error:
        return InvalidValue(f"this is no exported message: {error}", hint="import what `agentd mailbox export` wrote")
    except AgentdError as error:
        return error


def _known(parts: Parts, shard: int) -> int:
    if shard not in parts.mailbox.shards:
        raise NotFound(f"no shard {shard}; the mailbox has {len(parts.mailbox.shards)}, from 0", hint="mailbox.stats")
    return shard
