"""The dozen operations agentd needs of tmux; nothing above this module knows a tmux command.

Panes are addressed by id and only while the server lives that gave the id; names are never targets.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup

from agentd.config import TmuxConfig
from agentd.errors import AgentdError
from agentd.records import PaneRef
from agentd.tmux.calls import Calls
from agentd.tmux.ending import Ending
from agentd.tmux.events import (
    Activity,
    LayoutChanged,
    Lost,
    Output,
    PaneDied,
    Renamed,
    Restored,
    ServerGone,
    SessionsChanged,
    TmuxEvent,
    WindowsChanged,
)
from agentd.tmux.failures import PaneDead, TmuxRefused, TmuxTimeout, TmuxUnavailable
from agentd.tmux.hearing import Hearing
from agentd.tmux.keyboard import Keyboard
from agentd.tmux.looking import Looking
from agentd.tmux.pool import Pool
from agentd.tmux.server import Server, ServerPlace
from agentd.tmux.starting import SpawnOrder, Starting
from agentd.tmux.views import Look, PaneInfo, Surroundings

__all__ = [
    "Activity",
    "LayoutChanged",
    "Look",
    "Lost",
    "Output",
    "PaneDead",
    "PaneDied",
    "PaneInfo",
    "Renamed",
    "Restored",
    "ServerGone",
    "SessionsChanged",
    "SpawnOrder",
    "Tmux",
    "TmuxEvent",
    "TmuxRefused",
    "TmuxTimeout",
    "TmuxUnavailable",
    "WindowsChanged",
]

_WATCH_S = 1.0  # how often the socket's file is looked for
_AGAIN_S = 1.0  # between attempts to have a server again


class Tmux:
    """One tmux server of ours, over control connections that are kept open."""

    def __init__(self, config: TmuxConfig, place: ServerPlace, log: Any, on_event: Callable[[TmuxEvent], None]) -> None:
        self._config = config
        self._place = place
        self._log = log
        self._calls = Calls(config.command_timeout_s)
        self._hearing = Hearing(self._calls, log, on_event)
        self._looking = Looking(self._calls, self._hearing)
        self._keyboard = Keyboard(self._calls, self._hearing, place.directory)
        self._ending = Ending(self._calls, self._hearing, log)
        self._starting = Starting(
            self._calls, self._hearing, self._looking, self._ending, log, parallel=config.parallel_spawn
        )
        self._control = config.control_mode
        self._spread = True
        self._tasks: TaskGroup | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: TmuxConfig,
        socket: str,
        conf: str,
        instance: str,
        log: Any,
        on_event: Callable[[TmuxEvent], None],
    ) -> AsyncIterator[Tmux]:
        """Adopt our running server or start one, and stay connected; closing leaves the server and its panes running.

        Raises Conflict when the server at the socket belongs to another instance.
        """
        tmux = cls(config, ServerPlace(config, socket, conf, instance), log, on_event)
        server = await tmux._place.find_or_start()
        failure: Exception | None = None
        async with anyio.create_task_group() as tmux._tasks:
            await tmux._tasks.start(tmux._live, server)
            tmux._tasks.start_soon(tmux._hearing.watch_deaths)
            tmux._tasks.start_soon(tmux._hearing.look_when_deaf)
            tmux._tasks.start_soon(tmux._watch_socket)
            try:
                yield tmux
            except Exception as error:  # noqa: BLE001  raised again below, as itself and not inside a group
                failure = error
            finally:
                await tmux.close()
        if failure is not None:
            raise failure

    @property
    def server(self) -> str:
        """Return the server's identity, "pid:start time"; empty while there is none."""
        return self._calls.server_id

    @property
    def version(self) -> str:
        """Return the server's version."""
        return self._calls.server.version if self._calls.server else ""

    def use_control_mode(self, *, on: bool) -> None:
        """Send commands over the open connections, or run a tmux process for each; what happens is heard either way."""
        self._control = on
        if self._calls.pool is not None:
            self._calls.pool.control = on

    def use_connections(self, *, on: bool) -> None:
        """Spread commands over several connections, or send all over one."""
        self._spread = on
        if self._calls.pool is not None:
            self._calls.pool.spread = on

    def use_parallel_spawn(self, *, on: bool) -> None:
        """Start programs side by side, or one after the other."""
        self._starting.parallel(on=on)

    async def price(self) -> None:
        """Measure what a command in a process of its own takes at the moment; a server that is gone has no price."""
        if self._control:
            await self._place.price()

    def stats(self) -> dict[str, Any]:
        """Return what was counted: of this life of the server, but events and orphans since the start."""
        pool = self._calls.pool
        return {
            "server": self.server,
            "events": self._hearing.count,
            "event_lag_ms": self._hearing.lag.last_ms,
            "orphans_closed": self._place.orphans_closed,
            "spawned": self._starting.spawned,
            "spawns_failed": self._starting.failed,
            "process_ms": round(self._place.process_s * 1000, 3),
            **(pool.row() if pool else {}),
        }

    async def close(self) -> None:
        """Disconnect; the server and its panes go on."""
        if self._tasks is not None:
            self._tasks.cancel_scope.cancel()

    async def stop_server(self) -> None:
        """End the server and every program in it; no ServerGone is told for what was asked."""
        self._calls.stopped = True
        server, self._calls.server = self._calls.server, None
        if self._calls.pool is not None:
            self._calls.pool.links.leave()
        if server is not None:
            await self._place.stop(server)

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
        """Start a program in a session of its own and return its pane; a failure leaves no session behind.

        The program may end at once: that is told by PaneDied and by look(), not by an error here. What it printed in
        its first moments is on the screen, but no Output told of it: so look once.
        """
        return await self._starting.one(SpawnOrder(session_name, argv, env, cwd, width, height, umask))

    async def spawn_many(self, orders: Sequence[SpawnOrder]) -> list[PaneRef | AgentdError]:
        """Start programs, many at once, and return in their order what spawn() would return or raise for each.

        Raises OverLimit, with nothing started, when the server has no room for so many.
        """
        return await self._starting.many(orders)

    async def rename(self, ref: PaneRef, session_name: str) -> None:
        """Give an agent's session another name; one that is gone is no error."""
        await self._starting.rename(ref, session_name)

    async def kill(self, ref: PaneRef, timeout_s: float) -> None:
        """End a pane with everything that runs in it: hang up, and kill what is left after the time given.

        What is gone already is no error.
        """
        await self._ending.kill(ref, timeout_s)

    # -- looking

    async def look(self, ref: PaneRef, lines: int | None = None, escapes: bool = False) -> Look:
        """Return what the pane shows; with so many `lines` of scrollback; with `escapes`, colours too."""
        return await self._looking.look(ref, lines, escapes=escapes)

    async def surroundings(self, ref: PaneRef) -> Surroundings:
        """Return how many people are attached to the pane's session, and the directory its program is in."""
        return await self._looking.surroundings(ref)

    async def panes(self) -> list[PaneInfo]:
        """Return every pane that is not the hub's."""
        return await self._looking.panes()

    async def sessions(self) -> list[dict[str, Any]]:
        """Return every session but the hub: id, name, windows, panes, activity (seconds since 1970)."""
        return await self._looking.sessions()

    async def attached(self) -> list[str]:
        """Return the terminals of the people who are attached."""
        return await self._looking.attached()

    def attach_argv(self, ref: PaneRef) -> list[str]:
        """Return the command with which a person looks over the program's shoulder."""
        self._calls.check_server(ref)
        return [self._config.binary, "-S", self._place.socket, "attach-session", "-t", ref.session_id]

    # -- typing

    async def paste(self, ref: PaneRef, text: str, bracketed: bool = True) -> None:
        """Paste a text of up to 64 KiB; without bracketed paste, of one line.

        Raises PaneDead, with nothing typed, when the pane's program is not the one of the ref any more: the check and
        the paste are one step of the server, because pasting into a dead pane kills tmux 3.3a. Raises Busy while 64 KiB
        stand in front of a program that has shown no sign of reading.
        """
        await self._keyboard.paste(ref, text, bracketed=bracketed)

    async def type_text(self, ref: PaneRef, text: str) -> None:
        """Type one line of text as keys, each meaning itself."""
        await self._keyboard.type_text(ref, text)

    async def keys(self, ref: PaneRef, *names: str) -> None:
        """Press keys, by tmux's names for them."""
        await self._keyboard.keys(ref, *names)

    async def forget_scrollback(self, ref: PaneRef) -> None:
        """Forget what has scrolled out of the pane; what it shows stays."""
        await self._keyboard.forget_scrollback(ref)

    async def leave_mode(self, ref: PaneRef) -> None:
        """End the copy mode a person left the pane in; keys would go to it."""
        await self._keyboard.leave_mode(ref)

    # -- one server after the other

    async def _live(self, server: Server, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        first = True
        while True:
            pool = self._new_pool(server)
            pool.spread = self._spread
            self._calls.server, self._calls.pool = server, pool
            async with anyio.create_task_group() as group:
                await group.start(pool.run)
                if first:
                    task_status.started()
                else:
                    self._tell(Restored(server.id))
                first = False
            self._lose_server(server)
            if self._calls.stopped:
                return
            server = await self._server_again()

    def _new_pool(self, server: Server) -> Pool:
        return Pool(
            self._config,
            self._place,
            server,
            self._calls.gate,
            control=self._control,
            on_notification=self._hearing.take,
            on_hook=self._hearing.take_hook,
            tell=self._tell,
            log=self._log,
        )

    def _tell(self, event: TmuxEvent) -> None:
        if isinstance(event, Restored) and self._tasks is not None:
            self._tasks.start_soon(self._starting.tidy)
        self._hearing.tell(event)

    def _lose_server(self, server: Server) -> None:
        self._calls.pool, self._calls.server = None, None
        self._hearing.forget_all()
        self._starting.forget_all()
        if not self._calls.stopped:
            self._tell(ServerGone(server.id))

    async def _server_again(self) -> Server:
        while True:
            try:
                return await self._place.find_or_start()
            except AgentdError as error:
                self._log.error("no tmux server", error=error.message)
            await anyio.sleep(_AGAIN_S)

    async def _watch_socket(self) -> None:
        while True:
            await anyio.sleep(_WATCH_S)
            server = self._calls.server
            if server is not None and self._place.restore_socket(server):
                self._log.warning("the tmux socket was removed; its server made it again", socket=self._place.socket)
