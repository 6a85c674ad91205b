"""Servers as processes of their own, which say how much of the processor and of the memory they took."""

from __future__ import annotations

import multiprocessing
import os
import resource
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import anyio

from agentd.garbage import collect_rarely

Serve = Callable[[str], Awaitable[None]]  # serves the path until it is ended
_START_S = 30.0
_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    path: str
    _pipe: Connection

    def spent(self) -> tuple[float, int]:
        """Return the processor's seconds it took so far, and the bytes of memory it has now."""
        self._pipe.send(None)
        spent: tuple[float, int] = self._pipe.recv()
        return spent


@contextmanager
def serving(servers: Mapping[str, Serve]) -> Iterator[dict[str, Server]]:
    """Run each server at a socket of its own, until the block ends."""
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as directory, ExitStack() as stack:
        paths = {name: f"{directory}/{number}" for number, name in enumerate(servers)}
        yield {name: stack.enter_context(_running(serve, paths[name])) for name, serve in servers.items()}


@contextmanager
def _running(serve: Serve, path: str) -> Iterator[Server]:
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_run, args=(serve, path, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        wait_for(path)
        yield Server(path, ours)
    finally:
        process.terminate()
        process.join()


def wait_for(path: str) -> None:
    """Return when somebody listens there."""
    deadline_s = time.monotonic() + _START_S
    with socket.socket(socket.AF_UNIX) as probe:
        while probe.connect_ex(path):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"no server came up at {path}")
            time.sleep(0.02)


def _run(serve: Serve, path: str, pipe: Connection) -> None:
    threading.Thread(target=_tell_spent, args=(pipe,), daemon=True).start()
    allow_files()
    collect_rarely()  # as the daemon does
    anyio.run(serve, path)


def _tell_spent(pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        while True:
            pipe.recv()
            pipe.send((time.process_time(), memory_bytes()))


def memory_bytes() -> int:
    """Return how much memory this process has in use."""
    with suppress(FileNotFoundError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(os.getpid())], capture_output=True, text=True, check=True)
    return int(said.stdout) * 1024


def allow_files(count: int | None = None) -> int:
    """Allow this process as many open files as it may have, or `count`; return how many that are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 65_536
    wanted = min(wanted, count) if count else wanted
    with suppress(ValueError, OSError):  # macOS refuses more than its own maximum
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


@contextmanager
def elsewhere() -> Iterator[Callable[..., Any]]:
    """Give a way to call functions in one other process: clients that leave threads behind, or load beside a probe."""
    with ProcessPoolExecutor(1, _SPAWN) as pool:
        yield pool.submit
