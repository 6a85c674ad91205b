"""The connections to one server, by role, each opened again when it is lost.

calls    the commands of Tmux; hears no output
events   hears the output of every window linked into the hub, and once a second which panes are alive
hooks    waits for our hooks on deaths and splits; nothing else tells of them at once (tmux-2.md §5)
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskStatus

from agentd.errors import AgentdError
from agentd.tmux.connection import ControlConnection
from agentd.tmux.events import Lost, Restored, TmuxEvent
from agentd.tmux.failures import TmuxUnavailable
from agentd.tmux.gate import Gate
from agentd.tmux.notation import Notification
from agentd.tmux.server import HOOKS, Server, ServerPlace

_FIRST_BACKOFF_S = 0.05
_LAST_BACKOFF_S = 1.0
_PAUSE_AFTER_S = 1  # tmux's smallest: a pane whose output we have not read for so long is paused, so tmux stays small
# Of the attached session, which is the hub: so of every pane that is ours, once.
SNAPSHOT = "panes::#{W:#{P:#{pane_id} #{pane_dead} #{window_activity};}}"


class Role(enum.StrEnum):
    """What a connection is for."""

    CALLS = "calls"
    EVENTS = "events"
    HOOKS = "hooks"


_FLAGS = {
    Role.CALLS: "ignore-size,no-output",
    Role.EVENTS: f"ignore-size,pause-after={_PAUSE_AFTER_S}",
    Role.HOOKS: "ignore-size,no-output",
}


class Links:
    """Keeps one connection per role to one life of the server."""

    def __init__(
        self,
        place: ServerPlace,
        server: Server,
        gate: Gate,
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
        self._on_notification = on_notification
        self._on_hook = on_hook
        self._tell = tell
        self._log = log
        self._open: dict[Role, ControlConnection] = {}
        self._changed = anyio.Event()
        self._gone = anyio.Event()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the connections until the server is gone."""
        try:
            async with anyio.create_task_group() as group:
                for role in Role:
                    await group.start(self._keep, role)
                task_status.started()
                await self._gone.wait()
                group.cancel_scope.cancel()
        finally:
            self._fail_waiters()

    async def calls(self) -> ControlConnection:
        """Return the connection for commands; waits while it is being opened again."""
        connection = self._open.get(Role.CALLS)
        if connection is not None and connection.ready:
            return connection
        with anyio.move_on_after(self._timeout_s):
            while not self._gone.is_set():
                await self._changed.wait()
                connection = self._open.get(Role.CALLS)
                if connection is not None and connection.ready:
                    return connection
        raise TmuxUnavailable("there is no connection to tmux at the moment", hint="agentd reconnects by itself")

    def leave(self) -> None:
        """Close the connections: the server is about to be ended."""
        self._declare_gone()

    def events(self) -> ControlConnection | None:
        """Return the connection that hears output."""
        return self._open.get(Role.EVENTS)

    def client_pids(self) -> dict[str, int]:
        """Return the pid of each role's client process."""
        return {role: connection.pid for role, connection in self._open.items()}

    # -- one role

    async def _keep(self, role: Role, *, task_status: TaskStatus[None]) -> None:
        first, backoff_s = True, _FIRST_BACKOFF_S
        while not self._gone.is_set():
            try:
                connection = await self._connect(role)
            except AgentdError as error:
                self._log.warning("no connection to tmux", role=role, error=error.message)
            else:
                backoff_s = _FIRST_BACKOFF_S
                if first:
                    task_status.started()
                else:
                    self._tell(Restored(self.server.id))
                first = False
                await self._use(role, connection)
                self._log.warning("a connection to tmux was lost", role=role, error=connection.why)
                self._tell(Lost(self.server.id))
            if not self.server.alive:
                self._declare_gone()
                break
            await anyio.sleep(backoff_s)
            backoff_s = min(backoff_s * 2, _LAST_BACKOFF_S)
        if first:
            task_status.started()

    async def _connect(self, role: Role) -> ControlConnection:
        self._place.restore_socket(self.server)
        async with self._gate.alone():
            await self._settle()
            connection = await ControlConnection.open(
                self._place.client_argv, _FLAGS[role], on_notification=self._on_notification, log=self._log
            )
        await self._check_server(connection)
        self._open[role] = connection
        self._wake()
        return connection

    async def _settle(self) -> None:
        """Wait until the server has dealt with the end of the connection before: it tells all clients of that.

        Told while the next one is connecting, that is what kills it (see Gate). A server answers in a later turn than
        the one in which it sees a client gone; the second answer is for certain.
        """
        for role in (Role.CALLS, Role.EVENTS):
            connection = self._open.get(role)
            if connection is not None and connection.ready:
                for _ in range(2):
                    await connection.run("display-message", "-p", "", timeout_s=self._timeout_s)
                return

    async def _check_server(self, connection: ControlConnection) -> None:
        (found,) = await connection.run("display-message", "-p", "#{pid}:#{start_time}", timeout_s=self._timeout_s)
        if found != self.server.id:
            await self._close(connection)
            self._declare_gone()
            raise TmuxUnavailable(f"another tmux server ({found}) answers at our socket")

    async def _use(self, role: Role, connection: ControlConnection) -> None:
        try:
            if role is Role.EVENTS:
                await connection.run("refresh-client", "-B", SNAPSHOT, timeout_s=self._timeout_s)
            if role is Role.HOOKS:
                await self._hear_hooks(connection)
            await connection.lost.wait()
        except AgentdError as error:
            connection.drop(error.message)  # whatever went wrong here, a new connection starts clean
        finally:
            self._open.pop(role, None)
            await self._close(connection)

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

    def _declare_gone(self) -> None:
        self._gone.set()
        self._wake()

    def _fail_waiters(self) -> None:
        self._open.clear()
        self._gone.set()
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()
