"""The crew: starts, adopts, watches and ends agents."""

from __future__ import annotations

import signal
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agentd.agents import survivors
from agentd.agents.courier import Courier
from agentd.agents.directory import Directory
from agentd.agents.ids import id_of_session, new_agent_id, new_token, session_name
from agentd.agents.live import Ended, LiveAgent
from agentd.agents.places import Places
from agentd.agents.profile import Profile, Profiles, stand_in
from agentd.agents.registry import Entry, Registry, digest
from agentd.agents.status import Opinion, Status
from agentd.agents.terminal import Terminal
from agentd.config import Config
from agentd.errors import AgentdError, AgentGone, Conflict, OverLimit, StaleTarget
from agentd.events import Events
from agentd.failpoint import failpoint
from agentd.logs import Log
from agentd.mailbox.mailbox import Mailbox
from agentd.metrics import Metrics
from agentd.records import Agent, AgentState, Change, Delivery, MessageState, PaneRef
from agentd.tmux.tmux import Activity, Output, PaneDied, PaneInfo, Restored, ServerGone, Tmux, TmuxEvent

BURY_S = 1.0  # what a program that has ended left running gets to hang up
SPAWNS_AT_ONCE = 16  # tmux-2.md §3: beyond this pipelining buys nothing on two cores


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """One agent to start; the name is free and valid."""

    profile: Profile
    name: str
    team: str = ""
    role: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a new daemon found of the old one's agents."""

    adopted: Sequence[str] = ()
    lost: Sequence[str] = ()
    orphans: Sequence[str] = ()


