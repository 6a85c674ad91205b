"""Calls about tmux sessions: answered from the cache, with the tier and the age of what they say."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from agentd.api.parts import Parts
from agentd.api.views import max_age_s, of_answer
from agentd.cache.answer import Answer
from agentd.errors import NotFound, UnknownTarget
from agentd.records import Caller
from agentd.wire import calls

Listed = dict[str, Any]


def list_(parts: Parts, caller: Caller, params: calls.SessionsList) -> Listed | Coroutine[Any, Any, Listed]:
    """List our tmux sessions."""
    kept = None if params.no_cache else parts.queries.kept_sessions(max_age_s(params))
    return _listed(kept) if kept is not None else _list(parts, caller, params)


async def _list(parts: Parts, caller: Caller, params: calls.SessionsList) -> Listed:
    return _listed(await parts.queries.sessions(caller.name, max_age_s(params), fresh=params.no_cache))


def _listed(answer: Answer) -> Listed:
    return {"sessions": answer.value, **of_answer(answer)}


async def get(parts: Parts, caller: Caller, params: calls.OneSession) -> dict[str, Any]:
    """Return one tmux session."""
    answer = await parts.queries.sessions(caller.name, max_age_s(params), fresh=params.no_cache)
    found = [session for session in answer.value if params.session in (session["id"], session["name"])]
    if not found:
        raise NotFound(f"no tmux session is `{params.session}`", hint="agentd call sessions.list")
    if len(found) > 1:
        raise UnknownTarget(f"{len(found)} tmux servers have a session `{params.session}`", hint="give its name")
    return {"session": found[0], **of_answer(answer)}
