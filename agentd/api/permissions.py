"""Calls that answer permission prompts; the table leaves them to the operator."""

from __future__ import annotations

from typing import Any

import anyio

from agentd.agents.asking import Answer
from agentd.agents.directory import is_group
from agentd.agents.live import LiveAgent
from agentd.agents.permissions import Decision, Prompt
from agentd.api.parts import Parts
from agentd.api.views import error_row
from agentd.errors import AgentdError, AgentGone, Conflict, InvalidValue
from agentd.records import Agent, AgentState, Caller, Draft
from agentd.wire import calls

DRAWN_S = 5.0  # a program says that it asks before it has drawn the prompt
LOOK_S = 0.05
PATIENCE_S = 5.0  # beyond what a delivery may take that the answer has to wait for


async def approve(parts: Parts, caller: Caller, params: calls.Approve) -> dict[str, Any]:
    """Approve what agents ask permission for."""
    return await _answer(parts, caller, params, Decision.APPROVE, "")


async def deny(parts: Parts, caller: Caller, params: calls.Deny) -> dict[str, Any]:
    """Deny agents what they ask permission for, and send them the reason."""
    return await _answer(parts, caller, params, Decision.DENY, params.reason)


async def _answer(
    parts: Parts, caller: Caller, params: calls.Approve, decision: Decision, reason: str
) -> dict[str, Any]:
    if not is_group(params.target):
        agent = parts.directory.one(params.target)
        return {"answered": [await _answer_one(parts, caller, agent, decision, params.prompt, reason)], "failed": []}
    if params.prompt is not None:
        raise InvalidValue("a prompt is one agent's, and the target names a group", field="$.prompt", hint="name one")
    waiting = _waiting(parts, params.target)
    answered: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []

    async def one(agent: Agent) -> None:
        try:
            answered.append(await _answer_one(parts, caller, agent, decision, None, reason))
        except AgentdError as error:
            failed.append({"target": agent.name, **error_row(error)})

    async with anyio.create_task_group() as group:
        for agent in waiting:
            group.start_soon(one, agent)
    return {"answered": answered, "failed": failed}


def _waiting(parts: Parts, target: str) -> list[Agent]:
    """Return those of a group that wait for a person; what the others do is no failure."""
    waiting = [agent for agent in parts.directory.resolve(target) if agent.state is AgentState.WAITING]
    if not waiting:
        raise Conflict(f"no agent of `{target}` waits for an answer", hint="agentd approve lists those that do")
    return waiting


async def _answer_one(
    parts: Parts, caller: Caller, agent: Agent, decision: Decision, prompt_id: str | None, reason: str
) -> dict[str, Any]:
    live = parts.crew.live(agent.id)
    if live is None:
        raise AgentGone(f"{agent.name} is {agent.state} ({agent.reason})", hint=f"agentd respawn {agent.name}")
    if agent.waits_for == "permission":
        await _drawn(live)
    prompt = _standing(agent, live, prompt_id)
    answer = Answer(decision, prompt, pid=caller.pid, uid=caller.uid, reason=reason)
    then = await live.answer_prompt(answer, 2 * parts.config.courier.confirm_s + PATIENCE_S)
    if reason:
        await _tell_why(parts, caller, agent, reason)
    return {
        "id": agent.id,
        "name": agent.name,
        "answer": decision,
        "prompt": prompt.id,
        "asks": prompt.asks,
        "then": then,
    }


async def _drawn(live: LiveAgent) -> None:
    with anyio.move_on_after(DRAWN_S):
        while live.asking.prompt is None:  # noqa: ASYNC110  it is told by looks at the screen, and they by no event
            await anyio.sleep(LOOK_S)


def _standing(agent: Agent, live: LiveAgent, prompt_id: str | None) -> Prompt:
    """Return the prompt that is meant; raises Conflict saying what the agent does instead of asking it."""
    prompt, name = live.asking.prompt, agent.name
    if prompt is not None and prompt_id in (None, prompt.id):
        return prompt
    if prompt is not None:
        raise Conflict(
            f"{name} asks something else by now, prompt {prompt.id}; nothing was pressed",
            hint="look again: agentd approve",
        )
    if agent.waits_for == "permission":  # told by the program, and not drawn
        why = f"{name} asks for permission, and no rule of its profile sees the prompt on its screen"
    elif agent.state is AgentState.WAITING:
        why = f"{name} waits, and not for permission ({agent.reason})"
    else:
        why = f"{name} asks for nothing; it is {agent.state} ({agent.reason})"
    raise Conflict(why, hint=f"see for yourself: agentd read {name}; answer at its terminal: agentd attach {name}")


async def _tell_why(parts: Parts, caller: Caller, agent: Agent, reason: str) -> None:
    """Put the reason into the agent's inbox, where it is read when the turn is over."""
    body = f"Your request for permission was denied: {reason}"
    for result in await parts.mailbox.put([Draft(agent.id, caller.inbox, body)]):
        if isinstance(result, AgentdError):
            raise result
