"""Calls about agents."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import msgspec

from agentd.agents.asking import NOTHING
from agentd.agents.live import LiveAgent
from agentd.agents.lodging import NO_WISH, Wish
from agentd.agents.names import next_names, valid_name
from agentd.agents.outlook import NAME, would_change
from agentd.agents.starts import SpawnRequest
from agentd.agents.status import PROCESS, Opinion
from agentd.agents.text import sanitise
from agentd.api import sending
from agentd.api.messages import UNREAD
from agentd.api.parts import Parts
from agentd.api.views import agent_row, error_row, max_age_s, message_row, of_answer
from agentd.api.waits import CallersWait
from agentd.errors import (
    AgentdError,
    AgentGone,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    Denied,
    InvalidValue,
    NotFound,
    OverLimit,
    StaleTarget,
)
from agentd.records import OPERATOR, Agent, AgentState, Caller, Change, Draft, Event, Message, MessageState, Role
from agentd.wire import calls

SCROLLBACK_LINES = 200


async def spawn(parts: Parts, caller: Caller, params: calls.Spawn) -> dict[str, Any]:
    """Start agents; the answer names those that failed and why, none is left half started."""
    async with parts.crew.spawn_keys.turn(caller.agent_id, params.key):
        return await _spawn(parts, caller, params)


async def _spawn(parts: Parts, caller: Caller, params: calls.Spawn) -> dict[str, Any]:
    if params.key is not None and (before := _started_before(parts, caller, params.key)):
        await _greet_again(parts, caller, params.prompt or "", before)
        return {"agents": [agent_row(parts, agent) for agent in before], "failed": [], "notices": [], "duplicate": True}
    requests = await _requests(parts, caller, params)
    notices = worktree_notices(request.wish for request in requests)
    greeting = Greeting(parts, caller, {request.name: params.prompt or "" for request in requests})
    with parts.crew.parties.open([request.name for request in requests], caller.pid) as party:
        results = await parts.crew.spawn(requests, party, greeting.greet)
    parts.queries.changed()  # our own writes are seen at once, before tmux tells of them
    started = [result for result in results if isinstance(result, Agent)]
    if not started:
        raise next(result for result in results if isinstance(result, AgentdError))
    greeting.check()
    failed = [
        {"name": request.name, **error_row(result)}
        for request, result in zip(requests, results, strict=True)
        if isinstance(result, AgentdError)
    ]
    return {"agents": [agent_row(parts, agent) for agent in started], "failed": failed, "notices": notices}


def starting(parts: Parts, caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Say how far the calls of the caller's process are that start agents."""
    parties = parts.crew.parties.of(caller.pid)
    names = [name for party in parties for name in party.names]
    known = [agent for name in names if (agent := parts.directory.by_name(name))]
    started = [agent for agent in known if parts.crew.live(agent.id)]
    waiting = sum(parts.crew.waiting(party) for party in parties)
    return {
        "asked": len(names),
        "started": len(started),
        "ready": sum(agent.state not in (AgentState.STARTING, AgentState.FAILED) for agent in started),
        "waiting": waiting,
        "why": parts.crew.hindrance() if waiting else "",
    }


def _started_before(parts: Parts, caller: Caller, key: str) -> list[Agent]:
    """Return what the same caller started with the same key."""
    return [agent for agent in parts.directory if agent.spawn_key == key and agent.started_by == caller.agent_id]


async def _greet_again(parts: Parts, caller: Caller, prompt: str, before: Sequence[Agent]) -> None:
    """Put first messages that a crash, or the caller's own end, came before; what was put is not put twice."""
    oldest_ns = time.time_ns() - int(parts.config.mailbox.key_window_s * 1e9)  # beyond it nobody knows what was put
    greeting = Greeting(parts, caller, {agent.name: prompt for agent in before})
    await greeting.greet([agent for agent in before if agent.created_ns > oldest_ns])
    greeting.check()


