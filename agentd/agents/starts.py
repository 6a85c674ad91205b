"""How agents are started, and started again."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

from agentd.agents.booted import Booted, clock_s
from agentd.agents.boots import Boots
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.ids import new_agent_id, new_token, session_name
from agentd.agents.ledger import Ledger
from agentd.agents.line import Party
from agentd.agents.lodging import NO_WISH, Wish
from agentd.agents.offspring import OPERATORS_OWN, Descent
from agentd.agents.profile import Profile
from agentd.agents.registry import Entry, digest
from agentd.agents.roster import Roster
from agentd.agents.shimmed import shimmed
from agentd.agents.watch import Watch
from agentd.errors import AgentdError, AgentGone, Conflict, InvalidValue, NotFound, OverLimit
from agentd.failpoint import failpoint
from agentd.records import Agent, AgentState, PaneRef
from agentd.tmux.input import check_place

SPAWNS_AT_ONCE = 64  # in flight; measured by bench/spawn.py: more buys nothing
FURNISHED_AT_ONCE = 16  # agents whose files a thread writes before they are started together
WRITERS = 2  # such threads: on the loop, the files of 700 agents would keep other calls waiting


Begin = Callable[[], Coroutine[Any, Any, PaneRef]]
Greet = Callable[[Sequence[Agent]], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One agent to start; the name is free and valid."""

    profile: Profile
    name: str
    team: str = ""
    role: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    trusted: bool = False
    descent: Descent = OPERATORS_OWN
    key: str = ""
    cold: bool = False  # a fresh program, whatever the pool has
    wish: Wish = NO_WISH  # a worktree of its own, of the repository around cwd


