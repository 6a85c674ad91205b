"""How fast do many agents start: libtmux one by one, a bare pipelined client, ours on one server and on several?

    python -m bench.spawn [--quick] [--count N] [--rounds N]

Every way starts the same number of `sleep` on a fresh server of its own and is timed until its last reply. Then the
sessions are counted: those that are missing are its failures. The bare client writes all its `new-session` at once and
does nothing else (no names, no launcher, no window in a hub): it is the floor. Medians of the rounds; the ways take
turns within each. Ending all of ours again is timed as well.

And does `agentd ls` stay quick meanwhile? The same number of shells is spawned by one call to a whole daemon, while
another process lists the agents through the socket: while nothing happens, until the call is answered, until all are
ready. Asked for is a p99 of 100 ms at most during both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.to_thread
import libtmux
import structlog

from agentd.agents.starts import SPAWNS_AT_ONCE
from agentd.config import TmuxConfig
from agentd.errors import AgentdError
from agentd.paths import Paths
from agentd.records import PaneRef
from agentd.tmux.fleet import Fleet
from agentd.tmux.tmux import SpawnOrder, Tmux
from bench._bare import bare_client, plain_server
from bench._boxes import quantile_ms
from bench.load import settle
from bench.main_job import instance

WIDTH, HEIGHT = 200, 50
PROGRAM = ["sleep", "100000"]
OURS, FLEET, SERIAL, BARE, LIBTMUX, KILL = (
    "ours",
    "ours, several servers",
    "ours, parallel_spawn off",
    "bare pipelined",
    "libtmux one by one",
    "kill all",
)

IDLE, SPAWNING, BOOTING = "nothing happens", "until the call is answered", "until all are ready"
IDLE_S = 2.0
MOST_LS_MS = 100.0

Round = dict[str, tuple[float, int]]  # by way: seconds, failures


async def libtmux_one_by_one(count: int) -> tuple[float, int]:
    """Start them as a program that uses libtmux does."""
    async with plain_server() as socket:
        server = libtmux.Server(socket_path=socket)
        started_s = time.perf_counter()
        for number in range(count):
            server.new_session(
                f"a-{number}",
                window_command=" ".join(PROGRAM),
                start_directory="/",
                x=WIDTH,
                y=HEIGHT,
                environment={"AGENT": f"a-{number}"},
            )
        return time.perf_counter() - started_s, count - sessions(socket)


async def bare(count: int) -> tuple[float, int]:
    """Start them with as little as can be sent."""
    async with plain_server() as socket, bare_client(socket) as client:
        words = f"new-session -d -x {WIDTH} -y {HEIGHT} -e AGENT=a {' '.join(PROGRAM)}\n".encode()
        started_s = time.perf_counter()
        await client.burst([words] * count)
        return time.perf_counter() - started_s, count - sessions(socket)


async def ours(count: int, *, parallel: bool) -> Round:
    """Start them by spawn_many, and end them."""
    orders = [
        SpawnOrder(f"a-{number}", PROGRAM, {"AGENT": f"a-{number}"}, "/", WIDTH, HEIGHT) for number in range(count)
    ]
    async with our_server(parallel_spawn=parallel) as (tmux, socket):
        started_s = time.perf_counter()
        refs = await tmux.spawn_many(orders)
        took_s = time.perf_counter() - started_s
        failures = max(count - sessions(socket), sum(isinstance(each, AgentdError) for each in refs))
        if not parallel:
            return {SERIAL: (took_s, failures)}
        started_s = time.perf_counter()
        async with anyio.create_task_group() as group:
            for ref in refs:
                if isinstance(ref, PaneRef):
                    group.start_soon(tmux.kill, ref, 0.0)
        return {OURS: (took_s, failures), KILL: (time.perf_counter() - started_s, sessions(socket))}


async def fleet(count: int) -> Round:
    """Start them over as many servers as `auto` takes, as the daemon does."""
    log = structlog.wrap_logger(structlog.PrintLogger())
    limit = anyio.CapacityLimiter(SPAWNS_AT_ONCE)
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        paths = Paths(directory, directory, directory, one_dir=True)
        async with Fleet.open(TmuxConfig(), paths, "bench", log, lambda _event: None) as servers:

            async def one(name: str) -> None:
                async with limit:
                    await servers.spawn(name, PROGRAM, {"AGENT": name}, "/", WIDTH, HEIGHT)

            started_s = time.perf_counter()
            await servers.prepare(count)
            async with anyio.create_task_group() as group:
                for number in range(count):
                    group.start_soon(one, f"a-{number}")
            took_s = time.perf_counter() - started_s
            failures = count - len(await servers.sessions())
            await servers.stop()
    return {FLEET: (took_s, failures)}


@asynccontextmanager
async def our_server(**settings: object) -> AsyncIterator[tuple[Tmux, str]]:
    """Run a Tmux at a socket of its own, and end its server."""
    log = structlog.wrap_logger(structlog.PrintLogger())
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        socket, conf = str(Path(directory, "t.sock")), str(Path(directory, "t.conf"))
        config = TmuxConfig(**settings)
        async with Tmux.open(config, socket, conf, "bench", log, lambda _event: None) as tmux:
            yield tmux, socket
            await tmux.stop_server()


def sessions(socket: str) -> int:
    """Return how many there are beside the hub."""
    shown = subprocess.run(["tmux", "-S", socket, "list-sessions"], capture_output=True, check=True).stdout
    return shown.count(b"\n") - 1


async def one_round(count: int) -> Round:
    """Let every way have its turn."""
    found: Round = {LIBTMUX: await libtmux_one_by_one(count), BARE: await bare(count)}
    found |= await ours(count, parallel=True)
    found |= await fleet(count)
    found |= await ours(count, parallel=False)
    return found


def listing(count: int) -> dict[str, list[float]]:
    """Return how long each list took in each part of a burst, asked by another process."""
    with instance() as (client, socket):
        environ = {**os.environ, "AGENTD_DIR": os.path.dirname(socket)}
        argv = [sys.executable, "-m", "bench._lister"]
        with subprocess.Popen(argv, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as lister:
            assert lister.stdout
            lister.stdout.readline()
            time.sleep(IDLE_S)
            begun_s = time.monotonic()
            client.call("agents.spawn", {"profile": "sh", "n": count, "cwd": "/"}, timeout_s=300.0)
            answered_s = time.monotonic()
            settle(client, count)
            ready_s = time.monotonic()
            asked = json.loads(lister.communicate(timeout=60)[0])
    parts = {IDLE: (0.0, begun_s), SPAWNING: (begun_s, answered_s), BOOTING: (answered_s, ready_s)}
    return {part: [took for at_s, took in asked if a <= at_s + took and at_s < b] for part, (a, b) in parts.items()}


def show_listing(count: int, bursts: list[dict[str, list[float]]]) -> None:
    """Print one line per part of the bursts."""
    print(f"\n`ls` by another process while {count} shells are spawned, {len(bursts)} bursts; ms")
    print(f"{'while':<28}{'lists':>8}{'p50':>8}{'p99':>8}{'max':>8}{'asked for':>11}")
    for part in (IDLE, SPAWNING, BOOTING):
        all_s = [took for burst in bursts for took in burst[part]]
        if not all_s:
            print(f"{part:<28}{0:>8}")
            continue
        p50, p99, most = (quantile_ms(all_s, q) for q in (0.5, 0.99, 1.0))
        wanted = "" if part == IDLE else f"{'yes' if p99 <= MOST_LS_MS else 'NO':>11}"
        print(f"{part:<28}{len(all_s):>8}{p50:>8.1f}{p99:>8.1f}{most:>8.1f}{wanted}")


def show(count: int, rounds: list[Round]) -> None:
    """Print one line per way."""
    times_s: dict[str, list[float]] = defaultdict(list)
    failures: dict[str, int] = defaultdict(int)
    for found in rounds:
        for way, (took_s, failed) in found.items():
            times_s[way].append(took_s)
            failures[way] += failed
    version = subprocess.run(["tmux", "-V"], capture_output=True, text=True, check=True).stdout.strip()
    print(f"{count} programs, {len(rounds)} rounds, {version}; ratios are medians of those within a round")
    print(f"{'way':<28}{'median s':>10}{'least':>8}{'most':>8}{'failures':>10}{'x libtmux':>11}{'/ bare':>8}")
    for way, all_s in times_s.items():
        faster = statistics.median(a / b for a, b in zip(times_s[LIBTMUX], all_s, strict=True))
        over = statistics.median(b / a for a, b in zip(times_s[BARE], all_s, strict=True))
        left = f"{way:<28}{statistics.median(all_s):>10.3f}{min(all_s):>8.3f}{max(all_s):>8.3f}{failures[way]:>10}"
        print(left + ("" if way == KILL else f"{faster:>11.1f}{over:>8.2f}"))


async def main(count: int, rounds: int) -> None:
    """Run the rounds and show them."""
    show(count, [await one_round(count) for _ in range(rounds)])
    show_listing(count, [await anyio.to_thread.run_sync(listing, count) for _ in range(rounds)])


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="100 programs instead of 700")
    options.add_argument("--count", type=int)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    asyncio.run(main(chosen.count or (100 if chosen.quick else 700), chosen.rounds))
