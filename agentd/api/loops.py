"""Calls about the loop guard."""

from __future__ import annotations

from typing import Any

from agentd.api.parts import Parts
from agentd.api.views import outcome
from agentd.errors import AgentdError
from agentd.records import Caller
from agentd.wire import calls


def list_(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List the chains near a limit or over it, and the pairs of agents that have to wait."""
    display = parts.directory.display
    return {
        "chains": parts.loops.chains(),
        "pairs": [
            {"from": display(sender), "to": display(to), "retry_after_ms": wait_ms}
            for sender, to, wait_ms in parts.loops.empty_buckets()
        ],
    }


def reset(parts: Parts, _caller: Caller, params: calls.LoopsReset) -> dict[str, Any]:
    """Let the messages of chains and agents flow again, or all."""
    if not params.names:
        parts.loops.reset()
        return {"done": ["all"], "failed": []}
    return outcome(params.names, [_reset(parts, name) for name in params.names])


def _reset(parts: Parts, name: str) -> AgentdError | None:
    if parts.loops.knows(name) and parts.directory.by_name(name) is None:
        parts.loops.reset(name)
        return None
    try:
        agents = parts.directory.resolve(name)
    except AgentdError as error:
        return error
    for agent in agents:
        parts.loops.reset(agent.id)
    return None