def worktree_notices(wishes: Iterable[Wish]) -> list[str]:
    """Return what is to be told of the setup commands that are not run in the worktrees that are made."""
    return [notice for notice in dict.fromkeys(wish.fitting.notice for wish in wishes) if notice]


async def _requests(parts: Parts, caller: Caller, params: calls.Spawn) -> list[SpawnRequest]:
    profile = parts.profiles.get(params.profile)
    if caller.role is Role.AGENT:
        params = _within_its_own(parts.directory.entry(caller.agent_id).agent, params)
    cwd = checked_cwd(params.cwd)
    check_prompt(parts, params.prompt or "")
    for name in (params.team, params.role):
        if name is not None:
            valid_name(name)
    wish = await _wish(parts, params, cwd)
    names = _names(parts, params)
    descent = parts.offspring.admit(caller, profile.name, len(names))
    team, role = params.team or "", params.role or ""
    return [
        SpawnRequest(
            profile, name, team, role, cwd, params.env, params.trust, descent, params.key or "", params.cold, wish
        )
        for name in names
    ]


async def _wish(parts: Parts, params: calls.Spawn, cwd: str) -> Wish:
    if params.branch is not None and params.n > 1:
        raise InvalidValue(
            f"{params.n} agents cannot be on one branch; nothing was started",
            hint="leave the branch out",
            field="branch",
        )
    wanted = params.worktree or params.branch is not None
    return await parts.lodging.wish(cwd, params.branch) if wanted else NO_WISH


def _within_its_own(parent: Agent, params: calls.Spawn) -> calls.Spawn:
    """Return an agent's parameters with its own directory and team for defaults; raises Denied for what it lacks."""
    if params.env or params.trust:
        raise Denied("an agent may not set env or trust for another; nothing was started", hint="leave them out")
    if params.team not in (None, parent.team):
        raise Denied(f"you may start agents in your own team only, not in {params.team}", hint="leave the team out")
    cwd = params.cwd or parent.cwd
    if not Path(os.path.realpath(cwd)).is_relative_to(os.path.realpath(parent.cwd)):
        raise Denied(
            f"you may start agents in your own directory and below only, not in {sanitise(cwd)}", hint="leave cwd out"
        )
    return msgspec.structs.replace(params, cwd=cwd, team=parent.team or None)


def check_prompt(parts: Parts, prompt: str) -> None:
    """Raise OverLimit for a first prompt that the mailbox would refuse once its agent runs."""
    size_bytes, most_bytes = len(prompt.encode(errors="surrogatepass")), parts.config.mailbox.max_body_bytes
    if size_bytes > most_bytes:
        raise OverLimit(
            f"the prompt is {size_bytes} bytes and mailbox.max_body_bytes allows {most_bytes}; nothing was started",
            hint="name a file in it instead",
        )


class Greeting:
    """Puts agents' first messages, by their names, into their inboxes; they are typed when the agents are ready."""

    def __init__(self, parts: Parts, caller: Caller, prompts: Mapping[str, str]) -> None:
        self._parts = parts
        self._caller = caller
        self._prompts = prompts
        self._refusals: list[AgentdError] = []

    async def greet(self, agents: Sequence[Agent]) -> None:
        """Put the messages; what is refused is raised by check, when the agents are there."""
        prompts = [(agent, self._prompts[agent.name]) for agent in agents if self._prompts[agent.name]]
        try:
            if self._caller.role is Role.AGENT:
                await self._sent(prompts)
            elif prompts:
                await self._put(prompts)
        except AgentdError as error:
            self._refusals.append(error)

    def check(self) -> None:
        """Raise what was refused."""
        if self._refusals:
            raise self._refusals[0]

    async def _sent(self, prompts: Sequence[tuple[Agent, str]]) -> None:
        for agent, prompt in prompts:  # past the loop guard, like all that agents write to each other
            params = calls.Send(to=agent.id, body=prompt, key=f"first-prompt-{agent.id}")
            await sending.send(self._parts, self._caller, params)

    async def _put(self, prompts: Sequence[tuple[Agent, str]]) -> None:
        sender = self._caller.inbox
        drafts = [Draft(agent.id, sender, prompt, key=f"first-prompt-{agent.id}") for agent, prompt in prompts]
        self._refusals += [r for r in await self._parts.mailbox.put(drafts) if isinstance(r, AgentdError)]


