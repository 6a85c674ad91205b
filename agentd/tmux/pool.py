"""How commands reach one life of a server: which connection takes one, and what does while none can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from anyio.abc import TaskStatus

from agentd.config import TmuxConfig
from agentd.errors import AgentdError
from agentd.tmux.breaker import Breaker
from agentd.tmux.channel import Channel
from agentd.tmux.connection import ControlConnection
from agentd.tmux.events import TmuxEvent
from agentd.tmux.forks import Forks
from agentd.tmux.gate import Gate
from agentd.tmux.links import Link, Links
from agentd.tmux.notation import Notification
from agentd.tmux.server import Server, ServerPlace

_PROBE_S = 0.5  # between looks for a server that does not answer
_BULK_SHARE = 4  # one connection in so many is for what takes long, and one at least when there are two


class Pool:
    """The ways for commands to one life of the server: connections, a process for each, or none while it is silent."""

    def __init__(
        self,
        config: TmuxConfig,
        place: ServerPlace,
        server: Server,
        gate: Gate,
        *,
        control: bool,
        on_notification: Callable[[Notification], None],
        on_hook: Callable[[], None],
        tell: Callable[[TmuxEvent], None],
        log: Any,
    ) -> None:
        self.server = server
        self.control = control
        self.spread = True  # over all connections for commands; else the first takes all
        self._breaker = Breaker()
        self._forks = Forks(place.client_argv, server.id, self._breaker)
        self._calls = _links(config.connections, self._breaker)
        self._short = [link for link in self._calls if not link.bulk]
        self._bulk = [link for link in self._calls if link.bulk]
        self.links = Links(
            place,
            server,
            gate,
            self._breaker,
            timeout_s=config.command_timeout_s,
            on_notification=on_notification,
            on_hook=on_hook,
            tell=tell,
            log=log,
        )

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Stay connected until the server is gone."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._probe)
            await self.links.run(self._calls, task_status=task_status)
            group.cancel_scope.cancel()

    def channel(self, *, bulk: bool = False) -> Channel:
        """Return the way for the next command; `bulk` for one whose reply is long: the short ones must not wait for it.

        Raises TmuxUnavailable at once while the server does not answer.
        """
        self._breaker.check()
        return (self._least_pending(bulk=bulk) if self.control else None) or self._forks

    def _least_pending(self, *, bulk: bool) -> ControlConnection | None:
        if not self.spread:
            return self._calls[0].ready
        return _quickest(self._bulk if bulk else self._short) or _quickest(self._calls)

    async def _probe(self) -> None:
        """Look for a silent server; connections that are left are asked by Links, and what is opened asks as well."""
        while True:
            await anyio.sleep(_PROBE_S)
            if self._breaker.open and self._least_pending(bulk=False) is None:
                try:
                    await self._forks.probe()
                except AgentdError:  # the breaker heard of it
                    continue

    def row(self) -> dict[str, Any]:
        """Return what is told of it."""
        return {
            "control_mode": self.control,
            "connections": self.links.rows(),
            "forks": self._forks.meter.row(pending=self._forks.pending),
            "breaker": self._breaker.row(),
        }


def _quickest(links: list[Link]) -> ControlConnection | None:
    quickest: ControlConnection | None = None  # min() takes twice as long, on the way of every command
    for link in links:
        connection = link.ready
        if connection and (quickest is None or connection.pending < quickest.pending):
            quickest = connection
    return quickest


def _links(count: int, breaker: Breaker) -> list[Link]:
    bulk = max(1, count // _BULK_SHARE) if count > 1 else 0
    calls = [Links.for_calls(f"calls-{number + 1}", breaker, bulk=False) for number in range(count - bulk)]
    return calls + [Links.for_calls(f"bulk-{number + 1}", breaker, bulk=True) for number in range(bulk)]
