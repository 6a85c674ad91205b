"""What the parts of bench/pool.py stand on: an instance with two demo profiles, their notes, steps between timings."""

from __future__ import annotations

import json
import math
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import agentd
from agentd.client import Client, connect
from bench.load import TICKS_PER_S, cpu_s, servers

PLAIN, SLOW = "plain", "slow"  # the demo agent as it is, and one that needs 2 s longer to boot
BOOT_S = 2
LONGEST_S = 120.0
PAUSE_S = 0.02  # between two questions whether something has come to pass, outside of what is timed
COMMAND = 'command = "{python}"\nargs = ["-P", "-m", "agentd.testing.demo_agent"]\n'
SLOW_COMMAND = f"""command = "sh"
args = ["-c", "echo 'demo: starting'; sleep {BOOT_S}; exec \\"$0\\" -P -m agentd.testing.demo_agent", "{{python}}"]
"""
SETTINGS = [
    "watch.enabled=false",
    "pool.load_max=1000",  # else it boots nothing while the bench itself loads the machine
    "pool.slot_mb=30",  # what a demo agent takes
]
UNHURRIED = "pool.boots_per_min=100000"  # where many rounds follow each other, they are not to wait for that limit


class Notes:
    """What the agents write down when they are given a prompt; a named pipe, so that nobody has to poll."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path, 0o600)
        self._fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)  # open for writing, too: it has no end between two agents
        self._rest = b""
        self._rows: dict[str, dict[str, Any]] = {}

    def of(self, body: str) -> dict[str, Any]:
        """Return the note of a prompt, waiting for it."""
        end_s = time.monotonic() + LONGEST_S
        while body not in self._rows:
            ready, _, _ = select.select([self._fd], [], [], max(0.0, end_s - time.monotonic()))
            if not ready:
                raise SystemExit(f"bench: {body!r} was not submitted within {LONGEST_S:.0f} s")
            self._read()
        return self._rows.pop(body)

    def _read(self) -> None:
        *lines, self._rest = (self._rest + os.read(self._fd, 65_536)).split(b"\n")
        for row in map(json.loads, lines):
            self._rows[row["body"]] = row

    def close(self) -> None:
        """Close the pipe."""
        os.close(self._fd)


class Instance(NamedTuple):
    """A temporary instance."""

    client: Client
    directory: Path
    daemon: int
    notes: Notes
    numbers: Iterator[int]

    def connect(self) -> Client:
        """Return one more client."""
        return connect(environ=_environ(self.directory))

    def spawn(self, profile: str, *, n: int = 1, prompt: str = "", cold: bool = False) -> list[dict[str, Any]]:
        """Ask for agents; return their rows."""
        params = {"profile": profile, "n": n, "cold": cold, **({"prompt": prompt} if prompt else {})}
        answer = self.client.call("agents.spawn", params, timeout_s=LONGEST_S)
        if answer["failed"]:
            raise SystemExit(f"bench: agents were not started: {answer['failed']}")
        return list(answer["agents"])

    def prompt(self) -> str:
        """Return a prompt that no other has."""
        return f"prompt {next(self.numbers)}"

    def set_pool(self, profile: str, size: int, most: int) -> None:
        """Set a pool and wait until it is full."""
        self.client.call("pool.set", {"profile": profile, "size": size, "most": most})
        self.wait_full()

    def pools(self) -> list[dict[str, Any]]:
        """Return the pool's rows."""
        return list(self.client.call("pool.list")["pools"])

    def wait_full(self) -> None:
        """Wait until as many are warm as are to be, and none boots."""
        wait(
            "the pool is full", lambda: all(row["warm"] == row["target"] and not row["booting"] for row in self.pools())
        )

    def wait_warm(self, profile: str) -> None:
        """Wait until one is."""
        wait("a slot is warm", lambda: any(row["warm"] for row in self.pools() if row["profile"] == profile))

    def stop(self, agents: Sequence[dict[str, Any]]) -> None:
        """End agents and wait until they have ended."""
        self.client.call("agents.stop", {"targets": [agent["id"] for agent in agents]}, timeout_s=LONGEST_S)

    def empty(self, profile: str) -> None:
        """Drain a pool, end every agent, and wait until no program is left, so that tmux knows all their CPU."""
        self.wait_full()  # how many boots are under way would be chance, and with it the CPU
        if any(row["profile"] == profile for row in self.pools()):
            self.client.call("pool.drain", {"profile": profile})
        agents = self.client.call("agents.list")["agents"]
        if agents:
            self.stop(agents)
        wait("every program has ended", lambda: not self.pools() and not self.programs())

    def tmux(self) -> list[int]:
        """Return the pids of its tmux servers."""
        return servers(str(self.directory))

    def programs(self) -> int:
        """Return how many agents' programs run, or have ended and were not waited for."""
        return len(children(self.tmux())) - len(self.tmux())  # each server's hub has one that is no agent

    def used_s(self) -> float:
        """Return the CPU time of the daemon, tmux and every program of an agent, those that have ended as well."""
        tmux = self.tmux()
        ended_s = sum(map(_waited_cpu_s, tmux))
        return ended_s + sum(map(cpu_s, [self.daemon, *tmux])) + sum(map(_life_cpu_s, children(tmux)))