def checked_cwd(cwd: str | None) -> str:
    """Return the directory to start in; raises InvalidValue when it is none."""
    place = cwd or str(Path.home())
    if "\0" in place or not Path(place).is_absolute():
        raise InvalidValue(f"cwd must be an absolute path, not {sanitise(place)!r}", field="$.cwd")
    if not Path(place).is_dir() or not os.access(place, os.X_OK):
        raise InvalidValue(
            f"{sanitise(place)} is not a directory that can be entered", hint="give --cwd an existing one"
        )
    return place


def _names(parts: Parts, params: calls.Spawn) -> list[str]:
    taken = parts.directory.taken_names()
    if params.name is None:
        return next_names(params.profile, params.n, taken)
    valid_name(params.name)
    if params.n > 1:
        return next_names(params.name, params.n, taken)
    if params.name in taken:
        raise AlreadyExists(
            f"an agent named `{params.name}` exists", hint=f"choose another name, or: agentd stop {params.name}"
        )
    return [params.name]


def list_(parts: Parts, _caller: Caller, params: calls.AgentsList) -> msgspec.Raw:
    """List agents: those that have not stopped, or those that the target names; packed already."""
    return parts.packed_agents.listed(parts, params.target, params.state)


async def get(parts: Parts, _caller: Caller, params: calls.OneTarget) -> dict[str, Any]:
    """Return everything about one agent."""
    agent = parts.directory.one(params.target)
    counts = await parts.mailbox.counts(agent.id)
    return {
        **agent_row(parts, agent),
        "resume_id": agent.resume_id,
        "log_path": agent.log_path,
        "trusted": agent.trusted,
        "started_by": parts.directory.display(agent.started_by) if agent.started_by else OPERATOR,
        "usage": sanitise(live.usage) if (live := parts.crew.live(agent.id)) else "",
        "env": dict(agent.env) if _caller.role is Role.OPERATOR else {},
        "created_at": agent.created_ns / 1e9,
        "transcript": (await parts.transcripts.glance(agent.id))._asdict(),
        "attach": _attach(parts, agent),
        "messages": {state: counts.get(state, 0) for state in MessageState},
    }


def _attach(parts: Parts, agent: Agent) -> list[str] | None:
    try:
        return parts.tmux.attach_argv(agent.pane) if agent.pane else None
    except StaleTarget:  # its server is gone, and it is about to be written down
        return None


def explain(parts: Parts, _caller: Caller, params: calls.OneTarget) -> dict[str, Any]:
    """Say why an agent is thought to be in its state."""
    agent = parts.directory.one(params.target)
    live = parts.crew.live(agent.id)
    opinion = live.status.opinion if live else _of_ended(parts, agent)
    seen_ns = live.seen_ns if live and live.seen_ns else agent.since_ns
    return {
        "id": agent.id,
        "name": agent.name,
        "state": agent.state,
        "waits_for": agent.waits_for,
        "reason": agent.reason,
        "source": opinion.source,
        "rule": opinion.rule,
        "evidence": sanitise(opinion.evidence),
        "age_s": round((time.time_ns() - seen_ns) / 1e9, 3),
        "since_s": round((time.time_ns() - agent.since_ns) / 1e9, 3),
        "draft": opinion.draft,
        **(live.question if live else NOTHING),
        "inbox": parts.mailbox.depth(agent.id),
        "would_change": opinion.would_change.replace(NAME, agent.name),
    }


def _of_ended(parts: Parts, agent: Agent) -> Opinion:
    evidence = (parts.places.last_screen(agent.home) or "").strip()[-500:]
    outlook = would_change(AgentState.STOPPED)
    return Opinion(agent.state, agent.reason, PROCESS, evidence, source=PROCESS, would_change=outlook)


