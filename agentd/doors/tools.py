"""The tools that agents are given over MCP: each is one call of the table, narrowed to what a model needs.

Nothing in here depends on who is there: no name and no text of an agent can get into a tool's description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import msgspec

from agentd.errors import InvalidValue, UnknownMethod
from agentd.records import Caller
from agentd.wire.calls import CALLS, rows_for

_ID = "the id of a message, like m4k2v7q"
_SECONDS = "how many seconds to wait at most; ask again after that"
_WAIT_S = 45.0  # below the minute that most programs give a tool


@dataclass(frozen=True, slots=True)
class Tool:
    """One row: the call, and which of its parameters are offered, each with what the model is told of it."""

    name: str
    call: str
    doc: str
    params: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)  # where they differ from the call's own
    items: Mapping[str, str] = field(default_factory=dict)  # a parameter whose items have the parameters of a tool

    def arguments(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the call's parameters; raises InvalidValue for one that is not offered."""
        for name in given:
            if name not in self.params:
                known = ", ".join(self.params) or "none"
                raise InvalidValue(f"{self.name} has no parameter {name[:100]!r}", field=name, hint=f"it has: {known}")
        return {**self.defaults, **given}


_SEND = {
    "to": "an agent's name, @team, @team/role, %profile, all, or operator for the person who runs agentd",
    "body": "the text",
    "reply_to": _ID + ", when this answers it",
    "priority": "which of an inbox's messages goes first",
}
_TABLE = (
    Tool("whoami", "agents.whoami", "Say which agent you are."),
    Tool(
        "list_agents",
        "agents.list",
        "List the agents that you can send messages to, and what each is doing.",
        {"target": "only these: a name, @team, @team/role, %profile", "state": "only those in this state"},
    ),
    Tool(
        "send_message",
        "messages.send",
        "Send a message to another agent, to several, or to the operator; the answer means that it is safely stored.",
        _SEND,
    ),
    Tool(
        "send_batch",
        "messages.send_batch",
        "Send many messages at once; each has its own receipt or error, in the same order.",
        {"messages": "the messages"},
        items={"messages": "send_message"},
    ),
    Tool(
        "inbox",
        "messages.inbox",
        "Read the messages that were sent to you and that you have not acknowledged yet.",
        {
            "wait_s": "when nothing new is there, how many seconds to wait for a message (at most 45 is wise)",
            "limit": "how many at most",
            "all": "also those that are done with",
        },
        {"limit": 20},
    ),
    Tool("read_message", "messages.get", "Read one message whole, with what became of it.", {"id": _ID}),
    Tool(
        "read_thread",
        "messages.thread",
        "Read the conversation that a message belongs to, oldest first.",
        {"id": _ID, "limit": "how many messages at most"},
        {"limit": 50},
    ),
    Tool(
        "search_messages",
        "messages.search",
        'Find messages that you sent or received: words, "phrases", begin* as a beginning, OR, -word.',
        {"query": "what to look for", "sender": "only from this agent", "limit": "how many at most"},
    ),
    Tool(
        "ack",
        "messages.ack",
        "Acknowledge messages that you have dealt with and that need no answer; they leave your inbox.",
        {"ids": "their ids", "all": "all that you have read"},
    ),
    Tool(
        "nack",
        "messages.nack",
        "Give back messages that you cannot deal with now; they come again later.",
        {"ids": "their ids", "delay_s": "not before so many seconds", "detail": "why, in a few words"},
    ),
    Tool(
        "task_done",
        "messages.done",
        "Finish what you were asked for: send the result to whoever asked and acknowledge the messages.",
        {
            "result": "the answer; leave it out to acknowledge without one",
            "ids": "the messages that asked for it; left out: all that you have read",
        },
    ),
    Tool(
        "wait",
        "messages.wait",
        "Wait for the answer to a message that you sent, or until it was delivered or acknowledged.",
        {"id": _ID, "until": "what to wait for", "timeout_s": _SECONDS},
        {"until": "reply", "timeout_s": _WAIT_S},
    ),
    Tool(
        "wait_agent",
        "agents.wait",
        "Wait until an agent reaches a state, sends you a message, or exits.",
        {"target": "the agent's name", "until": "what to wait for", "timeout_s": _SECONDS},
        {"timeout_s": _WAIT_S},
    ),
    Tool(
        "spawn",
        "agents.spawn",
        "Start agents of a profile.",
        {
            "profile": "which program",
            "n": "how many",
            "name": "the agent's name",
            "team": "its team",
            "role": "its role in the team",
            "cwd": "the directory to start in",
            "prompt": "its first message",
        },
    ),
    Tool("stop", "agents.stop", "Stop agents that you started; their messages are kept.", {"targets": "which agents"}),
    Tool(
        "read_agent",
        "agents.capture",
        "Read what is on the screen of an agent that you started.",
        {"target": "the agent's name", "lines": "only the last so many lines"},
    ),
)

TOOLS: dict[str, Tool] = {tool.name: tool for tool in _TABLE}


def tool_named(name: str) -> Tool:
    """Return a tool; raises UnknownMethod when there is none of the name."""
    if name not in TOOLS:
        raise UnknownMethod(f"there is no tool {name[:100]!r}", hint="list the tools again")
    return TOOLS[name]


def tools_for(caller: Caller, *, agents_start: bool) -> list[dict[str, Any]]:
    """Return the tools whose calls the caller may make, as MCP describes them, always in the same order."""
    rows = rows_for(caller.role, agents_start=agents_start)
    return [_described(name) for name, tool in TOOLS.items() if tool.call in rows]


@cache
def _described(name: str) -> dict[str, Any]:
    tool = TOOLS[name]
    return {
        "name": name,
        "description": tool.doc,
        "inputSchema": _schema(tool),
        "annotations": {
            "readOnlyHint": not CALLS[tool.call].writes,
            "destructiveHint": tool.name == "stop",
            "openWorldHint": False,
        },
    }


def _schema(tool: Tool) -> dict[str, Any]:
    """Return the JSON Schema of a tool's parameters, made from the call's typed record."""
    ((_, whole),) = msgspec.json.schema(CALLS[tool.call].params)["$defs"].items()
    properties = {name: _plain(whole["properties"][name]) for name in tool.params}
    for name, told in tool.params.items():
        properties[name]["description"] = told
    for name, other in tool.items.items():
        properties[name]["items"] = _schema(TOOLS[other])
    for name, value in tool.defaults.items():
        properties[name]["default"] = value
    shape: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    required = [name for name in whole["required"] if name in tool.params and name not in tool.defaults]
    return {**shape, "required": required} if required else shape


_DROPPED = frozenset(
    {"pattern", "maxLength"}
)  # Python's own syntax of patterns; what is wrong is said when it is tried


def _plain(shape: Mapping[str, Any]) -> dict[str, Any]:
    """Return a parameter's schema in the words that every program understands: optional means left out, not null."""
    kept = {key: value for key, value in shape.items() if key not in _DROPPED}
    if kept.get("default", "") in (None, [], {}):
        del kept["default"]
    if "anyOf" in kept:
        (shape,) = (one for one in kept.pop("anyOf") if one != {"type": "null"})
        kept |= _plain(shape)
    if "items" in kept:
        kept["items"] = _plain(kept["items"])
    return kept
