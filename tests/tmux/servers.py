"""A real tmux server per test, in a short private directory, and nothing left of it afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import anyio
import structlog
from leaving import remove

from agentd.config import TmuxConfig
from agentd.paths import Paths
from agentd.records import PaneRef
from agentd.tmux.fleet import Fleet
from agentd.tmux.tmux import Look, Tmux, TmuxEvent

WAIT_S = 10.0
INSTANCE = "test-instance"


class Seen:
    """The events of one server, and a way to wait for the next one."""

    def __init__(self) -> None:
        self.events: list[TmuxEvent] = []
        self._changed = anyio.Event()

    def __call__(self, event: TmuxEvent) -> None:
        self.events.append(event)
        self._changed.set()
        self._changed = anyio.Event()

    def of(self, kind: type) -> list:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, found: Callable[[], object], timeout_s: float = WAIT_S) -> None:
        with anyio.fail_after(timeout_s):
            while not found():
                await self._changed.wait()

    async def quiet(self, for_s: float = 0.3) -> None:
        """Wait until nothing was told for a while: what is told afterwards has a cause of its own."""
        while True:
            count = len(self.events)
            with anyio.move_on_after(for_s):
                await self.until(lambda count=count: len(self.events) > count)
                continue
            return


class Place:
    """Where one test's server lives."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.socket = str(directory / "t.sock")
        self.conf = str(directory / "t.conf")
        self.paths = Paths(*[str(directory)] * 3)
        self.log = structlog.get_logger()

    @asynccontextmanager
    async def open(self, *, instance: str = INSTANCE, **settings: object) -> AsyncIterator[tuple[Tmux, Seen]]:
        seen = Seen()
        config = TmuxConfig(**settings)
        async with Tmux.open(config, self.socket, self.conf, instance, self.log, seen) as tmux:
            yield tmux, seen

    @asynccontextmanager
    async def fleet(self, servers: str = "auto", **settings: object) -> AsyncIterator[tuple[Fleet, Seen]]:
        seen = Seen()
        config = TmuxConfig(servers=servers, **settings)
        async with Fleet.open(config, self.paths, INSTANCE, self.log, seen) as fleet:
            yield fleet, seen

    def tmux(self, *arguments: str, socket: str = "") -> subprocess.CompletedProcess[str]:
        """Run a plain tmux client, as a person would."""
        argv = ["tmux", "-N", "-S", socket or self.socket, *arguments]
        return subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def processes(self) -> list[int]:
        """Return the pids of every server and client at our socket."""
        return [pid for pid in _all_pids() if pid != os.getpid() and str(self.directory) in _words_of(pid)]


@contextmanager
def temporary_place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="at-"))
    place = Place(directory)
    try:
        yield place
    finally:
        for socket in directory.glob("*.sock"):
            place.tmux("kill-server", socket=str(socket))
        left = _gone_after_a_while(place)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        remove(directory)
    assert not left, f"left behind: {left}"


SHIM = """#!/bin/sh
{first}
exec {tmux} "$@"
"""


def shim(place: Place, first: str) -> str:
    """Put a program called tmux somewhere that does this first, and otherwise is the real one."""
    path = place.directory / "bin" / "tmux"
    path.parent.mkdir()
    path.write_text(SHIM.format(first=first, tmux=shutil.which("tmux")))
    path.chmod(0o700)
    return str(path)


def control_shim(place: Place, instead: str) -> tuple[str, Path]:
    """Put a tmux somewhere that does this instead of being a control client, while the second path exists."""
    flag = place.directory / "instead"
    first = f'case " $* " in *" -C "*) [ -e {flag} ] && {{ {instead}; exit; }};; esac'
    return shim(place, first), flag


async def spawn(tmux: Tmux | Fleet, *argv: str, name: str = "a-1", cwd: str = "/", **env: str) -> PaneRef:
    return await tmux.spawn(name, list(argv), env, cwd, 80, 24)


async def screen(tmux: Tmux | Fleet, seen: Seen, ref: PaneRef, wanted: Callable[[Look], object]) -> Look:
    """Return the first look that is wanted; looks again whenever the server tells something."""
    with anyio.fail_after(WAIT_S):
        while True:
            count = len(seen.events)
            look = await tmux.look(ref)
            if wanted(look):
                return look
            with anyio.move_on_after(0.5):
                await seen.until(lambda count=count: len(seen.events) > count)


async def exists(path: Path, timeout_s: float = WAIT_S) -> None:
    """Wait for a file that some other program makes."""
    with anyio.fail_after(timeout_s):
        while not path.exists():
            await anyio.sleep(0.01)


async def became(found: Callable[[], object], timeout_s: float = WAIT_S) -> None:
    """Wait for something outside of tmux that sends no event."""
    with anyio.fail_after(timeout_s):
        while not found():
            await anyio.sleep(0.01)


async def bash(tmux: Tmux, seen: Seen, directory: Path, *options: str, name: str = "a-1") -> PaneRef:
    """Start a bash that says READY at its prompt; its directory is where sentinels would show."""
    environ = {"PS1": "READY> ", "HOME": str(directory)}  # its history is not the user's
    ref = await tmux.spawn(name, ["bash", "--norc", "--noprofile", *options], environ, str(directory), 80, 24)
    await screen(tmux, seen, ref, lambda look: "READY>" in look.text)
    return ref


def server_pid(tmux: Tmux) -> int:
    return int(tmux.server.partition(":")[0])


def rss_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _gone_after_a_while(place: Place) -> list[int]:
    deadline_s = time.monotonic() + WAIT_S
    while (left := place.processes()) and time.monotonic() < deadline_s:
        time.sleep(0.02)
    return left


def _all_pids() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _words_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""
