"""How soon a change of an agent's state is seen, and what seeing costs, with many agents of which some work.

    python -m bench states [--quick] [--agents N] [--working N] [--seconds S]

One temporary instance: demo agents that rest, and programs that look like them and work by themselves, with a spinner
that turns ten times a second. These write down when they drew another state; `seen` is when the daemon's event tells.
The baseline, in the same run on the same servers: every pane is captured once a second by a fork of tmux, and its text
searched for the state. CPU is the processes' own time, as a share of one core, so Linux only: of the daemon, or of the
forks; tmux beside it, which works for the daemon in both rows.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from agentd.client import Client, connect
from agentd.errors import Unavailable
from bench.load import cpu_s, rss_mb, servers, settle

WORKER = """
command = "{python}"
args = ["-I", "-S", "%s", "%s", "%d"]

[boot]
settle_ms = 50

[[rules]]
state = "working"
screen = '^demo: working'
tail = 2

[[rules]]
state = "idle"
screen = '^demo>$'
tail = 1
"""
EVENTS = ["agent.state"]
SPAWNED_AT_ONCE = 50


class Change(NamedTuple):
    """An agent's state became another."""

    state: str
    at_ns: int  # wall clock


@contextmanager
def instance(working: int) -> Iterator[tuple[Client, Path]]:
    """Give a client of a temporary instance with one profile per worker, and its directory."""
    directory = Path(tempfile.mkdtemp(prefix="agd-bench-", dir="/tmp"))
    (directory / "profiles").mkdir(mode=0o700)
    for number in range(working):
        log = directory / f"worker{number}.log"
        text = WORKER % (Path(__file__).with_name("_worker.py"), log, number)
        (directory / "profiles" / f"worker{number}.toml").write_text(text)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))}
    environ["AGENTD_DIR"] = str(directory)
    agentd = [sys.executable, "-m", "agentd"]
    subprocess.run([*agentd, "up", "--set", "watch.enabled=false"], env=environ, check=True, capture_output=True)
    try:
        with connect(environ=environ) as client:
            yield client, directory
    finally:
        subprocess.run([*agentd, "down", "--agents", "stop"], env=environ, check=True, capture_output=True)
        shutil.rmtree(directory)


def drawn(directory: Path, working: int, since_ns: int, until_ns: int) -> dict[str, list[Change]]:
    """Return what each worker drew, by its agent's name."""
    changes = {}
    for number in range(working):
        rows = [line.split() for line in (directory / f"worker{number}.log").read_text().splitlines()]
        found = [Change(state, int(at)) for state, at in rows]
        changes[f"worker{number}-1"] = [each for each in found if since_ns <= each.at_ns < until_ns]
    return changes


def lateness_ms(drew: Sequence[Change], seen: Sequence[Change]) -> tuple[list[float], int, int]:
    """Return how late each change was seen, how many were not before the next one, and how many were seen in vain."""
    late: list[float] = []
    missed = 0
    for number, change in enumerate(drew[:-1]):
        until_ns = drew[number + 1].at_ns
        found = [s for s in seen if s.state == change.state and change.at_ns <= s.at_ns < until_ns]
        if found:
            late.append((found[0].at_ns - change.at_ns) / 1e6)
        else:
            missed += 1
    within = [s for s in seen if drew and drew[0].at_ns <= s.at_ns < drew[-1].at_ns]
    return late, missed, len(within) - len(late)


class Daemon:
    """What the daemon tells."""

    def __init__(self, directory: Path) -> None:
        self.seen: dict[str, list[Change]] = {}
        self._environ = {**os.environ, "AGENTD_DIR": str(directory)}
        threading.Thread(target=self._follow, daemon=True).start()

    def _follow(self) -> None:
        with contextlib.suppress(Unavailable), connect(environ=self._environ) as client:
            for event in client.stream("events.follow", {"types": EVENTS}):
                change = Change(event["data"]["state"], int(event["at"] * 1e9))
                self.seen.setdefault(event["data"]["name"], []).append(change)


