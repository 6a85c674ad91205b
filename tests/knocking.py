"""Clients that behave as none of ours does, and what a daemon costs meanwhile."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instance import Instance

from agentd.wire import CALL
from agentd.wire.frames import FrameReader, encode

HELLO = encode([0, {"v": [1], "client": "knocker"}])
ANSWER_S = 20.0


class Knocker:
    """A connection that writes what it is told and reads when it is told."""

    def __init__(self, whole: Instance, hello: bytes = HELLO) -> None:
        self._reader = FrameReader(16 * 1024 * 1024)
        self._frames: list[Any] = []
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(ANSWER_S)
        self.socket.connect(str(whole.directory / "agentd.sock"))
        self.say(hello)

    def say(self, data: bytes) -> None:
        """Write bytes."""
        self.socket.sendall(data)

    def call(self, call_id: int, method: str, params: dict[str, Any] | None = None, **options: Any) -> None:
        """Write a call."""
        self.say(encode([CALL, call_id, method, params or {}, options]))

    def read(self) -> Any:
        """Return the next frame, None when the connection is closed."""
        while not self._frames:
            try:
                data = self.socket.recv(1 << 20)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def asked_ms(self, call_id: int) -> float:
        """Return how long a small call takes, in milliseconds; nothing else may be under way."""
        began_s = time.perf_counter()
        self.call(call_id, "agents.whoami")
        answer = self.read()
        assert answer[:2] == [2, call_id], answer
        return (time.perf_counter() - began_s) * 1000

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.socket.close()


@contextmanager
def knockers(whole: Instance, count: int, hello: bytes = HELLO) -> Iterator[list[Knocker]]:
    """Give so many connections."""
    with ExitStack() as stack:
        yield [stack.enter_context(Knocker(whole, hello)) for _ in range(count)]


@contextmanager
def many_files() -> Iterator[None]:
    """Let this process have as many descriptors as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 8192
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(wanted, 8192)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def descriptors(pid: int) -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def metrics(whole: Instance) -> dict[str, float]:
    """Return the daemon's counters and gauges."""
    return dict(whole.call("daemon.metrics"))


PYTHON = [sys.executable, "-IS"]  # of clients of a few lines, which are there at once
