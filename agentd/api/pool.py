"""Calls about the warm pool."""

from __future__ import annotations

from typing import Any

from agentd.agents.lodging import NO_WISH
from agentd.agents.profile import Profile
from agentd.agents.slots import place_in
from agentd.api.agents import checked_cwd, worktree_notices
from agentd.api.parts import Parts
from agentd.errors import InvalidValue
from agentd.records import Caller
from agentd.wire import calls


def list_(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List the places that were set, what stands ready in each, and why it is so many."""
    return {"pools": parts.pool.rows()}


async def set_(parts: Parts, _caller: Caller, params: calls.PoolSet) -> dict[str, Any]:
    """Keep agents of a profile booted in a place; they are booted behind this answer."""
    profile = parts.profiles.get(params.profile)
    cwd = checked_cwd(params.cwd)
    if params.recycle:
        _check_recyclable(profile, params)
    wish = await parts.lodging.fresh_wish(cwd) if params.worktree else NO_WISH
    place = place_in(profile.name, cwd, wish.repo, trusted=params.trust)
    most = params.size if params.most is None else params.most
    await parts.pool.set_size(place, cwd, params.size, most, recycle=params.recycle)
    rows = [row for row in parts.pool.rows() if row["profile"] == profile.name]
    return {"pools": rows, "notices": worktree_notices([wish])}


def _check_recyclable(profile: Profile, params: calls.PoolSet) -> None:
    """Raise InvalidValue where no program will ever come back."""
    if profile.recycle is None:
        raise InvalidValue(
            f"the profile {profile.name} has no [recycle] table; nothing was changed",
            hint="leave --recycle out, or see docs/pool.md for what it takes",
            field="recycle",
        )
    if params.worktree:
        raise InvalidValue(
            "programs with worktrees of their own are not recycled; nothing was changed",
            hint="leave one of both out",
            field="recycle",
        )


async def drain(parts: Parts, _caller: Caller, params: calls.PoolDrain) -> dict[str, Any]:
    """End slots, and keep none any more."""
    return {"ended": await parts.pool.drain(params.profile, params.cwd)}
