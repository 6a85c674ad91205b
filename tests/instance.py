"""A whole instance in a short temporary directory: its daemon, its tmux server, its agents, and their end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from leaving import remove

from agentd.client import Client, connect

DEADLINE_S = 30.0


class Instance:
    """One AGENTD_DIR and everything that runs from it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.place = directory  # where agents are started
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))}
        self.environ = kept | {"AGENTD_DIR": str(directory), "HOME": str(directory / "home")}
        (directory / "home").mkdir()
        self.seen = 0  # the last event before the test that runs, where several share the instance

    # -- doing

    def cli(
        self, *args: str, input_: str | None = None, check: bool = True, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Run `agentd ARGS`; with `check`, fail with its words when it fails."""
        done = subprocess.run(
            [sys.executable, "-m", "agentd", *args],
            env=self.environ | environ,
            input=input_,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if check:
            assert done.returncode == 0, f"agentd {' '.join(args)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def json(self, *args: str) -> Any:
        """Run `agentd ARGS --json` and return its value."""
        return json.loads(self.cli(*args, "--json").stdout)

    def up(self, *overrides: str) -> int:
        """Start the daemon and return its pid."""
        self.cli("up", *(word for override in overrides for word in ("--set", override)))
        return self.pid()

    def pid(self) -> int:
        """Return the daemon's pid, from its lock."""
        return int((self.directory / "state.lock").read_text())

    def kill(self) -> None:
        """kill -9 the daemon and wait until it is gone."""
        pid = self.pid()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not alive(pid), "the daemon to be gone")

    @contextlib.contextmanager
    def client(self, **more: Any) -> Iterator[Client]:
        """Give a client of the running daemon."""
        with connect(environ=self.environ, autostart=False, **more) as client:
            yield client

    def call(self, method: str, *, timeout_s: float | None = None, **params: Any) -> Any:
        """Make one call on a connection of its own."""
        with self.client() as client:
            return client.call(method, params, timeout_s=timeout_s)

    def send(self, to: str, body: str) -> str:
        """Send a message; return its id."""
        with self.client() as client:
            return client.send(to, body).id

    def message(self, id_: str) -> dict[str, Any]:
        """Return everything about a message."""
        return dict(self.call("messages.get", id=id_))

    def show(self, target: str) -> dict[str, Any]:
        """Return everything about one agent."""
        return dict(self.call("agents.get", target=target))

    def spawn(self, profile: str = "demo", *, ready: bool = True, **more: Any) -> dict[str, Any]:
        """Spawn one agent and wait until it is idle."""
        with self.client() as client:
            agent = client.call("agents.spawn", {"profile": profile, "cwd": str(self.place), **more})["agents"][0]
            if ready:
                client.call("agents.wait", {"target": agent["id"], "until": "idle", "timeout_s": 20.0})
            return agent

    def tmux(self, *args: str, server: int = 0) -> str:
        """Ask one of the instance's tmux servers directly."""
        return self._tmux(self.directory / f"tmux-{server}.sock", *args)

    def servers(self) -> list[int]:
        """Return the indices of the instance's tmux servers."""
        return sorted(int(path.stem.removeprefix("tmux-")) for path in self.directory.glob("tmux-*.sock"))

    def screen(self, agent: dict[str, Any]) -> str:
        """Return an agent's screen, by tmux itself."""
        return self._tmux(agent["socket"], "capture-pane", "-p", "-t", agent["pane"])

    def _tmux(self, socket: str | Path, *args: str) -> str:
        argv = ["tmux", "-S", str(socket), *args]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=20, env=self.environ)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def events(self, type_: str) -> list[dict[str, Any]]:
        """Return what events of a type say, since the test began that runs."""
        with self.client() as client:
            found = client.call("events.list", types=[type_], since=self.seen, limit=10_000)["events"]
            return [event["data"] for event in found]

    # -- ending

    def tidy(self) -> None:
        """Between tests that share it: end the agents, count events from here, and start a daemon that is gone."""
        if not (self.directory / "agentd.sock").exists() or not alive(self.pid()):
            self.up()
        with self.client() as client:
            client.call("agents.stop", targets=["all"], force=True)
            self.seen = client.call("events.list", limit=1)["last"]

    def close(self) -> None:
        """Stop everything and check that nothing is left."""
        if (self.directory / "agentd.sock").exists() or self.processes():
            self.cli("down", "--agents", "stop", check=False)
        left = self._left()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        remove(self.directory)
        assert not left, f"left running: {left}"

    def _left(self) -> list[int]:
        """Return what still runs after the time that an ending program may take on a busy machine."""
        end = time.monotonic() + DEADLINE_S
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.02)
        return left

    def processes(self) -> list[int]:
        """Return the pids of everything that runs from this directory."""
        mark = str(self.directory).encode()
        return [
            pid
            for pid in pids()
            if pid != os.getpid() and (mark in proc(pid, "cmdline") or mark in proc(pid, "environ"))
        ]


def pids() -> list[int]:
    """Return every process id."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def proc(pid: int, name: str) -> bytes:
    """Return a file of /proc, empty when the process is gone or a zombie."""
    try:
        if b") Z " in Path(f"/proc/{pid}/stat").read_bytes():
            return b""
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def alive(pid: int) -> bool:
    """Tell whether a process runs (a zombie does not)."""
    return bool(proc(pid, "stat"))


def wait_until(condition: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Return the condition's first true value; fail naming what was waited for."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            pytest.fail(f"waited {deadline_s:g} s for {what}")
        time.sleep(0.02)


@contextlib.contextmanager
def instance(base: str = "/tmp") -> Iterator[Instance]:
    """Give an instance in a directory short enough for a socket path."""
    directory = Path(tempfile.mkdtemp(prefix="agd-", dir=base))
    whole = Instance(directory)
    try:
        yield whole
    finally:
        whole.close()
