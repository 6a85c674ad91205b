"""What several tmux servers buy: the same panes over 1, 4 and 8 of them, in one run.

    python -m bench servers [--quick]

Half of the panes sleep, the others print a line a second (`tail -f` of one file, so nothing is forked for it). For each
number of servers: one look at one pane while nothing else is asked, looks at all panes at once, and what the servers
themselves cost in CPU and memory meanwhile nobody asks. Each figure is the median of its rounds; the ratio is that of
one server to it, so above 1 is better.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import structlog

from agentd.config import TmuxConfig
from agentd.paths import Paths
from agentd.records import PaneRef
from agentd.tmux.fleet import Fleet

SERVERS = (1, 4, 8)
SPAWNS_AT_ONCE = 16
TICK_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
COLUMNS = {
    "look_p50_ms": "look p50 ms",
    "look_p99_ms": "look p99 ms",
    "all_ms": "look at all ms",
    "cpu_percent": "tmux CPU %",
    "rss_mb": "tmux MB",
}


@dataclass(frozen=True)
class Form:
    """How much is measured."""

    panes: int
    looks: int
    seconds: float
    rounds: int


QUICK = Form(panes=120, looks=200, seconds=3.0, rounds=3)
FULL = Form(panes=1000, looks=1000, seconds=10.0, rounds=5)


async def one_round(servers: int, form: Form, directory: str, log: Any) -> dict[str, float]:
    """Measure once with so many servers."""
    written = Path(directory, "written")
    written.touch()
    config = TmuxConfig(servers=str(servers), history_limit=100)
    async with Fleet.open(config, Paths(directory, directory, directory), "bench", log, lambda _event: None) as fleet:
        refs = await filled(fleet, form.panes, str(written))
        async with anyio.create_task_group() as group:
            group.start_soon(write, written)
            cpu_percent = await cpu_of(fleet, form.seconds)
            look_s = sorted([await timed(fleet, random.choice(refs)) for _ in range(form.looks)])
            all_s = [await all_at_once(fleet, refs) for _ in range(5)]
            rss_mb = sum(rss_bytes(pid) for pid in pids(fleet)) / 1e6
            group.cancel_scope.cancel()
        await fleet.stop()
    return {
        "look_p50_ms": statistics.median(look_s) * 1000,
        "look_p99_ms": look_s[int(0.99 * len(look_s))] * 1000,
        "all_ms": statistics.median(all_s) * 1000,
        "cpu_percent": cpu_percent,
        "rss_mb": rss_mb,
    }


async def filled(fleet: Fleet, count: int, written: str) -> list[PaneRef]:
    """Start the panes."""
    limit = anyio.CapacityLimiter(SPAWNS_AT_ONCE)
    refs: list[PaneRef] = []

    async def one(number: int) -> None:
        argv = ["tail", "---disable-inotify", "-s", "1", "-f", written] if number % 2 else ["sleep", "100000"]
        async with limit:
            refs.append(await fleet.spawn(f"bench-{number}", argv, {}, "/", 200, 50))

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return refs


async def write(path: Path) -> None:
    """Have the printing panes print a line a second."""
    with path.open("a") as file:
        while True:
            print(f"{time.time():.3f} the quick brown fox jumps over the lazy dog", file=file, flush=True)
            await anyio.sleep(1.0)


async def cpu_of(fleet: Fleet, seconds: float) -> float:
    """Return the share of a core that the servers use while nobody asks them anything."""
    await anyio.sleep(1.5)  # until what starting cost is over
    before, started_s = cpu_s(fleet), time.perf_counter()
    await anyio.sleep(seconds)
    return 100 * (cpu_s(fleet) - before) / (time.perf_counter() - started_s)


async def timed(fleet: Fleet, ref: PaneRef) -> float:
    """Return how long one look takes."""
    started_s = time.perf_counter()
    await fleet.look(ref)
    return time.perf_counter() - started_s


async def all_at_once(fleet: Fleet, refs: list[PaneRef]) -> float:
    """Return how long looks at all panes take that are asked for at once."""
    started_s = time.perf_counter()
    async with anyio.create_task_group() as group:
        for ref in refs:
            group.start_soon(fleet.look, ref)
    return time.perf_counter() - started_s


def pids(fleet: Fleet) -> list[int]:
    return [int(row["server"].partition(":")[0]) for row in fleet.servers()]


def cpu_s(fleet: Fleet) -> float:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids(fleet)]
    return sum(int(each[11]) + int(each[12]) for each in fields) / TICK_S


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def show(form: Form, rounds: dict[int, list[dict[str, float]]]) -> None:
    """Print the medians, and beside each how many times better than one server it is."""
    print(f"{form.panes} panes, half of them printing once a second; medians of {form.rounds} rounds (x one server)")
    print(f"{'servers':<9}" + "".join(f"{name:>22}" for name in COLUMNS.values()))
    medians = {k: {key: statistics.median(r[key] for r in rows) for key in COLUMNS} for k, rows in rounds.items()}
    for servers, row in medians.items():
        ratios = {key: medians[SERVERS[0]][key] / value if value else float("nan") for key, value in row.items()}
        print(f"{servers:<9}" + "".join(f"{f'{row[key]:.2f} (x {ratios[key]:.2f})':>22}" for key in COLUMNS))


async def main(quick: bool) -> None:
    """Run every number of servers in each round, so that a machine that drifts does so for all of them."""
    form = QUICK if quick else FULL
    log = structlog.wrap_logger(structlog.PrintLogger())
    rounds: dict[int, list[dict[str, float]]] = {servers: [] for servers in SERVERS}
    for _ in range(form.rounds):
        for servers in SERVERS:
            with tempfile.TemporaryDirectory(prefix="ab-", dir="/tmp") as directory:
                rounds[servers].append(await one_round(servers, form, directory, log))
    show(form, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="about a minute, for a first look")
    anyio.run(main, parser.parse_args().quick)