async def stop(parts: Parts, caller: Caller, params: calls.Stop) -> dict[str, Any]:
    """Stop agents, side by side."""
    stopped: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    found: dict[str, Agent] = {}
    for target in params.targets:
        try:
            agents = parts.directory.resolve(target)
            parts.offspring.check_own(caller, agents)
            found.update((agent.id, agent) for agent in agents)
        except AgentdError as error:
            failed.append({"target": target, **error_row(error)})

    async def one(agent: Agent) -> None:
        try:
            ended = await parts.crew.stop(agent, force=params.force)
            stopped.append(
                {"id": ended.id, "name": ended.name, "state": ended.state, "kept": parts.mailbox.depth(agent.id)}
            )
        except AgentdError as error:
            failed.append({"target": agent.name, **error_row(error)})

    async with anyio.create_task_group() as group:
        for agent in found.values():
            group.start_soon(one, agent)
    parts.queries.changed()
    return {"stopped": stopped, "failed": failed}


async def respawn(parts: Parts, caller: Caller, params: calls.Respawn) -> dict[str, Any]:
    """Start an ended agent again under its identity."""
    agent = parts.directory.one(params.target)
    holder = parts.directory.by_name(agent.name)
    if holder is not None and holder.id != agent.id and holder.state is not AgentState.STOPPED:
        raise Conflict(f"the name `{agent.name}` belongs to {holder.id} now", hint=f"stop it first: {holder.id}")
    with parts.crew.parties.open([agent.name], caller.pid) as party:
        again = await parts.crew.respawn(agent, party, fresh=params.fresh)
    parts.queries.changed()
    return {"agent": agent_row(parts, again)}


async def rotate_token(parts: Parts, _caller: Caller, params: calls.OneTarget) -> dict[str, Any]:
    """Give an agent that runs a new token; its program finds it where it found the old one."""
    live = running(parts, params.target)
    await parts.crew.tokens.rotate(live)
    return {"id": live.id, "name": parts.directory.display(live.id)}


async def keys(parts: Parts, _caller: Caller, params: calls.Keys) -> dict[str, Any]:
    """Press keys."""
    live = running(parts, params.target)
    await live.terminal.press(params.keys)
    return {"pressed": len(params.keys)}


async def interrupt(parts: Parts, _caller: Caller, params: calls.OneTarget) -> dict[str, Any]:
    """Interrupt what an agent does."""
    return {"pressed": await running(parts, params.target).interrupt()}


async def capture(parts: Parts, caller: Caller, params: calls.Capture) -> dict[str, Any]:
    """Return the screen; of an ended agent, what it showed last."""
    agent = parts.directory.one(params.target)
    parts.offspring.check_own(caller, [agent])
    live = parts.crew.live(agent.id)
    if live is None:
        return _last_screen(parts, agent, params.lines)
    answer = await parts.queries.capture(
        live.terminal.ref,
        params.lines,
        raw=params.raw,
        caller=caller.name,
        max_age_s=max_age_s(params),
        fresh=params.no_cache,
    )
    if answer.value is None:
        raise AgentGone(f"the program of {agent.name} has just ended", hint="ask again for its last screen")
    text = _last_lines(answer.value["text"], params.lines)
    return {**answer.value, "text": text, "ended": False, **of_answer(answer)}


def _last_screen(parts: Parts, agent: Agent, lines: int | None) -> dict[str, Any]:
    text = parts.places.last_screen(agent.home)
    if text is None:
        raise AgentGone(f"{agent.name} is {agent.state} and no screen of it was kept")
    age_ms = max(0, time.time_ns() - agent.since_ns) // 1_000_000
    kept = {"tier": "kept", "age_ms": age_ms, "bound_ms": age_ms}
    return {"text": _last_lines(text, lines), "width": 0, "height": 0, "cursor": [0, 0], "ended": True, **kept}


def _last_lines(text: str, lines: int | None) -> str:
    kept = text.rstrip().split("\n")
    return "\n".join(kept if lines is None else kept[-lines:])


