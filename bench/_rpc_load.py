"""The load: sockets driven by hand, the same bytes for every server that speaks our frames.

Answers are counted by their size and not decoded: the client must not be what limits the server.
"""

from __future__ import annotations

import select
import selectors
import socket
import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import msgpack

_IDS = 127  # as many have the same size on the wire
_QUIET_S = 0.2
_LAST_S = 5.0
_READ_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class Answered:
    """What a load brought."""

    count: int
    seconds: float
    waits_s: list[float]
    lost: int = 0

    @property
    def per_s(self) -> float:
        """Return answers a second."""
        return self.count / self.seconds

    def quantile_ms(self, share: float) -> float:
        """Return a quantile of the waits."""
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1e3 if ordered else float("inf")


def packed(body: list[Any]) -> bytes:
    """Return a frame."""
    data = msgpack.packb(body)
    return len(data).to_bytes(4, "big") + data


HELLO = packed([0, {"v": [1], "client": "bench"}])


def connected(path: str, opening: bytes = HELLO) -> socket.socket:
    """Return a connection on which the opening was said and answered."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    if opening:
        sock.sendall(opening)
        sock.recv(65_536)
    return sock


def calls(method: str, params: dict[str, Any], count: int = 1) -> bytes:
    """Return so many calls."""
    return b"".join(packed([1, number, method, params]) for number in range(1, count + 1))


def size_of_answers(path: str, request: bytes, opening: bytes = HELLO) -> int:
    """Return how many bytes answer the request: all that come until it is quiet."""
    with connected(path, opening) as sock:
        sock.sendall(request)
        size_bytes, quiet_s = 0, 5.0
        while select.select([sock], [], [], quiet_s)[0]:
            size_bytes += len(sock.recv(_READ_BYTES))
            quiet_s = _QUIET_S
    return size_bytes


class ClosedLoop:
    """Connections that each send the request, of `each` calls, whenever the one before is answered."""

    def __init__(self, path: str, connections: int, request: bytes, *, each: int = 1, opening: bytes = HELLO) -> None:
        self._request = request
        self._each = each
        self._expected = size_of_answers(path, request, opening)
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._lines: dict[int, list[Any]] = {}  # socket, bytes of the answer so far, when it was asked
        for _ in range(connections):
            sock = connected(path, opening)
            self._lines[sock.fileno()] = [sock, 0, 0.0]
            self._poll.register(sock.fileno(), select.POLLIN)

    def run(self, seconds: float) -> Answered:
        """Send for so long, and wait for the last answers."""
        lines, request, expected = self._lines, self._request, self._expected
        waits_s: list[float] = []
        begin_s = now_s = time.perf_counter()
        for line in lines.values():
            line[2] = time.perf_counter()
            line[0].sendall(request)
        asked, end_s = len(lines), begin_s + seconds
        while asked:
            for fd, _ in self._poll.poll(1):
                line = lines[fd]
                line[1] += len(line[0].recv(_READ_BYTES))
                if line[1] >= expected:
                    line[1] = 0
                    now_s = time.perf_counter()
                    waits_s.append(now_s - line[2])
                    line[2] = now_s
                    if now_s < end_s:
                        line[0].sendall(request)
                    else:
                        asked -= 1
        return Answered(self._each * len(waits_s), now_s - begin_s, waits_s)

    def close(self) -> None:
        """Close the connections."""
        for sock, *_ in self._lines.values():
            sock.close()


def closed_loop(
    path: str, seconds: float, connections: int, request: bytes, *, each: int = 1, opening: bytes = HELLO
) -> Answered:
    """Run a closed loop once."""
    with closing(ClosedLoop(path, connections, request, each=each, opening=opening)) as loop:
        return loop.run(seconds)


class _Caller:
    """One connection of an open loop, with the times at which its unanswered calls were due."""

    def __init__(self, path: str) -> None:
        self.sock = connected(path)
        self.due_s: deque[float] = deque()
        self.unread = 0
        self.number = 0

    def ask(self, requests: list[bytes], due_s: float) -> None:
        self.sock.sendall(requests[self.number % _IDS])
        self.number += 1
        self.due_s.append(due_s)

    def read(self, size_bytes: int, waits_s: list[float]) -> None:
        whole, self.unread = divmod(self.unread + len(self.sock.recv(_READ_BYTES)), size_bytes)
        now_s = time.perf_counter()
        waits_s += [now_s - self.due_s.popleft() for _ in range(whole)]


def open_loop(path: str, seconds: float, connections: int, per_s: int, method: str, params: dict[str, Any]) -> Answered:
    """Send at a fixed rate, whatever the answers do; a wait begins when the call was due, not when it went out."""
    requests = [packed([1, number, method, params]) for number in range(1, _IDS + 1)]
    size_bytes = size_of_answers(path, requests[0])
    callers = [_Caller(path) for _ in range(connections)]
    waits_s: list[float] = []
    total, sent = int(per_s * seconds), 0
    with selectors.DefaultSelector() as selector:
        for caller in callers:
            selector.register(caller.sock, selectors.EVENT_READ, caller)
        begin_s = time.perf_counter() + 0.01
        end_s = begin_s + seconds + _LAST_S
        while len(waits_s) < total and (now_s := time.perf_counter()) < end_s:
            while sent < total and begin_s + sent / per_s <= now_s:
                callers[sent % connections].ask(requests, begin_s + sent / per_s)
                sent += 1
            next_s = begin_s + sent / per_s if sent < total else end_s
            pause_s = max(0.0, next_s - time.perf_counter())
            # select() on the selector sleeps microseconds where its own wait knows milliseconds only
            if select.select([selector.fileno()], [], [], pause_s)[0]:
                for key, _ in selector.select(0):
                    key.data.read(size_bytes, waits_s)
    for caller in callers:
        caller.sock.close()
    return Answered(len(waits_s), seconds, waits_s, lost=total - len(waits_s))


def flood(path: str, seconds: float, request: bytes) -> int:
    """Send without a pause on one connection and read what comes; return the bytes that were sent."""
    sent = 0
    with connected(path) as sock:
        sock.setblocking(False)
        end_s, rest = time.monotonic() + seconds, memoryview(request)
        while time.monotonic() < end_s:
            readable, writable, _ = select.select([sock], [sock], [], 0.1)
            if readable:
                sock.recv(_READ_BYTES)
            if writable:
                count = sock.send(rest)
                sent += count
                rest = rest[count:] or memoryview(request)
    return sent
