"""What a kept answer costs and how often there is one: each tier beside an ask of tmux, and three traces replayed.

    python -m bench.cache [--quick] [--redis URL]

The first table takes the list of sessions of a real server over control mode and then from each tier by itself, beside
a plain dict; medians of blocks. The second replays the traces of _traces.py in virtual time, with guesses and without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import anyio
import structlog

from agentd.cache.cache import Cache
from agentd.cache.query import Query
from agentd.config import CacheConfig, TmuxConfig
from agentd.tmux.tmux import Tmux
from bench._traces import TRACES, Replayed, Trace, replay

BLOCKS = 21
QUERY = Query("sessions")


async def median_us(calls: int, work: Callable[[], Awaitable[object]]) -> float:
    """Return the median over blocks of what one call takes."""
    blocks = []
    for _ in range(BLOCKS):
        began_s = time.perf_counter()
        for _ in range(calls):
            await work()
        blocks.append((time.perf_counter() - began_s) / calls * 1e6)
    return statistics.median(blocks)


def plain_us(calls: int, work: Callable[[], object]) -> float:
    """Return the same for a call that does not wait."""
    blocks = []
    for _ in range(BLOCKS):
        began_s = time.perf_counter()
        for _ in range(calls):
            work()
        blocks.append((time.perf_counter() - began_s) / calls * 1e6)
    return statistics.median(blocks)


async def tier_us(directory: str, tmux: Tmux, calls: int, tier: str, url: str = "") -> float:
    """Return what an answer of this tier takes when it alone has one."""
    log = structlog.wrap_logger(structlog.PrintLogger())
    config = replace(CacheConfig(), redis_url=url, l1_ttl_s=3600.0, l2_ttl_s=3600.0, l3_ttl_s=3600.0)
    path = str(Path(directory, f"{tier}.db"))
    async with Cache.open(
        config, lambda _query: tmux.sessions(), lambda query: (query.kind,), lambda: tmux.server, path, log
    ) as cache:
        if tier == "l2":
            cache.set("l3", on=False)
            await cache._fill(QUERY)
        else:
            await cache.get(QUERY)
            await cache._l3.store.flush()
        if tier != "l1":
            cache.set("l1", on=False)
        answer = await cache.get(QUERY)
        assert answer.tier == tier, answer
        return await median_us(calls, lambda: cache.get(QUERY))


async def peek_us(tmux: Tmux, calls: int, caller: str) -> float:
    """Return what a look into the first tier takes that does not wait."""
    cache = Cache(CacheConfig(), lambda _query: tmux.sessions(), lambda query: (query.kind,), lambda: tmux.server)
    await cache.get(QUERY, caller)
    return plain_us(calls, lambda: cache.peek(QUERY, caller=caller))


async def costs(sessions: int, calls: int, redis_url: str) -> None:
    """Print the first table."""
    log = structlog.wrap_logger(structlog.PrintLogger())
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        socket, conf = str(Path(directory, "t.sock")), str(Path(directory, "t.conf"))
        async with Tmux.open(TmuxConfig(), socket, conf, "bench", log, lambda _event: None) as tmux:
            for number in range(sessions):
                await tmux.spawn(f"bench-{number}", ["sleep", "10000"], {}, "/", 80, 24)
            table = {QUERY: 1}
            rows = [
                ("ask tmux", await median_us(20, tmux.sessions)),
                ("plain dict", plain_us(calls, lambda: table.get(QUERY))),
                ("l1, peek", await peek_us(tmux, calls, "")),
                ("l1, peek, learning", await peek_us(tmux, calls, "caller")),
                ("l1", await tier_us(directory, tmux, calls, "l1")),
                ("l2", await tier_us(directory, tmux, calls, "l2")),
                ("l3, file", await tier_us(directory, tmux, calls // 10, "l3")),
            ]
            if redis_url:
                rows.append(("l3, Redis", await tier_us(directory, tmux, calls // 20, "l3", redis_url)))
            await tmux.stop_server()
    print(f"list of {sessions} sessions     us a call   ask / this")
    for name, took_us in rows:
        print(f"{name:<22}{took_us:>12.2f}{rows[0][1] / took_us:>13.0f}")


def ratios(traces: list[Trace]) -> None:
    """Print the second table."""
    print("\nshares of the calls in percent; `news`: the answer was new or had changed, only a guess can make it a hit")
    print("trace      l3   guesses   calls   news     l1     l2     l3   tmux    hit   asks  precision  misses spared")
    for trace in traces:
        for l3 in (True, False):
            without, with_guesses = (replay(trace, l3=l3, prefetch=prefetch) for prefetch in (False, True))
            spared = 1 - with_guesses.memory_misses / without.memory_misses
            print(_row(trace.name, without, l3, "no", ""))
            print(_row(trace.name, with_guesses, l3, "yes", f"{spared:>14.0%}"))


def _row(name: str, got: Replayed, l3: bool, guesses: str, spared: str) -> str:
    shares = "".join(f"{100 * got.tiers[tier] / got.calls:>7.1f}" for tier in ("l1", "l2", "l3", "tmux"))
    precision = got.stats["prefetch"]["precision"]
    left = f"{name:<11}{'on' if l3 else 'off':<5}{guesses:<8}{got.calls:>7}{100 * got.news / got.calls:>7.1f}{shares}"
    return f"{left}{100 * got.hit_ratio:>7.1f}{got.asks:>7}{'-' if precision is None else precision:>11}  {spared}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter traces and fewer calls, for a first look")
    parser.add_argument("--redis", default="", metavar="URL", help="measure the third tier there as well")
    given = parser.parse_args()
    anyio.run(costs, 100, 500 if given.quick else 5_000, given.redis)
    dashboard = TRACES["dashboard"](length_s=60) if given.quick else TRACES["dashboard"]()
    ratios([dashboard, TRACES["human"](), TRACES["script"]()])