@contextmanager
def instance(*settings: str) -> Iterator[Instance]:
    """Give a temporary instance; later settings win."""
    directory = Path(tempfile.mkdtemp(prefix="agd-bench-", dir="/tmp"))
    notes = Notes(directory / "notes")
    _write_profiles(directory)
    environ = _environ(directory)
    program = [sys.executable, "-m", "agentd"]
    words = [word for setting in [*SETTINGS, *settings] for word in ("--set", setting)]
    try:
        subprocess.run([*program, "up", *words], env=environ, check=True, capture_output=True)
        try:
            with connect(environ=environ) as client:
                yield _warmed(Instance(client, directory, client.call("daemon.status")["pid"], notes, count()))
        finally:
            subprocess.run([*program, "down", "--agents", "stop"], env=environ, check=True, capture_output=True)
    finally:
        notes.close()
        shutil.rmtree(directory)


def _write_profiles(directory: Path) -> None:
    shipped = Path(agentd.__file__).with_name("agents") / "profiles" / "demo.toml"
    text = shipped.read_text()
    assert COMMAND in text, "bench/_pool.py has to follow the profile of the demo agent"
    profiles = directory / "profiles"
    profiles.mkdir(mode=0o700)
    # An environment of its own in the call would make each spawn a cold one; in the profile it does not.
    env = f'\n[env]\nAGENTD_DEMO_LOG = "{directory / "notes"}"\n'
    (profiles / f"{PLAIN}.toml").write_text(text + env)
    (profiles / f"{SLOW}.toml").write_text(text.replace(COMMAND, SLOW_COMMAND) + env)


def _environ(directory: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTD_", "TMUX"))}
    # Agents start elsewhere, and are to run this agentd, wherever another is installed.
    return kept | {"AGENTD_DIR": str(directory), "PYTHONPATH": str(Path(agentd.__file__).parents[1])}


def _warmed(one: Instance) -> Instance:
    """Let a first agent live and end: imports and compiled files are nobody's measurement."""
    prompt = one.prompt()
    agents = one.spawn(PLAIN, prompt=prompt)
    one.notes.of(prompt)
    one.stop(agents)
    return one


def wait(what: str, done: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end_s = time.monotonic() + LONGEST_S
    while not done():
        if time.monotonic() > end_s:
            raise SystemExit(f"bench: waited {LONGEST_S:.0f} s in vain until {what}")
        time.sleep(PAUSE_S)


def children(parents: Sequence[int]) -> list[int]:
    """Return the processes that have one of these parents."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if int(stat.read_text().rpartition(")")[2].split()[1]) in parents:
                found.append(int(stat.parent.name))
        except OSError:  # it ended meanwhile
            continue
    return found


def _life_cpu_s(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended; nothing of one that is gone by now."""
    try:
        return cpu_s(pid) + _waited_cpu_s(pid)
    except OSError:
        return 0.0


def _waited_cpu_s(pid: int) -> float:
    """Return the CPU time of a process's children that have ended, and of theirs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / TICKS_PER_S


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that so many percent are not above."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * percent / 100)) - 1]


def verdict(what: str, value: float, bar: float, unit: str, *, at_most: bool) -> None:
    """Print a figure beside what is asked for."""
    met = value <= bar if at_most else value >= bar
    side, missed = ("at most", "ABOVE") if at_most else ("at least", "BELOW")
    print(f"{what}: {value:.4g}{unit} ({side} {bar:g}{unit}){'' if met else f'  {missed}'}", flush=True)
