"""How long an answer takes by the number of sessions: kept, asked over a connection, by libtmux, by a fork of tmux.

    python -m bench.tmux [--quick] [--chart FILE]

Three questions: list all sessions, the status of one pane (its screen and facts), send it a key. `kept` is the first
tier of the cache, `ours` is asked of tmux over the open connection. Every figure is the median of its repeats; the
spread is (slowest - fastest) / median; the ratio is theirs / ours. All ask the same server, one after the other.
libtmux's list asks for all its fields; `status` takes it and the fork two processes. --chart draws the lists (SVG).
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
from typing import Any

import anyio
import libtmux
import structlog

from agentd.cache.cache import Cache
from agentd.cache.query import Query
from agentd.config import CacheConfig, TmuxConfig
from agentd.records import PaneRef
from agentd.tmux.tmux import SpawnOrder, Tmux

WAYS = ("kept", "ours", "libtmux", "fork")


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
        self._cache = Cache(CacheConfig(), self._answer, lambda _query: (), lambda: tmux.server)
        self._libtmux = libtmux.Server(socket_path=socket)
        self._names = 0
        self.rows: list[Row] = []

    async def _answer(self, query: Query) -> Any:
        """Ask what the cache has not."""
        if query.kind == "sessions":
            return await self._tmux.sessions()
        look = await self._tmux.look((await self._tmux.panes())[0].ref)
        return {"text": look.text, "width": look.width}

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
        kept = Query("sessions", (sessions,))
        await self._cache.get(kept)
        await self.measure("list", "kept", sessions, lambda: self._cache.peek(kept))
        await self.measure("list", "ours", sessions, self._tmux.sessions)
        await self.measure("list", "libtmux", sessions, lambda: len(self._libtmux.sessions))
        await self.measure(
            "list", "fork", sessions, lambda: self.fork("list-sessions", "-F", "#{session_id} #{session_name}")
        )
        screen = Query("screen", (sessions,))
        await self._cache.get(screen)
        await self.measure("status", "kept", sessions, lambda: self._cache.peek(screen))
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

    async def spawn_ours(self, count: int) -> None:
        """Start so many agents."""
        names = [self._name() for _ in range(count)]
        await self._tmux.spawn_many(
            [SpawnOrder(name, ["sleep", "10000"], {"AGENT": name}, "/", 80, 24) for name in names]
        )

    def fork(self, *arguments: str) -> None:
        subprocess.run(["tmux", "-S", self._socket, *arguments], capture_output=True, check=True)

    def _name(self) -> str:
        self._names += 1
        return f"bench-{self._names}"


def show(rows: list[Row], version: str) -> None:
    """Print one line per question and number of sessions."""
    print(f"tmux {version}; median ms (spread); ratio = theirs / ours")
    print(
        f"{'question':<9}{'sessions':>9}" + "".join(f"{way:>17}" for way in WAYS) + "  libtmux/kept  /ours   fork/ours"
    )
    for question, sessions in dict.fromkeys((row.question, row.sessions) for row in rows):
        by_way = {row.way: row for row in rows if (row.question, row.sessions) == (question, sessions)}
        cells = [f"{by_way[w].median_s * 1000:.3g} ({by_way[w].spread:.1f})" if w in by_way else "-" for w in WAYS]
        pairs = [("libtmux", "kept"), ("libtmux", "ours"), ("fork", "ours")]
        ratios = [f"{by_way[a].median_s / by_way[b].median_s:,.1f}" if b in by_way else "-" for a, b in pairs]
        print(f"{question:<9}{sessions:>9}" + "".join(f"{cell:>17}" for cell in cells), end="")
        print(f"{ratios[0]:>14}{ratios[1]:>7}{ratios[2]:>12}")


def chart(rows: list[Row], path: Path, version: str) -> None:
    """Draw the lists."""
    from bench.chart import draw

    sizes = sorted({row.sessions for row in rows})
    at = {(row.way, row.sessions): row.median_s * 1000 for row in rows if row.question == "list"}
    names = {"kept": "agentd, kept", "ours": "agentd, asked", "fork": "fork of tmux", "libtmux": "libtmux"}
    ways = {name: [at[way, size] for size in sizes] for way, name in names.items()}
    note = f"sessions of one tmux server (tmux {version}, two cores)"
    draw(path, "A list of all sessions", sizes, ways, note, "milliseconds, median")


async def main(quick: bool, picture: str | None) -> None:
    """Run it all on a server of its own."""
    sizes, repeats = ((10, 50), 5) if quick else ((10, 30, 100, 300, 1000), 10)
    log = structlog.wrap_logger(structlog.PrintLogger())
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        socket, conf = str(Path(directory, "t.sock")), str(Path(directory, "t.conf"))
        async with Tmux.open(TmuxConfig(), socket, conf, "bench", log, lambda _event: None) as tmux:
            bench = Bench(tmux, socket, repeats)
            for sessions in sizes:
                await bench.ask(sessions)
            show(bench.rows, tmux.version)
            if picture:
                chart(bench.rows, Path(picture), tmux.version)
            await tmux.stop_server()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, for a first look")
    parser.add_argument("--chart", metavar="FILE", help="write a picture of the lists (SVG)")
    arguments = parser.parse_args()
    anyio.run(main, arguments.quick, arguments.chart)