class Crew:
    """Every live agent; the only part that writes the registry and the directory."""

    def __init__(
        self,
        *,
        tmux: Tmux,
        mailbox: Mailbox,
        registry: Registry,
        directory: Directory,
        profiles: Profiles,
        events: Events,
        metrics: Metrics,
        config: Config,
        places: Places,
        instance: str,
        umask: int,
        log: Log,
    ) -> None:
        self._tmux = tmux
        self._mailbox = mailbox
        self._registry = registry
        self._directory = directory
        self._profiles = profiles
        self._events = events
        self._metrics = metrics
        self._config = config
        self._places = places
        self._instance = instance
        self._umask = umask  # of whoever started the daemon: ours is 077, and agents' files are their user's business
        self._log = log
        self._live: dict[str, LiveAgent] = {}
        self._by_pane: dict[str, LiveAgent] = {}
        self._starting: set[str] = set()
        self._stopping: set[str] = set()
        self._quiet = False  # no delivery is begun any more
        self._spawns = anyio.CapacityLimiter(SPAWNS_AT_ONCE)
        self._tasks: TaskGroup | None = None

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the agents' tasks until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    @property
    def count(self) -> int:
        """Return how many agents are alive."""
        return len(self._live)

    def live(self, agent_id: str) -> LiveAgent | None:
        """Return the live part of an agent, or None when its program has ended."""
        return self._live.get(agent_id)

    def known(self, agent_id: str) -> bool:
        """Tell whether an agent is alive or just being started: its program may call before tmux has answered us."""
        return agent_id in self._live or agent_id in self._starting

    async def quiesce(self, timeout_s: float) -> None:
        """Begin no delivery any more, and let those under way come to their end."""
        self._quiet = True
        with anyio.move_on_after(timeout_s):
            for live in list(self._live.values()):
                await live.between_deliveries()

    def pane_pids(self) -> dict[int, str]:
        """Return the pid of each live agent's program, and whose it is."""
        return {live.terminal.ref.pid: agent_id for agent_id, live in self._live.items()}

    def on_tmux(self, event: TmuxEvent) -> None:
        """Take in an event of our tmux server."""
        match event:
            case Output(pane_id=pane_id):
                if live := self._by_pane.get(pane_id):
                    live.screen_changed(event)
            case Activity(pane_id=pane_id):
                if live := self._by_pane.get(pane_id):
                    live.screen_changed()
            case Restored():  # what was told meanwhile was not heard
                for live in self._live.values():
                    live.screen_changed()
            case PaneDied(pane_id=pane_id):
                if live := self._by_pane.get(pane_id):
                    live.died()
            case ServerGone():
                self._start(self._server_gone)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take in committed changes of messages."""
        for inbox in {change.to for change in changes if change.state is MessageState.ACCEPTED}:
            if live := self._live.get(inbox):
                live.inbox_changed()

    # -- starting

    async def spawn(self, requests: Sequence[SpawnRequest]) -> list[Agent | AgentdError]:
        """Start agents, in order of the requests; a failed one leaves nothing behind.

        Each is on disk, with its token, before tmux is asked; so whatever a crash leaves is adopted or removed.
        """
        self._check_room(len(requests))
        tokens = [new_token() for _ in requests]
        entries = [Entry(_new_agent(r), digest(token)) for r, token in zip(requests, tokens, strict=True)]
        # Shielded: each step has its own deadline, and a caller who goes away must not leave half of them behind.
        with anyio.CancelScope(shield=True), self._being_started(entries):
            results = await self._spawn(entries, [request.profile for request in requests], tokens)
        return results  # noqa: RET504  mypy knows that a cancel scope may swallow an exception

    async def _spawn(
        self, entries: Sequence[Entry], profiles: Sequence[Profile], tokens: Sequence[str]
    ) -> list[Agent | AgentdError]:
        for entry in entries:
            self._directory.put(entry)  # before the first await: this reserves the names
        failpoint("spawn.before_db")
        try:
            await self._registry.save(entries)
        except AgentdError:
            for entry in entries:
                self._directory.drop(entry.agent.id)
            raise
        failpoint("spawn.before_tmux")
        results: list[Agent | AgentdError] = [entry.agent for entry in entries]
        async with anyio.create_task_group() as group:
            for index, (entry, profile) in enumerate(zip(entries, profiles, strict=True)):
                group.start_soon(self._start_one, entry, profile, tokens[index], results, index)
        # As they are by now: the first ones may be idle already while the last ones are being started.
        await self._keep([self._directory.entry(r.id).agent for r in results if isinstance(r, Agent)])
        await self._discard([e.agent.id for e, r in zip(entries, results, strict=True) if isinstance(r, AgentdError)])
        return results

    @contextmanager
    def _being_started(self, entries: Sequence[Entry]) -> Iterator[None]:
        ids = {entry.agent.id for entry in entries}
        self._starting |= ids
        try:
            yield
        finally:
            self._starting -= ids

    async def respawn(self, agent: Agent) -> Agent:
        """Start an ended agent again: same id, same inbox, a new token."""
        if self.known(agent.id):
            raise Conflict(f"{agent.name} is running ({agent.state})", hint=f"stop it first: agentd stop {agent.name}")
        self._check_room(1)
        profile = self._profiles.get(agent.profile)
        before, token = self._directory.entry(agent.id), new_token()
        entry = Entry(_again(agent), digest(token))
        with anyio.CancelScope(shield=True), self._being_started([entry]):
            self._directory.put(entry)
            await self._registry.save([entry])  # with its new token, before its program can show it
            results: list[Agent | AgentdError] = [agent]
            await self._start_one(entry, profile, token, results, 0)
            if isinstance(results[0], AgentdError):
                self._directory.put(before)
                await self._registry.save([before])
                raise results[0]
            kept = await self._keep([self._directory.entry(agent.id).agent])
        return kept[0]

    async def _start_one(
        self, entry: Entry, profile: Profile, token: str, results: list[Agent | AgentdError], index: int
    ) -> None:
        agent = entry.agent
        try:
            async with self._spawns:
                self._places.write_token(agent.id, token)
                pane = await self._tmux.spawn(
                    session_name(agent.name, agent.id),
                    profile.argv(),
                    env=self._places.environment(agent, profile),
                    cwd=agent.cwd or str(Path.home()),
                    width=self._config.tmux.width,
                    height=self._config.tmux.height,
                    umask=self._umask,
                )
        except AgentdError as error:
            results[index] = error
            return
        failpoint("spawn.after_tmux")
        started = replace(agent, pane=pane)
        self._directory.put(Entry(started, entry.token))
        results[index] = started
        self._watch(started, profile, pane)
        self._events.emit("agent.spawned", **_brief(started))

    def _watch(
        self,
        agent: Agent,
        profile: Profile,
        pane: PaneRef,
        *,
        started: bool = False,
        recovered: Sequence[Delivery] = (),
    ) -> None:
        terminal = Terminal(self._tmux, pane, profile, self._config.courier.confirm_s)
        live = LiveAgent(
            agent.id,
            profile,
            terminal,
            Courier(
                agent.id, profile, terminal, self._mailbox, self._config.courier, self._directory.display, self._metrics
            ),
            Status(
                settle_s=profile.boot.settle_ms / 1000,
                boot_timeout_s=profile.boot.timeout_s,
                now_s=anyio.current_time(),
                started=started,
            ),
            on_opinion=self._on_opinion,
            may_deliver=lambda: not self._quiet,
            log=self._log,
        )
        self._live[agent.id] = live
        self._by_pane[pane.pane_id] = live
        self._start(live.run, recovered, self._on_end)

    # -- coming back

    async def adopt(self, recovered: Sequence[Delivery]) -> Adoption:
        """Take over the agents that outlived the last daemon; say which are lost and end what nobody knows."""
        panes = {agent_id: info for info in await self._tmux.panes() if (agent_id := id_of_session(info.session_name))}
        adopted: list[str] = []
        lost: list[Agent] = []
        for agent in list(self._directory):
            if agent.state is AgentState.STOPPED:
                continue
            info = panes.pop(agent.id, None)
            if info is not None:
                mine = [delivery for delivery in recovered if delivery.message.to == agent.id]
                self._adopt_one(agent, info, mine)
                adopted.append(agent.name)
            elif agent.pane is not None or agent.state is not AgentState.FAILED:
                lost.append(agent)
        leftover = [delivery for delivery in recovered if delivery.message.to not in self._live]
        if leftover:
            await self._mailbox.release(leftover)
        for info in panes.values():
            await self._bury(info.ref)
        if lost:
            await self._end_survivors([agent.id for agent in lost])
            why = "its pane was gone when agentd came back"
            await self._keep([_ended(agent, AgentState.FAILED, why, None) for agent in lost])
        return Adoption(adopted, [agent.name for agent in lost], [info.session_name for info in panes.values()])

    def _adopt_one(self, agent: Agent, info: PaneInfo, recovered: Sequence[Delivery]) -> None:
        known = agent.profile in self._profiles.names()
        profile = self._profiles.get(agent.profile) if known else stand_in(agent.profile)
        started = agent.state is not AgentState.STARTING
        kept = replace(agent, pane=info.ref)
        self._directory.put(Entry(kept, self._directory.entry(agent.id).token))
        self._watch(kept, profile, info.ref, started=started, recovered=recovered)

    # -- ending

    async def stop(self, agent: Agent, *, force: bool) -> Agent:
        """End an agent's program and everything it started; what waits in its inbox is kept."""
        live = self._live.get(agent.id)
        if live is None and agent.state is AgentState.STOPPED:
            return agent
        with anyio.CancelScope(shield=True):  # a caller who goes away must not leave half an agent
            if live is not None:
                stopped = await self._stop(live, force=force)
            else:
                stopped = (await self._keep([_ended(agent, AgentState.STOPPED, agent.reason, agent.exit_status)]))[0]
        return stopped

    async def _stop(self, live: LiveAgent, *, force: bool) -> Agent:
        self._stopping.add(live.id)
        try:
            self._keep_screen(live.id, (await live.terminal.capture(None, escapes=False)).text)
            if not force:
                await live.end_by_itself()
            await self._tmux.kill(live.terminal.ref, 0.0 if force else self._config.agents.stop_timeout_s)
        except (AgentGone, StaleTarget):
            pass  # it ended by itself meanwhile
        finally:
            self._stopping.discard(live.id)
        if self._live.get(live.id) is not live:  # another stop, or its tmux server's end, was quicker
            return self._directory.entry(live.id).agent
        self._forget_live(live.id)
        stopped = _ended(self._directory.entry(live.id).agent, AgentState.STOPPED, "stopped on request", None)
        await self._keep([stopped])
        await self._forget_oldest()
        return stopped

    async def _on_end(self, agent_id: str, ended: Ended) -> None:
        live = self._live.get(agent_id)
        if live is None or agent_id in self._stopping:
            return
        self._keep_screen(agent_id, ended.screen)
        await self._give_back_unacked(agent_id, live.profile)
        # Before its end is told: who starts it again at once must not find the old session.
        await self._bury(live.terminal.ref)
        if self._live.get(agent_id) is not live or agent_id in self._stopping:
            return
        self._forget_live(agent_id)
        state = AgentState.STOPPED if ended.exit_status == 0 else AgentState.FAILED
        agent = self._directory.entry(agent_id).agent
        await self._keep([_ended(agent, state, _how_it_ended(ended), ended.exit_status)])
        await self._forget_oldest()

    async def _bury(self, pane: PaneRef) -> None:
        try:
            await self._tmux.kill(pane, BURY_S)
        except AgentdError as error:
            self._log.warning("could not remove a dead pane", pane=pane.pane_id, error=error.message)

    def _keep_screen(self, agent_id: str, screen: str) -> None:
        try:
            self._places.write_last_screen(agent_id, screen)
        except (AgentdError, OSError) as error:  # the screen is a help; its agent's end matters more
            self._log.warning("could not keep a last screen", agent=agent_id, error=str(error))

    async def _forget_oldest(self) -> None:
        """Remove the oldest ended agents beyond those that stay listed."""
        ended = [a for a in self._directory if not self.known(a.id) and not self._mailbox.depth(a.id)]
        ended.sort(key=lambda agent: agent.since_ns, reverse=True)
        await self._discard([agent.id for agent in ended[self._config.agents.keep_stopped :]])

    async def _give_back_unacked(self, agent_id: str, profile: Profile) -> None:
        """Offer again what was typed into a program that acknowledges and ended before it did."""
        if not profile.acks:
            return
        unacked = await self._mailbox.inbox(agent_id, [MessageState.DELIVERED], 10_000)
        if unacked:
            ids = [message.id for message in unacked]
            why = "the agent ended before it acknowledged"
            await self._mailbox.nack(ids, 0.0, why, self._config.courier.max_attempts)

    async def _server_gone(self) -> None:
        """Every agent of a dead tmux server failed; what outlived the server is ended first.

        Until then they count as live: one that is started again at once must not be taken for its own survivor.
        """
        gone = set(self._live)
        self._log.error("tmux server gone", agents=len(gone))
        self._stopping |= gone  # their own tasks see an end, too; it is told here
        try:
            await self._end_survivors(gone)
        finally:
            self._stopping -= gone
        gone &= set(self._live)  # less what a stop that was under way has dealt with
        for agent_id in gone:
            self._forget_live(agent_id)
        agents = [self._directory.entry(agent_id).agent for agent_id in gone]
        reason = "lost: its tmux server ended"
        await self._keep([_ended(agent, AgentState.FAILED, reason, None) for agent in agents])
        self._events.emit("tmux.gone", agents=len(gone))

    async def _end_survivors(self, agent_ids: Collection[str]) -> None:
        """End what agents started and their tmux server's end did not."""
        ended = await anyio.to_thread.run_sync(survivors.end_all, self._instance, agent_ids)
        if ended:
            self._log.warning("ended programs that outlived their pane", pids=ended)

    def _forget_live(self, agent_id: str) -> LiveAgent:
        live = self._live.pop(agent_id)
        self._by_pane.pop(live.terminal.ref.pane_id, None)
        live.died()
        return live

    # -- keeping

    async def _keep(self, agents: Sequence[Agent]) -> Sequence[Agent]:
        """Put agents into the directory and on disk, and tell of the new state."""
        entries = [Entry(agent, self._directory.entry(agent.id).token) for agent in agents]
        for entry in entries:
            self._directory.put(entry)
        for agent in agents:
            if agent.pane is None:
                self._events.emit("agent.state", **_brief(agent))
        if entries:
            await self._registry.save(entries)
        return agents

    async def _discard(self, agent_ids: Sequence[str]) -> None:
        if not agent_ids:
            return
        for agent_id in agent_ids:
            self._directory.drop(agent_id)
            self._places.remove(agent_id)
        await self._registry.forget(agent_ids)

    def _on_opinion(self, agent_id: str, opinion: Opinion) -> None:
        entry = self._directory.entry(agent_id)
        since_ns = time.time_ns() if entry.agent.state is not opinion.state else entry.agent.since_ns
        agent = replace(entry.agent, state=opinion.state, reason=opinion.reason, since_ns=since_ns)
        self._directory.put(Entry(agent, entry.token))
        if agent.state is not entry.agent.state:
            self._events.emit("agent.state", **_brief(agent))
            if entry.agent.state is AgentState.STARTING:
                self._start(self._registry.save, [self._directory.entry(agent_id)])

    def _start(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, function, args)

    async def _guarded(self, function: Callable[..., Awaitable[None]], args: Sequence[Any]) -> None:
        try:
            await function(*args)
        except Exception:  # noqa: BLE001  one agent's or one write's trouble must not end the daemon
            self._log.error("a task of the crew failed", task=repr(function), exc_info=True)

    def _check_room(self, wanted: int) -> None:
        room = self._config.agents.max - len(self._live.keys() | self._starting)
        if wanted > room:
            raise OverLimit(
                f"{len(self._live)} agents live and {wanted} more would pass agents.max = {self._config.agents.max}",
                hint="stop some, or raise agents.max",
            )


def _new_agent(request: SpawnRequest) -> Agent:
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
        created_ns=now_ns,
        since_ns=now_ns,
    )


def _again(agent: Agent) -> Agent:
    return replace(
        agent,
        state=AgentState.STARTING,
        reason="being started again",
        pane=None,
        exit_status=None,
        since_ns=time.time_ns(),
    )


def _ended(agent: Agent, state: AgentState, reason: str, exit_status: int | None) -> Agent:
    return replace(agent, state=state, reason=reason, pane=None, exit_status=exit_status, since_ns=time.time_ns())


def _how_it_ended(ended: Ended) -> str:
    if ended.exit_signal:
        return f"its program was killed by signal {_signal_name(ended.exit_signal)}"
    if ended.exit_status is None:
        return "its program ended, and tmux did not learn how"
    return f"its program exited with status {ended.exit_status}"


def _signal_name(number: str) -> str:
    try:
        return f"{number} ({signal.Signals(int(number)).name})"
    except ValueError:
        return number


def _brief(agent: Agent) -> dict[str, object]:
    return {"agent": agent.id, "name": agent.name, "team": agent.team, "state": agent.state, "reason": agent.reason}
