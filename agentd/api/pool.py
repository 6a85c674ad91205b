"""Calls about the warm pool."""

from __future__ import annotations

from typing import Any

from agentd.agents.lodging import NO_WISH
from agentd.agents.slots import place_in
from agentd.api.agents import checked_cwd, worktree_notices
from agentd.api.parts import Parts
from agentd.records import Caller
from agentd.wire import calls


def list_(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List the places that were set, what stands ready in each, and why it is so many."""
    return {"pools": parts.pool.rows()}


async def set_(parts: Parts, _caller: Caller, params: calls.PoolSet) -> dict[str, Any]:
    """Keep agents of a profile booted in a place; they are booted behind this answer."""
    profile = parts.profiles.get(params.profile)
    cwd = checked_cwd(params.cwd)
    wish = await parts.lodging.fresh_wish(cwd) if params.worktree else NO_WISH
    place = place_in(profile.name, cwd, wish.repo, trusted=params.trust)
    await parts.pool.set_size(place, cwd, params.size, params.size if params.most is None else params.most)
    rows = [row for row in parts.pool.rows() if row["profile"] == profile.name]
    return {"pools": rows, "notices": worktree_notices([wish])}


async def drain(parts: Parts, _caller: Caller, params: calls.PoolDrain) -> dict[str, Any]:
    """End slots, and keep none any more."""
    return {"ended": await parts.pool.drain(params.profile, params.cwd)}
