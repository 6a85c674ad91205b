"""What it costs to tell 100 subscribers of events, beside a queue and a task for each of them."""

from __future__ import annotations

import select
import socket
import time

from bench._rpc_load import connected, packed
from bench._rpc_process import Server, serving
from bench._rpc_servers import EMIT, FOLLOW, door, queued, written
from bench._rpc_table import Rows

SUBSCRIBERS = 100
MOST = 1 / 8
BURSTS = (1, 10, 100)  # events that happen at once
_CREDIT = 1 << 30
_QUIET_S = 10.0


class _Audience:
    """Subscribers, and a connection on which events are made to happen."""

    def __init__(self, path: str) -> None:
        self.events = connected(path)
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._socks: dict[int, socket.socket] = {}
        self._rest: dict[int, bytes] = {}
        for _ in range(SUBSCRIBERS):
            sock = connected(path)
            sock.sendall(packed([1, 1, FOLLOW, {"coalesce": False}, {"credit": _CREDIT}]))
            self._socks[sock.fileno()] = sock
            self._rest[sock.fileno()] = b""
            self._poll.register(sock.fileno(), select.POLLIN)
        time.sleep(0.2)  # a stream begins when its task has run

    def burst(self, count: int) -> None:
        """Let events happen and read them on every connection."""
        self.events.sendall(packed([1, 1, EMIT, {"limit": count}]))
        self.events.recv(4096)
        left = dict.fromkeys(self._socks, count)
        deadline_s = time.monotonic() + _QUIET_S
        while left:
            for fd, _ in self._poll.poll(1):
                left[fd] -= self._read(fd)
                if not left[fd]:
                    del left[fd]
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{len(left)} of {SUBSCRIBERS} subscribers wait for events")

    def _read(self, fd: int) -> int:
        data, at, count = self._rest[fd] + self._socks[fd].recv(1 << 18), 0, 0
        while len(data) - at >= 4 and (end := at + 4 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
            at, count = end, count + 1
        self._rest[fd] = data[at:]
        return count

    def close(self) -> None:
        """Leave."""
        self.events.close()
        for sock in self._socks.values():
            sock.close()


def measure(seconds: float, rounds: int) -> Rows:
    """Let both ways take turns, with the same events."""
    rows = Rows()
    with serving({"a queue and task each": queued, "door": door, "writes alone": written}) as servers:
        audiences = {name: _Audience(server.path) for name, server in servers.items()}
        for _ in range(rounds):
            for count in BURSTS:
                cost_us = {name: _cost_us(server, audiences[name], count, seconds) for name, server in servers.items()}
                for name, each_us in cost_us.items():
                    rows.add(f"  {name}, {count} at once, us of CPU", each_us)
                queues_us = cost_us["a queue and task each"]
                rows.add(f"fan-out, {count} at once: CPU of door / queues", cost_us["door"] / queues_us, most=MOST)
                rows.add(f"  {count} at once: CPU of writes alone / queues", cost_us["writes alone"] / queues_us)
        for audience in audiences.values():
            audience.close()
    return rows


def _cost_us(server: Server, audience: _Audience, count: int, seconds: float) -> float:
    """Return the server's time for one event at one subscriber."""
    told, (before_s, _), end_s = 0, server.spent(), time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        audience.burst(count)
        told += count * SUBSCRIBERS
    return (server.spent()[0] - before_s) / told * 1e6
