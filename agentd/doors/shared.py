"""What all connections of a door have in common: limits, collaborators, counters, who is connected."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from structlog.typing import FilteringBoundLogger

from agentd.config import RpcConfig
from agentd.doors.access import AccessLog
from agentd.doors.deadlines import Deadlines
from agentd.doors.dispatch import Dispatch
from agentd.doors.most_times import MostTimes
from agentd.doors.peers import Peer
from agentd.doors.workers import Workers
from agentd.errors import Busy
from agentd.records import Caller

if TYPE_CHECKING:
    from agentd.doors.connection import Connection

KEPT_PART = 16  # of the calls in flight one in so many is kept for the operator, who has to end what agents do
RETRY_AFTER_MS = 1000

Identify = Callable[[Peer, str | None], Caller]


@dataclass(slots=True)
class Counters:
    """What the door counted since it opened; `connections` and `in_flight` are of now."""

    connections: int = 0
    in_flight: int = 0
    accepted: int = 0
    calls: int = 0
    errors: int = 0
    denied: int = 0
    protocol_errors: int = 0
    slow_consumers: int = 0
    timeouts: int = 0

    def as_map(self) -> dict[str, int]:
        """Return the counters by name."""
        return asdict(self)


@dataclass(slots=True)
class Shared:
    """What all connections of a door have in common."""

    config: RpcConfig
    most_connections: int  # what the configuration allows, or fewer where descriptors are few
    dispatch: Dispatch
    identify: Identify
    hello: Mapping[str, Any]
    log: FilteringBoundLogger
    on_connections: Callable[[int], None]
    workers: Workers
    most_times: MostTimes
    counters: Counters
    deadlines: Deadlines = field(default_factory=Deadlines)
    access: AccessLog | None = None
    draining: bool = False
    quiet: asyncio.Event = field(default_factory=asyncio.Event)  # draining, and no call is in flight
    empty: asyncio.Event = field(default_factory=asyncio.Event)  # draining, and the last connection is gone
    connections: dict[Connection, None] = field(default_factory=dict)
    unauthenticated: dict[Connection, None] = field(default_factory=dict)  # oldest first

    def joined(self, connection: Connection) -> None:
        """Count a connection."""
        self.counters.accepted += 1
        self.connections[connection] = None
        self._connections_changed()

    def left(self, connection: Connection) -> None:
        """Count it off; the last one of a draining door makes it empty."""
        self.unauthenticated.pop(connection, None)
        self.connections.pop(connection, None)
        self._connections_changed()
        if self.draining and not self.connections:
            self.empty.set()

    def start(self, caller: Caller | None) -> None:
        """Count a call that waits; raises Busy, and counts nothing, when as many are in flight as may be."""
        most = self.config.max_in_flight_total
        if caller is not None and caller.agent_id:
            most -= most // KEPT_PART
        if self.counters.in_flight >= most:
            raise Busy(
                f"agentd has {self.counters.in_flight} calls in flight, as many as it may; this call was not made",
                hint="call again a little later; calls that are answered from memory are answered",
                retry_after_ms=RETRY_AFTER_MS,
            )
        self.counters.in_flight += 1

    def ended(self) -> None:
        """Count it off; the last one of a draining door makes it quiet."""
        self.counters.in_flight -= 1
        if self.draining and not self.counters.in_flight:
            self.quiet.set()

    def closed(self, connection: Connection, code: str, reason: str) -> None:
        """Write down that a peer was turned away or cut off."""
        if self.access:
            self.access.closed(connection.peer, connection.caller, code, reason)

    def _connections_changed(self) -> None:
        self.counters.connections = len(self.connections)
        self.on_connections(len(self.connections))