def answer(parts: Parts, _caller: Caller, params: calls.OneTarget) -> dict[str, Any]:
    """Return the last answer of a program that tells it; its screen may show only the end."""
    live = running(parts, params.target)
    if not live.answer:
        name = parts.directory.one(params.target).name
        raise NotFound(f"the program of {name} has told no answer", hint=f"see its screen: agentd read {name}")
    return {"id": live.id, "text": live.answer}


async def wait(parts: Parts, caller: Caller, params: calls.AgentsWait) -> Any:
    """Wait for an agent's state, its end, or a message from it."""
    agent = parts.directory.one(params.target)
    kind = _MessageFrom if params.until == "reply" else _StateOf
    return await kind(parts, caller, agent, params).begin()


class _AgentWait(CallersWait):
    """A wait for what an agent does."""

    __slots__ = ("_until",)
    method = "agents.wait"

    def __init__(self, parts: Parts, caller: Caller, agent: Agent, params: calls.AgentsWait) -> None:
        super().__init__(parts, caller, agent.id, params.timeout_s)
        self._until: str = params.until

    def _now(self) -> Agent:
        agent = self._parts.directory.get(self.key)
        if agent is None:
            raise AgentGone("the agent was removed while waited for")
        return agent

    def _row(self) -> dict[str, Any]:
        return agent_row(self._parts, self._now())


class _StateOf(_AgentWait):
    """A wait for an agent's state, or its end."""

    __slots__ = ()

    def wanted(self, what: Change | Event) -> bool:
        """Tell whether the agent is as it is wanted at this moment, or is no more."""
        if not isinstance(what, Event):
            return False
        return self._parts.directory.get(self.key) is None or self._reached()

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        """Return the agent when it is in the state, or was when the wait ended."""
        if isinstance(self.outcome, Event) or self._reached():
            return {"agent": self._row()}
        if not over:
            return None
        now = self._now()
        raise DeadlineExceeded(
            f"{now.name} was not {self._until} in {self.timeout_s:g} s; it is {now.state}: {now.reason}",
            hint=f"agentd explain {now.name}",
        )

    def _reached(self) -> bool:
        state, ended = self._now().state, self._parts.crew.live(self.key) is None
        return ended if self._until == "exit" else state == self._until


class _MessageFrom(_AgentWait):
    """A wait for a message from an agent to the caller."""

    __slots__ = ()

    def wanted(self, what: Change | Event) -> bool:
        """Tell whether it is one."""
        if not isinstance(what, Change):
            return False
        return (what.sender, what.to, what.state) == (self.key, self._caller.inbox, MessageState.ACCEPTED)

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        """Return the agent and its message: the one that ended the wait, or one that is unread."""
        message = await self._message()
        if message is not None:
            return {"agent": self._row(), "message": message_row(self._parts.directory, message)}
        if not over:
            return None
        now = self._now()
        raise DeadlineExceeded(
            f"{now.name} sent nothing in {self.timeout_s:g} s; it is {now.state}", hint=f"agentd explain {now.name}"
        )

    async def _message(self) -> Message | None:
        mailbox = self._parts.mailbox
        if isinstance(self.outcome, Change):
            return await mailbox.get(self.outcome.id)
        unread = await mailbox.inbox(self._caller.inbox, list(UNREAD), 10_000)
        return next((message for message in unread if message.sender == self.key), None)


def whoami(parts: Parts, caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """Say who the daemon takes the caller for; one that connected in the pool has its name since."""
    name = parts.directory.display(caller.agent_id) if caller.agent_id else caller.name
    return {"role": caller.role, "id": caller.agent_id or None, "name": name, "pid": caller.pid}


def running(parts: Parts, target: str) -> LiveAgent:
    """Return the live part of the one agent that is named; raises AgentGone when its program has ended."""
    agent = parts.directory.one(target)
    live = parts.crew.live(agent.id)
    if live is None:
        raise AgentGone(f"{agent.name} is {agent.state} ({agent.reason})", hint=f"agentd respawn {agent.name}")
    return live
