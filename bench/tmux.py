"""What the control connection buys: ours beside libtmux and beside a plain fork of tmux, in one run.

    python bench/tmux.py [--quick]

Four questions, each at a few numbers of sessions: list all sessions, the status of one pane, send keys to one pane,
start N agents. Every figure is the median of its repeats; the spread is (slowest - fastest) / median; the ratio is
theirs / ours. All three ask the same server, one after the other. libtmux's list asks for all its fields and `status`
is a capture and the pane's facts, which libtmux and the fork can only get with two forks.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import libtmux
import structlog

from agentd.config import TmuxConfig
from agentd.records import PaneRef
from agentd.tmux.tmux import Tmux

SPAWNS_AT_ONCE = 16


@dataclass(frozen=True)
class Row:
    """One way to do one thing."""

    question: str
    way: str
    sessions: int
    times_s: list[float]

    @property
    def median_s(self) -> float:
        return statistics.median(self.times_s)

    @property
    def spread(self) -> float:
        return (max(self.times_s) - min(self.times_s)) / self.median_s


class Bench:
    """One server with many sessions, and the three ways to talk to it."""

    def __init__(self, tmux: Tmux, socket: str, repeats: int) -> None:
        self._tmux = tmux
        self._socket = socket
        self._repeats = repeats
        self._libtmux = libtmux.Server(socket_path=socket)
        self._names = 0
        self.rows: list[Row] = []

    async def fill(self, sessions: int) -> PaneRef:
        """Have so many sessions; return one of them."""
        await self.spawn_ours(sessions - len(await self._tmux.panes()))
        return (await self._tmux.panes())[0].ref

    async def measure(
        self, question: str, way: str, sessions: int, work: Callable[[], Awaitable[object] | object]
    ) -> None:
        """Time one way, a few times."""
        times_s = []
        for _ in range(self._repeats):
            started_s = time.perf_counter()
            result = work()
            if isinstance(result, Awaitable):
                await result
            times_s.append(time.perf_counter() - started_s)
        self.rows.append(Row(question, way, sessions, times_s))

    async def ask(self, sessions: int) -> None:
        """Measure everything but spawning at one number of sessions."""
        ref = await self.fill(sessions)
        pane = self._libtmux.panes.filter(pane_id=ref.pane_id)[0]  # listed twice: its window is linked into our hub
        facts = "#{pane_dead} #{pane_pid} #{pane_title}"
        await self.measure("list", "ours", sessions, self._tmux.sessions)
        await self.measure("list", "libtmux", sessions, lambda: len(self._libtmux.sessions))
        await self.measure(
            "list", "fork", sessions, lambda: self.fork("list-sessions", "-F", "#{session_id} #{session_name}")
        )
        await self.measure("status", "ours", sessions, lambda: self._tmux.look(ref))
        await self.measure(
            "status", "libtmux", sessions, lambda: (pane.capture_pane(), pane.cmd("display-message", "-p", facts))
        )
        await self.measure(
            "status",
            "fork",
            sessions,
            lambda: (
                self.fork("capture-pane", "-p", "-t", ref.pane_id),
                self.fork("display-message", "-p", "-t", ref.pane_id, facts),
            ),
        )
        await self.measure("keys", "ours", sessions, lambda: self._tmux.keys(ref, "x"))
        await self.measure("keys", "libtmux", sessions, lambda: pane.send_keys("x", enter=False))
        await self.measure("keys", "fork", sessions, lambda: self.fork("send-keys", "-t", ref.pane_id, "x"))

    async def start(self, count: int) -> None:
        """Measure starting so many agents, each way on as many sessions as the others found."""
        for way, work in (("ours", self.spawn_ours), ("libtmux", self.spawn_libtmux), ("fork", self.spawn_fork)):
            await self.clear()
            await self.measure(f"spawn {count}", way, 0, lambda work=work: work(count))

    async def clear(self) -> None:
        """End all agents."""
        async with anyio.create_task_group() as group:
            for pane in await self._tmux.panes():
                group.start_soon(self._tmux.kill, pane.ref, 0.0)

    async def spawn_ours(self, count: int) -> None:
        limit = anyio.CapacityLimiter(SPAWNS_AT_ONCE)

        async def one(name: str) -> None:
            async with limit:
                await self._tmux.spawn(name, ["sleep", "10000"], {"AGENT": name}, "/", 80, 24)

        async with anyio.create_task_group() as group:
            for _ in range(count):
                group.start_soon(one, self._name())

    def spawn_libtmux(self, count: int) -> None:
        for _ in range(count):
            name = self._name()
            self._libtmux.new_session(
                name, window_command="sleep 10000", start_directory="/", x=80, y=24, environment={"AGENT": name}
            )

    def spawn_fork(self, count: int) -> None:
        for _ in range(count):
            name = self._name()
            self.fork("new-session", "-d", "-s", name, "-x", "80", "-y", "24", "-e", f"AGENT={name}", "sleep", "10000")

    def fork(self, *arguments: str) -> None:
        subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, check=True)

    def _name(self) -> str:
        self._names += 1
        return f"bench-{self._names}"


def show(rows: list[Row], version: str) -> None:
    """Print one line per question and number of sessions."""
    print(f"tmux {version}; median ms (spread); ratio = theirs / ours")
    print(f"{'question':<12}{'sessions':>9}{'ours':>17}{'libtmux':>19}{'fork':>19}{'x libtmux':>11}{'x fork':>8}")
    for question, sessions in dict.fromkeys((row.question, row.sessions) for row in rows):
        by_way = {row.way: row for row in rows if (row.question, row.sessions) == (question, sessions)}
        cells = [
            f"{row.median_s * 1000:.2f} ({row.spread:.1f})" for row in (by_way[w] for w in ("ours", "libtmux", "fork"))
        ]
        ratios = [by_way[way].median_s / by_way["ours"].median_s for way in ("libtmux", "fork")]
        left = f"{question:<12}{sessions or '-':>9}{cells[0]:>17}{cells[1]:>19}{cells[2]:>19}"
        print(f"{left}{ratios[0]:>11.1f}{ratios[1]:>8.1f}")


async def main(quick: bool) -> None:
    """Run it all on a server of its own."""
    sizes, spawns, repeats = ((10, 50), 20, 15) if quick else ((10, 100, 500), 200, 51)
    log = structlog.wrap_logger(structlog.PrintLogger())
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        socket, conf = str(Path(directory, "t.sock")), str(Path(directory, "t.conf"))
        async with Tmux.open(TmuxConfig(), socket, conf, "bench", log, lambda _event: None) as tmux:
            bench = Bench(tmux, socket, repeats)
            for sessions in sizes:
                await bench.ask(sessions)
            spawning = Bench(tmux, socket, 1 if quick else 3)
            spawning._names = bench._names
            await spawning.start(spawns)
            show([*bench.rows, *spawning.rows], tmux.version)
            await spawning.clear()
            await tmux.stop_server()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a first look")
    anyio.run(main, parser.parse_args().quick)
