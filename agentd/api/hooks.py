"""Calls that hooks of agents' own programs make."""

from __future__ import annotations

from typing import Any

from agentd.agents.hook_events import Heard, answer_text, hear
from agentd.agents.live import LiveAgent
from agentd.api.parts import Parts
from agentd.api.views import outcome
from agentd.errors import NotFound
from agentd.records import Caller
from agentd.wire import calls


async def report(parts: Parts, caller: Caller, params: calls.AgentsReport) -> dict[str, Any]:
    """Take in an event of the caller's program; the answer is what its hook prints, and the leases of what is in it.

    Whose event it is says the connection alone.
    """
    live = _own(parts, caller)
    heard = hear(live.profile, params.event, params.payload, parts.directory.entry(live.id).agent.resume_id)
    parts.metrics.add("hook_events_total" if heard.report else "hook_events_ignored_total", 1)
    return await _answer(live, heard)


async def _answer(live: LiveAgent, heard: Heard) -> dict[str, Any]:
    handover = None
    if heard.report is not None and heard.shape is not None:
        handover = await live.hand_over(heard.report, heard.shape, again=heard.again)
    elif heard.report is not None:
        live.reported(heard.report)
    if handover is None or heard.shape is None:
        return {"output": "", "leases": []}
    return {"output": answer_text(heard.event, heard.shape, handover.text), "leases": list(handover.leases)}


async def confirm(parts: Parts, caller: Caller, params: calls.Confirm) -> dict[str, Any]:
    """Mark messages delivered that the caller's hook has printed."""
    errors = await parts.mailbox.deliver(params.ids, "handed over by a hook", caller.inbox)
    return outcome(params.ids, errors)


def _own(parts: Parts, caller: Caller) -> LiveAgent:
    live = parts.crew.live(caller.agent_id)
    if live is None:
        raise NotFound(
            f"{caller.name} is no agent that runs", hint="hooks report from inside the pane of the agent they belong to"
        )
    return live