class Starts:
    """Starts programs; each is on disk, with its token, before tmux is asked."""

    def __init__(
        self, parts: CrewParts, roster: Roster, ledger: Ledger, watch: Watch, ends: Ends, boots: Boots
    ) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._watch = watch
        self._ends = ends
        self._boots = boots
        self._spawns = anyio.CapacityLimiter(SPAWNS_AT_ONCE)
        self._furnishing = anyio.CapacityLimiter(WRITERS)

    async def spawn(self, requests: Sequence[SpawnRequest], party: Party, greet: Greet) -> list[Agent | AgentdError]:
        """Start agents when it is their turn, in order of the requests; a failed one leaves nothing behind.

        Whose turn does not come while its caller waits is not begun. Whatever a crash leaves is adopted or removed.
        """
        self.check_room(len(requests))
        agents = [new_agent(request) for request in requests]
        with self._roster.being_started([agent.id for agent in agents]):  # they count before anything is waited for
            return await self._spawn_each(agents, requests, party, greet)

    async def _spawn_each(
        self, fresh: Sequence[Agent], requests: Sequence[SpawnRequest], party: Party, greet: Greet
    ) -> list[Agent | AgentdError]:
        lodged = await self._lodged(fresh, requests)
        agents = [each for each in lodged if isinstance(each, Agent)]
        profiles = {agent.id: request.profile for agent, request in zip(fresh, requests, strict=True)}
        started = await self._start_in_turn(agents, profiles, party, greet)
        return [started[each.id] if isinstance(each, Agent) else each for each in lodged]

    async def _start_in_turn(
        self, agents: Sequence[Agent], profiles: Mapping[str, Profile], party: Party, greet: Greet
    ) -> dict[str, Agent | AgentdError]:
        by_id = {agent.id: agent for agent in agents}
        results: dict[str, Agent | AgentdError] = {}

        async def begin(ids: Sequence[str]) -> None:
            # Shielded with its greeting: what runs has its first message, also when its caller is gone by now.
            with anyio.CancelScope(shield=True):
                started = await self._started([by_id[id_] for id_ in ids], [profiles[id_] for id_ in ids])
                results.update(zip(ids, started, strict=True))
                await greet([each for each in started if isinstance(each, Agent)])

        with self._boots.turns(party, {id_: profiles[id_] for id_ in by_id}) as turns:
            try:
                async with anyio.create_task_group() as group:
                    while ids := await turns.next():
                        group.start_soon(begin, ids)
            finally:
                self._leave_out([by_id[id_] for id_ in turns.left])
            return results | dict.fromkeys(turns.left, turns.too_late())

    async def _started(self, agents: Sequence[Agent], profiles: Sequence[Profile]) -> Sequence[Agent | AgentdError]:
        try:
            return await self.start(agents, profiles)
        except AgentdError as error:
            return [error] * len(agents)

    def _leave_out(self, agents: Sequence[Agent]) -> None:
        """Take back what was made for agents whose turn did not come."""
        if agents:
            self._parts.log.info("agents were not started", agents=[agent.name for agent in agents])
            self._roster.start(self._vacate, agents)

    async def _lodged(self, agents: Sequence[Agent], requests: Sequence[SpawnRequest]) -> list[Agent | AgentdError]:
        """Return each agent with its worktree, or why it has none."""
        lodged: list[Agent | AgentdError] = list(agents)

        async def one(number: int) -> None:
            try:
                lodged[number] = await self._parts.lodging.lodge(agents[number], requests[number].wish)
            except AgentdError as error:
                lodged[number] = error

        try:
            async with anyio.create_task_group() as group:
                for number, request in enumerate(requests):
                    if request.wish.repo:
                        group.start_soon(one, number)
        except BaseException:
            await self._vacate([each for each in lodged if isinstance(each, Agent)])
            raise
        return lodged

    async def _vacate(self, agents: Sequence[Agent]) -> None:
        """Remove the worktrees of agents whose programs are not started after all."""
        with anyio.CancelScope(shield=True):
            for agent in agents:
                try:
                    await self._parts.lodging.vacate(agent, force=True)
                except AgentdError as error:
                    self._parts.log.warning("a worktree of nobody is left", path=agent.cwd, error=error.message)

    async def start(self, agents: Sequence[Agent], profiles: Sequence[Profile]) -> list[Agent | AgentdError]:
        """Start agents that have their ids already, and whose turn it is; see spawn."""
        tokens = [new_token() for _ in agents]
        entries = [Entry(agent, digest(token)) for agent, token in zip(agents, tokens, strict=True)]
        # Shielded: each step has its own deadline, and a caller who goes away must not leave half of them behind.
        with anyio.CancelScope(shield=True), self._roster.being_started([entry.agent.id for entry in entries]):
            try:
                results = await self._spawn(entries, profiles, tokens)
            except AgentdError:
                self._boots.give_up([entry.agent.id for entry in entries])
                raise
        return results

    async def _spawn(
        self, entries: Sequence[Entry], profiles: Sequence[Profile], tokens: Sequence[str]
    ) -> list[Agent | AgentdError]:
        failpoint("spawn.before_db")
        try:
            await self._ledger.save_new(entries)
        except AgentdError:
            self._ledger.drop([entry.agent.id for entry in entries])
            await self._vacate([entry.agent for entry in entries])
            raise
        failpoint("spawn.before_tmux")
        await self._parts.tmux.prepare(len(entries))
        results: list[Agent | AgentdError] = [entry.agent for entry in entries]
        async with anyio.create_task_group() as group:
            for first in range(0, len(entries), FURNISHED_AT_ONCE):
                lot = slice(first, first + FURNISHED_AT_ONCE)
                furnished = await self._furnished([entry.agent for entry in entries[lot]], profiles[lot], tokens[lot])
                for index, begin in enumerate(furnished, first):
                    group.start_soon(self._start_one, entries[index], profiles[index], begin, results, index)
        # As they are by now: the first ones may be idle already while the last ones are being started.
        entry_of = self._parts.directory.entry
        await self._ledger.keep([entry_of(r.id).agent for r in results if isinstance(r, Agent)])
        failed = [e.agent for e, r in zip(entries, results, strict=True) if isinstance(r, AgentdError)]
        self._boots.give_up([agent.id for agent in failed])
        await self._vacate(failed)
        await self._ledger.discard([agent.id for agent in failed])
        return results

    async def respawn(self, agent: Agent, party: Party, *, fresh: bool = False) -> Agent:
        """Start an ended agent again: same id, same inbox, a new token, and unless `fresh` its program's session."""
        self._check_ended(agent)
        profile = self._parts.profiles.get(agent.profile)
        with self._boots.turns(party, {agent.id: profile}) as turns:
            if not await turns.next():
                raise turns.too_late()
        try:
            return await self._respawn(self._check_ended(agent), profile, fresh=fresh)
        except BaseException:
            self._boots.give_up([agent.id])
            raise

    def _check_ended(self, agent: Agent) -> Agent:
        """Return the agent as it is now; raises what keeps it from being started again."""
        now = self._parts.directory.get(agent.id)
        if now is None:
            raise AgentGone(f"{agent.name} was removed meanwhile", hint="spawn another")
        if self._roster.known(agent.id):
            raise Conflict(f"{agent.name} is running ({now.state})", hint=f"stop it first: agentd stop {agent.name}")
        self.check_room(1)
        return now

    async def _respawn(self, agent: Agent, profile: Profile, *, fresh: bool) -> Agent:
        before, token = self._parts.directory.entry(agent.id), new_token()
        entry = Entry(_again(agent, fresh=fresh), digest(token))
        with anyio.CancelScope(shield=True), self._roster.being_started([agent.id]):
            await self._ledger.save_new([entry])  # with its new token, before its program can show it
            results: list[Agent | AgentdError] = [agent]
            (begin,) = await self._furnished([entry.agent], [profile], [token])
            await self._start_one(entry, profile, begin, results, 0)
            if isinstance(results[0], AgentdError):
                await self._ledger.save_new([before])
                raise results[0]
            kept = await self._ledger.keep([self._parts.directory.entry(agent.id).agent])
            self._ledger.tell("agent.respawned", kept[0])
        return kept[0]

    async def _start_one(
        self, entry: Entry, profile: Profile, begin: Begin, results: list[Agent | AgentdError], index: int
    ) -> None:
        agent = entry.agent
        try:
            async with self._spawns:
                pane = await begin()
        except AgentdError as error:
            results[index] = _explained(error, profile)
            return
        failpoint("spawn.after_tmux")
        if self._is_stopped(agent.id):
            await self._ends.bury(pane)
            results[index] = AgentGone(f"{agent.name} was stopped while it was being started")
            return
        started = replace(agent, pane=pane)
        self._ledger.put(started)
        results[index] = started
        self._watch.begin(started, profile, pane, booted=None if agent.resume_id else Booted(profile, clock_s()))
        self._ledger.tell("agent.spawned", started)

    async def _furnished(
        self, agents: Sequence[Agent], profiles: Sequence[Profile], tokens: Sequence[str]
    ) -> Sequence[Begin]:
        """Write the files that agents' programs find, and return what starts each, or raises why it cannot be."""

        def each() -> list[Begin]:
            return list(map(self._furnish, agents, profiles, tokens))

        return await anyio.to_thread.run_sync(each, limiter=self._furnishing)

    def _furnish(self, agent: Agent, profile: Profile, token: str) -> Begin:
        try:
            return self._furnish_one(agent, profile, token)
        except AgentdError as error:
            return partial(_refused, error)

    def _furnish_one(self, agent: Agent, profile: Profile, token: str) -> Begin:
        parts, places = self._parts, self._parts.places
        places.furnish(agent, profile, token)
        env, cwd = places.environment(agent, profile), agent.cwd or str(Path.home())
        argv = _command(profile, places.argv(agent, profile), env.get("PATH"), cwd)
        name, tmux = session_name(agent.name, agent.home), parts.config.tmux
        return partial(parts.tmux.spawn, name, argv, env, cwd, tmux.width, tmux.height, parts.umask)

    def _is_stopped(self, agent_id: str) -> bool:
        """Tell whether somebody stopped an agent while tmux was asked for its pane."""
        now = self._parts.directory.get(agent_id)
        return now is None or now.state is AgentState.STOPPED

    def check_room(self, wanted: int) -> None:
        """Raise OverLimit when so many more agents may not be started; slots of the pool make room by themselves."""
        pooled = {slot.id for slot in self._parts.directory.pooled()} - self._roster.claimed
        live = (self._roster.live.keys() | self._roster.starting) - pooled
        most = self._parts.config.agents.max
        if wanted > most - len(live):
            raise OverLimit(
                f"{len(live)} agents live and {wanted} more would pass agents.max = {most}",
                hint="stop some, or raise agents.max",
            )


