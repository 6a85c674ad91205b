"""The door for MCP: a tool's name and arguments become one call, its answer what a model reads.

`agentd mcp` speaks the protocol and knows no tool; it asks `mcp.tools` for them and hands every use to `mcp.call`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any

import msgspec

from agentd.doors.told import refused, told
from agentd.doors.tools import tool_named, tools_for
from agentd.errors import AgentdError, Denied, InvalidValue
from agentd.records import Caller, Role

TOOLS = "mcp.tools"
CALL = "mcp.call"
METHODS = frozenset({TOOLS, CALL})

Make = Callable[[str, dict[str, Any]], Any]  # makes a call of the table as the caller: its right, its types, its answer


class Use(msgspec.Struct, forbid_unknown_fields=True):
    """One use of a tool; the same `request` again does nothing twice."""

    name: str
    arguments: dict[str, Any] = {}
    request: str = msgspec.field(default="")


def answer(make: Make, caller: Caller, method: str, params: Any, *, agents_start: bool) -> Any:
    """Return the tools that the caller may use, or a coroutine of what a use of one came to."""
    if caller.role is not Role.AGENT:
        raise Denied(
            "the tools of MCP are for agents, and you are none",
            hint="have an agent's program run `agentd mcp`, with AGENTD_TOKEN_FILE as agentd set it",
        )
    if method == TOOLS:
        return {"tools": tools_for(caller, agents_start=agents_start)}
    try:
        use = msgspec.convert(params, Use)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{CALL}: {error}", hint="give name, arguments and request") from None
    tool_named(use.name)
    return _used(make, use)


async def _used(make: Make, use: Use) -> dict[str, Any]:
    tool = tool_named(use.name)
    try:
        value = make(tool.call, _with_keys(tool.call, tool.arguments(use.arguments), use.request))
        if isinstance(value, CoroutineType):
            value = await value
    except AgentdError as error:
        return refused(error)
    return told(value)


def _with_keys(call: str, params: dict[str, Any], request: str) -> dict[str, Any]:
    """Return the parameters with what keeps a use that is repeated after a broken connection from sending twice."""
    if not request:
        return params
    if call in ("messages.send", "agents.spawn"):
        return {"key": f"mcp-{request}", **params}
    messages = params.get("messages")
    if call == "messages.send_batch" and isinstance(messages, list):
        keyed = [
            {"key": f"mcp-{request}-{number}", **item} if isinstance(item, dict) else item
            for number, item in enumerate(messages)
        ]
        return {**params, "messages": keyed}
    return params
