"""The connections to one life of a server, each opened again when it is lost.

calls    for commands (see Pool); hear nothing
events   hears the output of every window linked into the hub, and once a second which panes are alive
hooks    waits for our hooks on deaths and splits; nothing else tells of them at once (tmux-2.md §5)
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agentd.errors import AgentdError
from agentd.tmux.breaker import Breaker
from agentd.tmux.connection import ControlConnection
from agentd.tmux.events import Lost, Restored, TmuxEvent
from agentd.tmux.failures import Desync, TmuxUnavailable
from agentd.tmux.gate import Gate
from agentd.tmux.meter import Meter
from agentd.tmux.notation import Notification
from agentd.tmux.server import HOOKS, Server, ServerPlace

_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 1.0
_PAUSE_AFTER_S = 1  # tmux's smallest: a pane whose output we have not read for so long is paused, so tmux stays small
_LOOK_S = 0.5  # how often the connections' health is looked at
_SILENT_S = 5.0  # a connection that heard nothing for so long is asked something
_SUSPECT_S = 1.0  # likewise while another waits for its reply for so long
_HEALTH_S = 2.0  # for the answer
# Of the attached session, which is the hub: so of every pane that is ours, once.
SNAPSHOT = "#{W:#{P:#{pane_id} #{pane_dead} #{window_activity};}}"
_LISTEN = f"ignore-size,pause-after={_PAUSE_AFTER_S}"
_QUIET = "ignore-size,no-output"

Use = Callable[[ControlConnection], Awaitable[None]]


class Link:
    """One connection that is kept."""

    def __init__(self, role: str, flags: str, breaker: Breaker, use: Use, *, bulk: bool = False) -> None:
        self.role = role
        self.flags = flags
        self.use = use
        self.bulk = bulk
        self.meter = Meter(role, breaker)
        self.connection: ControlConnection | None = None
        self.checking = False

    @property
    def ready(self) -> ControlConnection | None:
        """Return the connection if commands can be sent."""
        return self.connection if self.connection is not None and self.connection.ready else None

    def row(self) -> dict[str, Any]:
        """Return what is told of it."""
        if self.connection is None:
            return self.meter.row()
        return self.meter.row(pid=self.connection.pid, pending=self.connection.pending)


class Links:
    """Keeps the connections to one life of the server."""

    def __init__(
        self,
        place: ServerPlace,
        server: Server,
        gate: Gate,
        breaker: Breaker,
        *,
        timeout_s: float,
        on_notification: Callable[[Notification], None],
        on_hook: Callable[[], None],
        tell: Callable[[TmuxEvent], None],
        log: Any,
    ) -> None:
        self._place = place
        self.server = server
        self._gate = gate
        self._timeout_s = timeout_s
        self._health_s = min(_HEALTH_S, timeout_s)
        self._on_notification = on_notification
        self._on_hook = on_hook
        self._tell = tell
        self._log = log
        self._events = Link("events", _LISTEN, breaker, self._subscribe)
        self._hooks = Link("hooks", _QUIET, breaker, self._hear_hooks)
        self._calls: list[Link] = []
        self._breaker = breaker
        self._gone = anyio.Event()

    async def run(self, calls: Sequence[Link], *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the listeners and the links for calls until the server is gone; started after one attempt at each."""
        self._calls = list(calls)
        try:
            async with anyio.create_task_group() as group:
                for link in self._all:
                    await group.start(self._keep, link)
                group.start_soon(self._watch_health, group)
                task_status.started()
                await self._gone.wait()
                group.cancel_scope.cancel()
        finally:
            self._gone.set()

    @staticmethod
    def for_calls(role: str, breaker: Breaker, *, bulk: bool) -> Link:
        """Return a link for commands."""
        return Link(role, _QUIET, breaker, _until_lost, bulk=bulk)

    @property
    def hearing(self) -> bool:
        """Tell whether both listeners are connected, so that nothing is missed."""
        return self._events.ready is not None and self._hooks.ready is not None

    def leave(self) -> None:
        """Close the connections: the server is about to be ended."""
        self._gone.set()

    def events(self) -> ControlConnection | None:
        """Return the connection that hears output."""
        return self._events.ready

    def client_pids(self) -> dict[str, int]:
        """Return the pid of each role's client process."""
        return {link.role: link.connection.pid for link in self._all if link.connection is not None}

    def rows(self) -> list[dict[str, Any]]:
        """Return what is told of each connection."""
        return [link.row() for link in self._all]

    @property
    def _all(self) -> list[Link]:
        return [*self._calls, self._events, self._hooks]

    # -- one link

    async def _keep(self, link: Link, *, task_status: TaskStatus[None]) -> None:
        connection = await self._connect(link)
        task_status.started()  # also without a connection: whoever calls gets processes instead
        backoff_s = _FIRST_BACKOFF_S
        while True:
            if connection is not None:
                await self._use(link, connection)
                self._log.warning("a connection to tmux was lost", role=link.role, error=connection.why)
            if link in (self._events, self._hooks):
                self._tell(Lost(self.server.id))
            if not self.server.alive:
                self._gone.set()
            if self._gone.is_set():
                return
            backoff_s = _FIRST_BACKOFF_S if connection else min(backoff_s * 2, _LAST_BACKOFF_S)
            await anyio.sleep(backoff_s)
            connection = await self._connect(link)
            if connection is not None and self.hearing:
                self._tell(Restored(self.server.id))

    async def _connect(self, link: Link) -> ControlConnection | None:
        try:
            connection = await self._open(link)
        except AgentdError as error:
            self._log.warning("no connection to tmux", role=link.role, error=error.message)
            return None
        link.connection = connection
        link.meter.opened += 1
        return connection

    async def _open(self, link: Link) -> ControlConnection:
        self._place.restore_socket(self.server)
        async with self._gate.alone():
            await self._settle()
            connection = await ControlConnection.open(
                self._place.client_argv,
                link.flags,
                on_notification=self._on_notification if link is self._events else _ignore,
                meter=link.meter,
                log=self._log,
            )
        try:
            await self._check_server(connection)
        except BaseException:  # also when cancelled: nobody else knows of it yet
            await self._close(connection)
            raise
        return connection

    async def _settle(self) -> None:
        """Wait until the server has dealt with the end of the connection before: it tells all clients of that.

        Told while the next one is connecting, that is what kills it (see Gate). A server answers in a later turn than
        the one in which it sees a client gone; the second answer is for certain.
        """
        for link in [*self._calls, self._events]:
            connection = link.ready
            if connection is not None:
                for _ in range(2):
                    await connection.run("display-message", "-p", "", timeout_s=self._health_s)
                return

    async def _check_server(self, connection: ControlConnection) -> None:
        (found,) = await connection.run("display-message", "-p", "#{pid}:#{start_time}", timeout_s=self._timeout_s)
        if found != self.server.id:
            self._gone.set()
            raise TmuxUnavailable(f"another tmux server ({found}) answers at our socket")

    async def _use(self, link: Link, connection: ControlConnection) -> None:
        try:
            await link.use(connection)
        except AgentdError as error:
            connection.drop(error.message)  # whatever went wrong here, a new connection starts clean
        finally:
            link.connection = None
            await self._close(connection)

    async def _subscribe(self, connection: ControlConnection) -> None:
        await connection.run("refresh-client", "-B", f"panes::{SNAPSHOT}", timeout_s=self._timeout_s)
        await connection.lost.wait()

    async def _hear_hooks(self, connection: ControlConnection) -> None:
        while True:
            self._on_hook()  # also at first: somebody may have died before we listened
            await connection.run("wait-for", HOOKS, timeout_s=None)

    async def _close(self, connection: ControlConnection) -> None:
        with anyio.CancelScope(shield=True):
            if connection.lost.is_set():
                await connection.close()
                return
            async with self._gate.alone():
                await connection.close()

    # -- health

    async def _watch_health(self, group: TaskGroup) -> None:
        """Ask the silent ones something; all of them while one waits for its reply or the server is given up."""
        while True:
            await anyio.sleep(_LOOK_S)
            open_links = [link for link in [*self._calls, self._events] if link.ready]
            waiting = any(link.connection.waits_s > _SUSPECT_S for link in open_links if link.connection)
            patience_s = _SUSPECT_S if waiting or self._breaker.open else _SILENT_S
            for link in open_links:
                connection = link.connection
                if connection and not connection.pending and not link.checking and connection.silent_s > patience_s:
                    group.start_soon(self._check, link, connection)

    async def _check(self, link: Link, connection: ControlConnection) -> None:
        link.checking, nonce = True, secrets.token_hex(8)
        try:
            if await connection.run("display-message", "-p", nonce, timeout_s=self._health_s) != [nonce]:
                raise Desync("tmux answered something else than it was asked")
        except AgentdError as error:
            connection.drop(error.message)
        finally:
            link.checking = False


def _ignore(_notification: Notification) -> None:
    """What happens is heard once, by the events connection."""


async def _until_lost(connection: ControlConnection) -> None:
    await connection.lost.wait()