async def _refused(error: AgentdError) -> PaneRef:
    raise error


def _explained(error: AgentdError, profile: Profile) -> AgentdError:
    """Return the error, or the one that says how the program is installed."""
    missing = isinstance(error, InvalidValue) and error.field == "argv"
    if not (missing and profile.install):
        return error
    return NotFound(f"`{profile.command}` is not installed", hint=f"install it: {profile.install}")


def _command(profile: Profile, argv: Sequence[str], path: str | None, cwd: str) -> Sequence[str]:
    """Return the command of the pane."""
    if profile.signals.osc != "shim":
        return argv
    check_place(argv[0], path, cwd)  # tmux sees the shim only
    return shimmed(argv)


def new_agent(request: SpawnRequest) -> Agent:
    """Return the agent that was asked for, as it is before its program is started."""
    now_ns = time.time_ns()
    return Agent(
        id=new_agent_id(),
        name=request.name,
        profile=request.profile.name,
        state=AgentState.STARTING,
        reason="being started",
        team=request.team,
        role=request.role,
        cwd=request.cwd,
        env=dict(request.env),
        trusted=request.trusted,
        started_by=request.descent.started_by,
        family=request.descent.family,
        generation=request.descent.generation,
        spawn_key=request.key,
        created_ns=now_ns,
        since_ns=now_ns,
    )


def _again(agent: Agent, *, fresh: bool) -> Agent:
    return replace(
        agent,
        resume_id="" if fresh else agent.resume_id,
        log_path="" if fresh else agent.log_path,
        state=AgentState.STARTING,
        reason="being started again",
        pane=None,
        exit_status=None,
        since_ns=time.time_ns(),
    )