class Polling:
    """Every pane captured once a second by a fork of tmux."""

    def __init__(self, agents: Sequence[dict[str, str]]) -> None:
        self.seen: dict[str, list[Change]] = {}
        self.rounds = 0
        self._agents = agents

    def run(self, seconds: float) -> None:
        """Poll for so long; a round that takes longer than a second is followed by the next at once."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            next_s = time.monotonic() + 1.0
            for agent in self._agents:
                self._look(agent)
            self.rounds += 1
            time.sleep(max(0.0, next_s - time.monotonic()))

    def _look(self, agent: dict[str, str]) -> None:
        argv = ["tmux", "-S", agent["socket"], "capture-pane", "-p", "-t", agent["pane"]]
        text = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
        state = "working" if "demo: working" in text.rstrip().split("\n")[-2:][0] else "idle"
        seen = self.seen.setdefault(agent["name"], [])
        if not seen or seen[-1].state != state:
            seen.append(Change(state, time.time_ns()))


class Row(NamedTuple):
    """One line of the table."""

    way: str
    late: list[float]
    missed: int
    vain: int
    cpu: float
    tmux_cpu: float


def measured(
    way: str, directory: Path, working: int, pids: tuple[int, list[int]], live: Callable[[], dict[str, list[Change]]]
) -> Row:
    """Run one way of seeing, and compare what it saw with what was drawn."""
    daemon, tmux = pids
    before, began_ns = {pid: cpu_s(pid) for pid in [daemon, *tmux]}, time.time_ns()
    forks_s = _forks_s()
    seen = live()
    took_s = (time.time_ns() - began_ns) / 1e9
    used = {pid: (cpu_s(pid) - before[pid]) / took_s * 100 for pid in before}
    cpu = used[daemon] if way == "agentd" else (_forks_s() - forks_s) / took_s * 100
    rows = [
        lateness_ms(changes, seen.get(name, []))
        for name, changes in drawn(directory, working, began_ns, time.time_ns()).items()
    ]
    late = sorted(ms for row in rows for ms in row[0])
    return Row(way, late, sum(r[1] for r in rows), sum(r[2] for r in rows), cpu, sum(used[pid] for pid in tmux))


def _forks_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def show(row: Row) -> None:
    """Print one line."""
    at = (
        [row.late[min(len(row.late) - 1, int(len(row.late) * q))] for q in (0.5, 0.95, 0.99)] if row.late else [0.0] * 3
    )
    times = "".join(f"{ms:>9.0f}" for ms in at)
    print(
        f"{row.way:<22}{len(row.late):>8}{times}{row.missed:>8}{row.vain:>8}{row.cpu:>9.1f} %{row.tmux_cpu:>8.1f} %",
        flush=True,
    )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 agents of which 10 work, 15 seconds")
    parser.add_argument("--agents", type=int)
    parser.add_argument("--working", type=int)
    parser.add_argument("--seconds", type=float)
    options = parser.parse_args()
    agents, working, seconds = (60, 10, 15.0) if options.quick else (500, 50, 60.0)
    agents, working = options.agents or agents, options.working or working
    seconds = options.seconds or seconds
    with instance(working) as (client, directory):
        daemon = client.call("daemon.status")["pid"]
        for first in range(0, agents - working, SPAWNED_AT_ONCE):
            n = min(SPAWNED_AT_ONCE, agents - working - first)
            client.call("agents.spawn", {"profile": "demo", "n": n}, timeout_s=300)
            settle(client, first + n)
        for number in range(working):
            client.call("agents.spawn", {"profile": f"worker{number}", "n": 1}, timeout_s=300)
        time.sleep(5)  # what starting left behind
        pids = (daemon, servers(str(directory)))
        rss = rss_mb(daemon)
        print(f"{agents} agents, {working} of them work; {seconds:g} s each; daemon {rss:.0f} MB", flush=True)
        heads = f"{'seen by':<22}{'changes':>8}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'missed':>8}{'in vain':>8}"
        print(f"{heads}{'CPU':>11}{'tmux':>10}", flush=True)
        told = Daemon(directory)

        def wait() -> dict[str, list[Change]]:
            time.sleep(seconds)
            return told.seen

        show(measured("agentd", directory, working, pids, wait))
        polling = Polling(client.call("agents.list")["agents"])

        def poll() -> dict[str, list[Change]]:
            polling.run(seconds)
            return polling.seen

        show(measured("a fork per pane and s", directory, working, pids, poll))
        print(f"the forks made {polling.rounds / seconds:.2f} rounds a second", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
