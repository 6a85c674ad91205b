"""How long do writers wait for each other, with 1 to 16 shards: in one daemon, and as processes of their own?

    python -m bench.contention [--quick] [--rounds N] [--processes N...] [--flush-ms N] [--chart FILE]

In one daemon 500 senders share the mailbox, each of which awaits its own message; what a message waits is the time of
its call less the time of the transaction that took it. As processes, each opens the files itself, waits for a file's
lock (SQLite's busy handler) and commits one message at a time, durably; what a message waits is the time BEGIN
IMMEDIATE takes. That is a design that agentd does not have: it is here to show what sharding does where writers do not
share one. Both take inboxes at random. Medians of the rounds; `x less` is the wait with one shard / this, in a round.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import random
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

import apsw

from agentd.garbage import collect_rarely
from agentd.mailbox.store import Store
from agentd.records import Draft, Receipt
from bench._boxes import BODY, directory, opened, progress, quantile_ms
from bench._flush import add_option, flush_us, slowed

SHARDS = (1, 2, 4, 8, 16)
SENDERS = 500
INBOXES = 500
BAR = 3  # how much less writers in processes must wait with the best number of shards
_TABLES = """
CREATE TABLE m(seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX m_agent ON m(agent, seq);
"""
_BUSY_MS = 600_000  # longer than the longest wait: a writer that gives up would be a wrong figure
_DEADLINE_S = 300


class Wait(NamedTuple):
    """What writers met."""

    rate: float  # messages a second
    mean_ms: float  # waited for others
    p99_ms: float
    share: float  # of the whole time of a send that was waiting


def in_daemon(shards: int, seconds: float) -> Wait:
    """Measure senders of one mailbox."""

    async def send(box, end_s: float, took_s: list[float]) -> None:
        while (begin_s := time.perf_counter()) < end_s:
            [result] = await box.put([Draft(f"agent-{random.randrange(INBOXES)}", "sender", BODY)])
            assert isinstance(result, Receipt)
            took_s.append(time.perf_counter() - begin_s)

    async def run(place: Path) -> Wait:
        took_s: list[float] = []
        async with opened(place, shards) as box:
            with commits_timed() as commit_s:
                begin_s = time.perf_counter()
                await asyncio.gather(*(send(box, begin_s + seconds, took_s) for _ in range(SENDERS)))
                whole_s = time.perf_counter() - begin_s
        # A commit counts once for each message it took: that is how often somebody stood in it.
        commit_mean_s = statistics.fmean(commit_s)
        waits_s = [max(took - commit_mean_s, 0.0) for took in took_s]
        share = statistics.fmean(waits_s) / statistics.fmean(took_s)
        return Wait(len(took_s) / whole_s, statistics.fmean(waits_s) * 1e3, quantile_ms(waits_s, 0.99), share)

    with directory() as place:
        return asyncio.run(run(place))


@contextmanager
def commits_timed() -> Iterator[list[float]]:
    """Note the time of each transaction, once for each command in it."""
    commit_s: list[float] = []
    transact = Store.transact

    def timed(self, commands):
        begin_s = time.perf_counter()
        commit = transact(self, commands)
        commit_s.extend([time.perf_counter() - begin_s] * len(commands))
        return commit

    Store.transact = timed
    try:
        yield commit_s
    finally:
        Store.transact = transact


def in_processes(shards: int, seconds: float, processes: int) -> Wait:
    """Measure writers that each open the files themselves."""
    context = multiprocessing.get_context("fork")
    ready = context.Barrier(processes)
    results = context.Queue()
    with directory() as place:
        for number in range(shards):
            connect(place / f"{number}.db").execute(_TABLES).fetchall()
        writers = [
            context.Process(target=write, args=(place, shards, seconds, ready, results), daemon=True)
            for _ in range(processes)
        ]
        for writer in writers:
            writer.start()
        found = [results.get(timeout=_DEADLINE_S) for _ in writers]
        for writer in writers:
            writer.join()
    waits_s = [wait for waits, _ in found for wait in waits]
    took_s = [took for _, took in found]
    mean_ms, share = statistics.fmean(waits_s) * 1e3, sum(waits_s) / sum(took_s)
    return Wait(len(waits_s) / max(took_s), mean_ms, quantile_ms(waits_s, 0.99), share)


def write(place: Path, shards: int, seconds: float, ready: Barrier, results) -> None:
    """Be one writer: wait for the lock, insert one message, commit; answer how long each wait took."""
    files = [connect(place / f"{number}.db") for number in range(shards)]
    waits_s: list[float] = []
    chosen = random.Random(os.getpid())
    ready.wait(_DEADLINE_S)
    start_s = time.perf_counter()
    while (begin_s := time.perf_counter()) < start_s + seconds:
        agent = f"agent-{chosen.randrange(INBOXES)}"
        file = files[zlib.crc32(agent.encode()) % shards]
        file.execute("BEGIN IMMEDIATE")
        waits_s.append(time.perf_counter() - begin_s)
        file.execute("INSERT INTO m(agent, body) VALUES(?, ?)", (agent, BODY.encode()))
        file.execute("COMMIT")
    results.put((waits_s, time.perf_counter() - start_s))


def connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(_BUSY_MS)
    connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL").fetchall()
    return connection


Rounds = list[dict[int, Wait]]


def compare(title: str, rounds: int, measure: Callable[[int], Wait]) -> Rounds:
    """Measure all numbers of shards in each round, and print them."""
    found: Rounds = []
    for number in range(rounds):
        progress(f"{title}: round {number + 1} of {rounds}")
        found.append({shards: measure(shards) for shards in SHARDS})
    progress("")
    print(f"\n{title:<30}{'msgs/s':>10}{'wait ms':>10}{'p99 ms':>10}{'of a send':>11}{'x less (least to most)':>28}")
    for shards in SHARDS:
        rows = [one[shards] for one in found]
        rate, mean_ms, p99_ms, share = map(statistics.median, zip(*rows, strict=True))
        less = [one[1].mean_ms / one[shards].mean_ms for one in found]
        cell = f"{statistics.median(less):.2f} ({min(less):.2f} to {max(less):.2f})"
        print(f"{f'{shards} shards':<30}{rate:10,.0f}{mean_ms:10.2f}{p99_ms:10.1f}{share:11.0%}{cell:>28}")
    return found


def least_wait(found: Rounds) -> tuple[int, float]:
    """Return the number of shards with which the wait was least, and how much less than with one."""
    best = min(SHARDS, key=lambda shards: statistics.median(one[shards].mean_ms for one in found))
    return best, statistics.median(one[1].mean_ms / one[best].mean_ms for one in found)


def draw_chart(daemon: Rounds, processes: Rounds, count: int, path: Path) -> None:
    """Draw rate and wait by the number of shards."""
    from bench.chart import draw

    def medians(found: Rounds, field: str, scale: float = 1.0) -> list[float]:
        return [statistics.median(getattr(one[shards], field) for one in found) * scale for shards in SHARDS]

    lines = {
        f"{SENDERS} senders: thousand messages a second": medians(daemon, "rate", 1e-3),
        "ms a message waits": medians(daemon, "mean_ms"),
        f"{count} processes: thousand messages a second": medians(processes, "rate", 1e-3),
        "ms a message waits there": medians(processes, "mean_ms"),
    }
    draw(path, "Writers at once by number of shards", SHARDS, lines, "shards", "")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round")
    options.add_argument("--rounds", type=int, help="default: 3, with --quick 1")
    options.add_argument("--processes", type=int, nargs="+", default=[32], metavar="N", help="default: 32")
    options.add_argument("--chart", type=Path, metavar="FILE", help="write a picture by number of shards (SVG)")
    add_option(options)
    chosen = options.parse_args()
    status = slowed(chosen.flush_ms)
    if status is not None:
        return status
    collect_rarely()  # as the daemon does
    seconds, rounds = (0.5, 1) if chosen.quick else (2.0, 3)
    rounds = chosen.rounds or rounds
    print(f"{rounds} rounds of {seconds:g} s; flush + {flush_us() / 1000:g} ms; {os.cpu_count()} cpus, {sys.platform}")
    daemon = compare(f"one daemon, {SENDERS} senders", rounds, lambda shards: in_daemon(shards, seconds))
    failed = 0
    for count in chosen.processes:
        apart = compare(f"{count} processes", rounds, lambda shards, n=count: in_processes(shards, seconds, n))
        best, less = least_wait(apart)
        failed |= less < BAR
        print(f"least wait: {best} shards, {less:.1f} times less than with one (must be {BAR})")
        if chosen.chart and count == chosen.processes[0]:
            draw_chart(daemon, apart, count, chosen.chart)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
