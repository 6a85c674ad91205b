"""Several tmux servers behind the operations of one: a server's crash takes its own agents only.

An agent keeps its server for life; the server's identity in its PaneRef says where it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup

from agentd.config import TmuxConfig
from agentd.errors import AgentdError, Conflict, StaleTarget
from agentd.paths import Paths
from agentd.records import PaneRef
from agentd.tmux.events import ServerGone, TmuxEvent
from agentd.tmux.failures import TmuxUnavailable
from agentd.tmux.placement import bounds, place, wanted
from agentd.tmux.sockets import check_free, living
from agentd.tmux.tmux import Tmux
from agentd.tmux.views import Look, PaneInfo, Surroundings

_REST_S = 10.0  # until a server that could not be started is tried again

T = TypeVar("T")


@dataclass(slots=True)
class _Member:
    """One server of the fleet; `tmux` is None while it is being started."""

    ready: anyio.Event = field(default_factory=anyio.Event)
    tmux: Tmux | None = None
    failure: AgentdError | None = None


class Fleet:
    """Our tmux servers, each at its own socket; the first is always there."""

    def __init__(
        self, config: TmuxConfig, paths: Paths, instance: str, log: Any, on_event: Callable[[TmuxEvent], None]
    ) -> None:
        self._config = config
        self._paths = paths
        self._instance = instance
        self._log = log
        self._on_event = on_event
        self._members: dict[int, _Member] = {}
        self._panes: dict[str, set[str]] = {}  # of agents, by server
        self._placing: Counter[int] = Counter()  # agents under way, by index
        self._rest_until_s: dict[int, float] = {}  # servers that could not be started
        self._foreign: set[int] = set()  # places that are somebody else's
        self._start_failures = 0
        self._stopped = False
        self._tasks: TaskGroup | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: TmuxConfig, paths: Paths, instance: str, log: Any, on_event: Callable[[TmuxEvent], None]
    ) -> AsyncIterator[Fleet]:
        """Adopt every server of ours that lives, have the first, and stay connected; closing leaves them running.

        Raises Conflict when the first's place is somebody else's; others that are not ours are left alone.
        """
        fleet = cls(config, paths, instance, log, on_event)
        failure: Exception | None = None
        async with anyio.create_task_group() as fleet._tasks:
            try:
                await fleet._adopt()
                yield fleet
            except Exception as error:  # noqa: BLE001  raised again below, as itself and not inside a group
                failure = error
            finally:
                fleet._tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    @property
    def version(self) -> str:
        """Return the version of the servers; empty while there is none."""
        return next((tmux.version for tmux in self._living().values()), "")

    def servers(self) -> list[dict[str, Any]]:
        """Return one row per living server: index, socket, server (its identity), agents."""
        return [
            {
                "index": index,
                "socket": self._paths.tmux_socket(index),
                "server": tmux.server,
                "agents": self._load(index),
            }
            for index, tmux in self._living().items()
        ]

    def stats(self) -> list[dict[str, Any]]:
        """Return what each living server's connections counted, and the index of the server."""
        return [{"index": index, **tmux.stats()} for index, tmux in self._living().items()]

    async def price(self) -> None:
        """Measure what a command in a process of its own takes at the moment, on each living server."""
        for tmux in list(self._living().values()):
            await tmux.price()

    @property
    def start_failures(self) -> int:
        """Return how many times a server could not be started."""
        return self._start_failures

    def use_control_mode(self, *, on: bool) -> None:
        """Send commands over the open connections, or run a tmux process for each."""
        self._config = replace(self._config, control_mode=on)
        for tmux in self._living().values():
            tmux.use_control_mode(on=on)

    def use_connections(self, *, on: bool) -> None:
        """Spread the commands for a server over several connections, or send all over one."""
        self._config = replace(self._config, connections=self._config.connections if on else 1)
        for tmux in self._living().values():
            tmux.use_connections(on=on)

    def use_parallel_spawn(self, *, on: bool) -> None:
        """Start programs side by side, or one after the other."""
        self._config = replace(self._config, parallel_spawn=on)
        for tmux in self._living().values():
            tmux.use_parallel_spawn(on=on)

    def use_servers(self, *, on: bool) -> None:
        """Start new agents on several servers, or all on the first; those there are stay where they are."""
        self._config = replace(self._config, servers=self._config.servers if on else "1")

    async def stop(self) -> None:
        """End every server and every program in it; no ServerGone is told for what was asked."""
        self._stopped = True
        async with anyio.create_task_group() as group:
            for index, member in list(self._members.items()):
                group.start_soon(self._stop_one, index, member)

    async def _stop_one(self, index: int, member: _Member) -> None:
        await member.ready.wait()
        try:
            if member.tmux is not None:
                await member.tmux.stop_server()
        except AgentdError as error:
            self._log.error("could not stop a tmux server", index=index, error=error.message)

    # -- starting and ending programs

    async def spawn(
        self,
        session_name: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: str,
        width: int,
        height: int,
        umask: int = 0o022,
    ) -> PaneRef:
        """Start a program on the server that has room for it, or on one more; else as Tmux.spawn.

        Raises TmuxUnavailable when that further server cannot be started; the next agents go elsewhere.
        """
        self._check_not_stopped()
        index = self._place()
        self._placing[index] += 1
        try:
            tmux = await self._started(index)
            ref = await tmux.spawn(session_name, argv, env, cwd, width, height, umask)
            if ref.server == tmux.server:
                self._panes.setdefault(ref.server, set()).add(ref.pane_id)
        finally:
            self._placing[index] -= 1
        return ref

    async def prepare(self, count: int) -> None:
        """Have the servers that so many more agents will need; one that cannot be had fails those that come to it."""
        self._check_not_stopped()
        allowed, full = self._bounds()
        loads = {index: self._load(index) for index in self._members}
        missing = wanted(loads, count, allowed, full) if not self._resting() else []
        async with anyio.create_task_group() as group:
            for index in missing:
                group.start_soon(self._have, index)

    async def _have(self, index: int) -> None:
        try:
            await self._started(index)
        except AgentdError as error:
            self._log.warning("a further tmux server was not to be had", index=index, error=error.message)

    async def rename(self, ref: PaneRef, session_name: str) -> None:
        """See Tmux.rename."""
        await self._of(ref).rename(ref, session_name)

    async def kill(self, ref: PaneRef, timeout_s: float) -> None:
        """End a pane with everything that runs in it; see Tmux.kill."""
        await self._of(ref).kill(ref, timeout_s)
        self._panes.get(ref.server, set()).discard(ref.pane_id)

    # -- looking

    async def look(self, ref: PaneRef, lines: int | None = None, escapes: bool = False) -> Look:
        """Return what the pane shows; see Tmux.look."""
        return await self._of(ref).look(ref, lines, escapes)

    async def surroundings(self, ref: PaneRef) -> Surroundings:
        """Return who is attached to a pane's session, and where its program is; see Tmux.surroundings."""
        return await self._of(ref).surroundings(ref)

    async def panes(self) -> list[PaneInfo]:
        """Return every pane of every server that is not a hub's."""
        return [pane for panes in (await self._from_each(Tmux.panes)).values() for pane in panes]

    async def sessions(self) -> list[dict[str, Any]]:
        """Return every session but the hubs, each with the index of its `server`: ids are unique only within one."""
        found = await self._from_each(Tmux.sessions)
        return [{**row, "server": index} for index, rows in found.items() for row in rows]

    async def sessions_of(self, server: str) -> list[dict[str, Any]] | None:
        """Return the sessions of one server, by its identity; None when it is gone."""
        for index, tmux in self._living().items():
            if tmux.server == server:
                return [{**row, "server": index} for row in await tmux.sessions()]
        return None

    async def attached(self) -> list[str]:
        """Return the terminals of the people who are attached to any server."""
        return [tty for ttys in (await self._from_each(Tmux.attached)).values() for tty in ttys]

    def attach_argv(self, ref: PaneRef) -> list[str]:
        """Return the command with which a person looks over the program's shoulder."""
        return self._of(ref).attach_argv(ref)

    def socket_of(self, ref: PaneRef) -> str | None:
        """Return the path of the socket of the pane's server; None when that is gone."""
        return self.sockets().get(ref.server)

    def sockets(self) -> dict[str, str]:
        """Return the path of the socket of each living server, by its identity."""
        return {tmux.server: self._paths.tmux_socket(index) for index, tmux in self._living().items()}

    # -- typing

    async def paste(self, ref: PaneRef, text: str, bracketed: bool = True) -> None:
        """Paste a text; see Tmux.paste."""
        await self._of(ref).paste(ref, text, bracketed)

    async def type_text(self, ref: PaneRef, text: str) -> None:
        """Type one line of text as keys, each meaning itself."""
        await self._of(ref).type_text(ref, text)

    async def keys(self, ref: PaneRef, *names: str) -> None:
        """Press keys, by tmux's names for them."""
        await self._of(ref).keys(ref, *names)

    async def forget_scrollback(self, ref: PaneRef) -> None:
        """Forget what has scrolled out of a pane."""
        await self._of(ref).forget_scrollback(ref)

    async def leave_mode(self, ref: PaneRef) -> None:
        """End the copy mode a person left the pane in; keys would go to it."""
        await self._of(ref).leave_mode(ref)

    # -- which server

    def _living(self) -> dict[int, Tmux]:
        """Return the servers that live now, by index."""
        members = sorted(self._members.items())
        return {index: member.tmux for index, member in members if member.tmux is not None and member.tmux.server}

    def _of(self, ref: PaneRef) -> Tmux:
        self._check_not_stopped()
        for member in self._members.values():
            if member.tmux is not None and member.tmux.server == ref.server:
                return member.tmux
        raise StaleTarget(
            f"pane {ref.pane_id} belongs to the tmux server {ref.server}, which is gone", hint="start the agent again"
        )

    def _check_not_stopped(self) -> None:
        if self._stopped:
            raise TmuxUnavailable("the tmux servers were stopped on request")

    async def _from_each(self, ask: Callable[[Tmux], Awaitable[T]]) -> dict[int, T]:
        """Ask every living server; one that dies meanwhile has nothing, one that does not answer is an error."""
        living = self._living()
        answers: dict[int, T] = {}
        failures: list[AgentdError] = []

        async def one(index: int, tmux: Tmux, server: str) -> None:
            try:
                answers[index] = await ask(tmux)
            except AgentdError as error:
                if tmux.server == server:
                    failures.append(error)

        async with anyio.create_task_group() as group:
            for index, tmux in living.items():
                group.start_soon(one, index, tmux, tmux.server)
        if failures:
            raise failures[0]
        return dict(sorted(answers.items()))

    # -- where a new agent goes

    def _place(self) -> int:
        allowed, full = self._bounds()
        return place({index: self._load(index) for index in self._members}, self._resting(), allowed, full)

    def _bounds(self) -> tuple[Sequence[int], int]:
        allowed, full = bounds(self._config.servers, self._config.agents_per_server)
        return [index for index in allowed if index not in self._foreign], full

    def _load(self, index: int) -> int:
        tmux = self._members[index].tmux
        there = len(self._panes.get(tmux.server, ())) if tmux is not None else 0
        return there + self._placing[index]

    def _resting(self) -> set[int]:
        now_s = anyio.current_time()
        dead = {index for index, member in self._members.items() if member.tmux is not None and not member.tmux.server}
        return dead | {index for index, until_s in self._rest_until_s.items() if until_s > now_s}

    def _take_event(self, event: TmuxEvent) -> None:
        if isinstance(event, ServerGone):
            self._panes.pop(event.server, None)
        self._on_event(event)

    # -- having servers

    async def _adopt(self) -> None:
        """Take over every server that lives, and have the first."""
        found = await anyio.to_thread.run_sync(living, self._paths.tmux_sockets())
        failures: dict[int, AgentdError] = {}

        async def one(index: int) -> None:
            try:
                await self._member(index)
            except AgentdError as error:
                failures[index] = error

        async with anyio.create_task_group() as group:
            for index in {0, *found}:
                group.start_soon(one, index)
        for index, error in sorted(failures.items()):
            if index == 0 or not isinstance(error, Conflict):  # without it, its agents would be taken for lost
                raise error
            self._log.warning("a tmux server is left alone", index=index, error=error.message)

    async def _started(self, index: int) -> Tmux:
        try:
            return await self._member(index)
        except AgentdError as error:
            raise TmuxUnavailable(
                f"tmux server {index} could not be started: {error.message}", hint=error.hint
            ) from None

    async def _member(self, index: int) -> Tmux:
        """Return a server's Tmux; whoever asks first has it started, others wait for the same start."""
        if self._tasks is None:
            raise TmuxUnavailable("the tmux servers are not open")
        member = self._members.get(index)
        if member is None:
            member = self._members[index] = _Member()
            self._tasks.start_soon(self._keep, index, member)
        await member.ready.wait()
        if member.tmux is None:
            raise member.failure or TmuxUnavailable("it was not started")
        return member.tmux

    async def _keep(self, index: int, member: _Member) -> None:
        """Hold one server's connections until the fleet is closed."""
        try:
            check_free(self._paths.tmux_socket(index))
            async with Tmux.open(
                self._config,
                self._paths.tmux_socket(index),
                self._paths.tmux_conf(index),
                self._instance,
                self._log,
                self._take_event,
            ) as tmux:
                self._panes[tmux.server] = {pane.ref.pane_id for pane in await tmux.panes()}
                member.tmux = tmux
                member.ready.set()
                await anyio.sleep_forever()
        except AgentdError as error:
            member.failure = error
            self._start_failures += 1
            del self._members[index]
            if isinstance(error, Conflict):
                self._foreign.add(index)
            else:
                self._rest_until_s[index] = anyio.current_time() + _REST_S
            self._log.error("no tmux server", index=index, error=error.message)
            member.ready.set()
