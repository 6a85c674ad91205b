"""Calls about the mailbox itself."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from agentd.api.parts import Parts
from agentd.errors import NotFound
from agentd.records import Caller
from agentd.wire import calls


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


def _known(parts: Parts, shard: int) -> int:
    if shard not in parts.mailbox.shards:
        raise NotFound(f"no shard {shard}; the mailbox has {len(parts.mailbox.shards)}, from 0", hint="mailbox.stats")
    return shard
