"""The RPC door: a Unix socket at which calls are made."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from anyio.abc import TaskStatus
from structlog.typing import FilteringBoundLogger

from agentd.config import RpcConfig
from agentd.doors.accepting import Acceptor, most_connections
from agentd.doors.access import AccessLog
from agentd.doors.connection import Connection
from agentd.doors.dispatch import Answer, Dispatch
from agentd.doors.listening import bind, unbind
from agentd.doors.most_times import MostTimes
from agentd.doors.rates import Rates
from agentd.doors.shared import Counters, Identify, Shared
from agentd.doors.workers import Workers
from agentd.errors import Busy, Unauthenticated, Unavailable

MAX_UNAUTHENTICATED = 32
UNAUTHENTICATED_GRACE_S = 0.25  # a crowd of honest clients is through HELLO long before
_SWEEP_S = 0.5
_LAST_WORDS_S = 1.0


class RpcDoor:
    """Listens at `path` and translates frames into calls of `answer`.

    path            where the socket goes; the caller holds the instance's lock
    config          the limits
    answer          answer(caller, method, params, context): parameters are already of the type in the table of calls,
                    the caller's right is checked. Returns the answer itself (then no task is made), a coroutine of it
                    (a task with the call's deadline, cancelled by CANCEL and when the client goes), a coroutine of a
                    Wait (then no task is left while it waits), or an async
                    generator (items under the client's credit). Raises AgentdError; anything else is logged as a fault
                    of ours. Answers may hold dataclasses, structs, enums; msgspec.Raw holds what is packed already.
    identify        identify(peer, token) -> Caller, once per connection; raises Denied or Unauthenticated
    agents_start    whether agents may make the calls of the table that are for what they started themselves
    hello           what HELLO is answered with beside `v` and `limits`: server, pid, instance
    log             a structlog logger
    on_connections  told how many connections there are whenever that changes
    listener        a socket that listens already, at the path, and is somebody else's: its place is left when we stop
    access          where refusals, the operator's own calls and peers that are cut off are written down, if anywhere
    """

    def __init__(
        self,
        path: str,
        config: RpcConfig,
        answer: Answer,
        identify: Identify,
        hello: Mapping[str, Any],
        log: FilteringBoundLogger,
        on_connections: Callable[[int], None] = lambda _count: None,
        *,
        agents_start: bool = False,
        access: AccessLog | None = None,
        listener: socket.socket | None = None,
    ) -> None:
        self.path = path
        self.counters = Counters()
        self._config = config
        self._access = access
        self._given_listener = listener
        rates = Rates(config, time.monotonic)
        self._dispatch = Dispatch(answer, self._log_fault, rates, access, agents_start=agents_start)
        self._identify = identify
        self._hello = hello
        self._log = log
        self._on_connections = on_connections
        self._acceptor: Acceptor | None = None
        self._shared: Shared | None = None
        self._closed = asyncio.Event()

    async def serve(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until drained or cancelled; `await tasks.start(door.serve)` returns when clients can connect."""
        listener = self._given_listener or bind(self.path)
        try:
            async with anyio.create_task_group() as tasks, Workers() as workers:
                shared = self._shared = self._shared_by(workers)
                try:
                    self._acceptor = Acceptor(listener, lambda: Connection(shared), tasks, self._log)
                    self._acceptor.start()
                    tasks.start_soon(self._sweep, shared)
                    task_status.started()
                    await self._closed.wait()
                finally:
                    self._shut(shared)
                tasks.cancel_scope.cancel()
        finally:
            listener.close()

    async def drain(self, reason: str = "agentd is stopping") -> None:
        """Take no more calls, tell every client, let calls in flight end within drain_s, then close."""
        shared = self._shared
        if shared is None or shared.draining:
            return
        shared.draining = True
        self._stop_listening()
        for connection in list(shared.connections):
            connection.say_goaway(reason)
        await self._quiet(shared, self._config.drain_s)
        for connection in list(shared.connections):
            connection.cancel_all(Unavailable(reason, hint="call again once it is back"))
        await self._quiet(shared, _LAST_WORDS_S)
        for connection in list(shared.connections):
            connection.close()
        if shared.connections:
            with anyio.move_on_after(_LAST_WORDS_S):
                await shared.empty.wait()
        self._closed.set()

    def cut(self, agent_id: str, why: str = "has ended") -> None:
        """Close the connections of an agent that has not the token or the program any more with which they came."""
        for connection in list(self._shared.connections) if self._shared else ():
            if connection.caller is not None and connection.caller.agent_id == agent_id:
                connection.close(Unauthenticated(f"{connection.caller.name} {why}", hint="connect again"))

    def _shared_by(self, workers: Workers) -> Shared:
        return Shared(
            config=self._config,
            most_connections=most_connections(self._config.max_connections),
            dispatch=self._dispatch,
            identify=self._identify,
            hello=self._hello,
            log=self._log,
            on_connections=self._on_connections,
            workers=workers,
            most_times=MostTimes(self._config),
            counters=self.counters,
            access=self._access,
        )

    async def _quiet(self, shared: Shared, longest_s: float) -> None:
        if shared.counters.in_flight:
            shared.quiet.clear()
            with anyio.move_on_after(longest_s):
                await shared.quiet.wait()

    async def _sweep(self, shared: Shared) -> None:
        """Look after what no byte will wake: half frames, silent peers, calls that do not end."""
        loop = asyncio.get_running_loop()
        while True:
            await anyio.sleep(min(_SWEEP_S, self._config.frame_timeout_s / 4))
            shared.workers.thin()
            now_s = loop.time()
            for connection in list(shared.connections):
                connection.sweep(now_s)
            for connection in list(shared.unauthenticated)[: -MAX_UNAUTHENTICATED or None]:
                if now_s - connection.since_s > UNAUTHENTICATED_GRACE_S:
                    connection.close(Busy("too many connections have not said HELLO", hint="say HELLO at once"))

    def _log_fault(self, method: str, error: Exception) -> None:
        self._log.error("rpc.call_failed", method=method, exc_info=error)

    def _stop_listening(self) -> None:
        if self._acceptor is not None:
            self._acceptor.stop()
            self._acceptor = None
            if self._given_listener is None:
                unbind(self.path)

    def _shut(self, shared: Shared) -> None:
        self._stop_listening()
        for connection in list(shared.connections):
            connection.abort()
        shared.deadlines.close()
