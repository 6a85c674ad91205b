"""How many messages a second does the mailbox accept beside the queues people would reach for, all of them flushed?

    python -m bench.queues [--quick] [--rounds N] [--only NAME...] [--flush-ms N]        in TMPDIR: the disk in question

Messages of 200 bytes, each with an idempotency key where the queue knows such a thing, spread over 50 recipients; the
answer counts when the message is flushed to the disk. Each queue runs each case for the same time in each round, in a
new directory, on a server of its own if it has one, after a tenth of a second that is not counted. A figure is the
median of the rounds, the spread (most - least) / median; `ours / theirs` is taken within a round: median, least, most.
Peers: pip install -e '.[bench]'; servers: redis-server or valkey-server and nats-server on PATH, else those of PyPI.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentd.garbage import collect_rarely
from bench import _file_queues, _nats, _queue, _redis
from bench._boxes import directory, progress, spread
from bench._flush import add_option, flush_us, slowed
from bench._queue import Missing, letters

SENDERS = 500
LIFE = 100  # messages taken by one call
WARM_S = 0.1  # for connections, scripts and tables; not counted


@dataclass(frozen=True)
class Peer:
    """A queue in the table."""

    name: str
    opened: Callable[[Path], AbstractAsyncContextManager[Any]]
    flushed: str
    keys: str
    cases: tuple[str, ...]


async def in_batches(queue: Any, end_s: float, size: int) -> int:
    """One sender, which waits for each batch."""
    sent = 0
    while time.perf_counter() < end_s:
        await queue.send(letters(size))
        sent += size
    return sent


async def many_senders(queue: Any, end_s: float, senders: int) -> int:
    """Many senders, each of which waits for its own message."""
    counts = await asyncio.gather(*(in_batches(queue, end_s, 1) for _ in range(senders)))
    return sum(counts)


async def whole_life(queue: Any, end_s: float, size: int) -> int:
    """Send to one recipient, take and acknowledge, in turns."""
    done = 0
    while time.perf_counter() < end_s:
        to = f"life-{done // size % _queue.AGENTS}"
        await queue.send(letters(size, to))
        await queue.finish(to, size)
        done += size
    return done


Case = tuple[Callable[[Any, float, int], Awaitable[int]], int]
CASES: dict[str, Case] = {
    "one by one": (in_batches, 1),
    "batches of 100": (in_batches, 100),
    "batches of 1000": (in_batches, 1000),
    f"{SENDERS} senders": (many_senders, SENDERS),
    f"sent, taken, acked by {LIFE}": (whole_life, LIFE),
}
ONE, HUNDRED, THOUSAND, MANY, WHOLE = CASES
SENDS = (ONE, HUNDRED, THOUSAND, MANY)

PEERS = (
    Peer("agentd", _queue.ours, "each commit", "yes, 24 h", tuple(CASES)),
    Peer("agentd, no keys", _queue.ours_without_keys, "each commit", "not asked for", tuple(CASES)),
    Peer("Redis Streams", _redis.redis, "always", "SET NX and XADD in a script", tuple(CASES)),
    Peer("Redis, one connection", _redis.shared_redis, "always", "the same; waiting senders share a call", (MANY,)),
    Peer("NATS JetStream", _nats.nats, "always", "Nats-Msg-Id", SENDS),
    Peer("NATS, atomic batch", _nats.atomic_nats, "always", "Nats-Msg-Id", (HUNDRED, THOUSAND)),
    Peer("litequeue", _file_queues.litequeue, "set to FULL; as it comes, NORMAL loses", "none", SENDS),
    Peer("persist-queue, SQLite ack", _file_queues.ack_queue, "each message", "none", SENDS),
    Peer("persist-queue, files", _file_queues.file_queue, "no", "none", SENDS),
    Peer("huey, SQLite", _file_queues.huey, "each message (fsync=True)", "none", SENDS),
)
Rates = dict[tuple[str, str], list[float]]


async def rate(peer: Peer, case: str, seconds: float, place: Path) -> float:
    """Return messages per second of one queue in one case."""
    run, size = CASES[case]
    async with peer.opened(place) as queue:
        await run(queue, time.perf_counter() + WARM_S, size)
        begin_s = time.perf_counter()
        count = await run(queue, begin_s + seconds, size)
        return count / (time.perf_counter() - begin_s)


def measure(peers: list[Peer], rounds: int, seconds: float) -> tuple[Rates, dict[str, str]]:
    """Return every rate, and why a queue has none."""
    rates: Rates = {}
    missing: dict[str, str] = {}
    for number in range(rounds):
        for case in CASES:
            for peer in peers:
                if case not in peer.cases or peer.name in missing:
                    continue
                progress(f"round {number + 1} of {rounds}: {case}, {peer.name}")
                try:
                    with directory() as place:
                        rates.setdefault((case, peer.name), []).append(asyncio.run(rate(peer, case, seconds, place)))
                except Missing as error:
                    missing[peer.name] = str(error)
    progress("")
    return rates, missing


def show(peers: list[Peer], rates: Rates, missing: dict[str, str]) -> None:
    """Print a block for each case, then what each queue promises."""
    print(f"{'case':<26}{'queue':<27}{'msgs/s':>10}{'spread':>8}  ours / theirs (least to most)")
    for case, name in rates:
        theirs, ours = rates[case, name], rates.get((case, PEERS[0].name), [])
        ratios = [a / b for a, b in zip(ours, theirs, strict=False)]
        cell = f"{statistics.median(ratios):8.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else ""
        print(f"{case:<26}{name:<27}{statistics.median(theirs):10,.0f}{spread(theirs):8.2f}  {cell}")
    print(f"\n{'queue':<27}{'flushed before the answer':<40}same key twice")
    for peer in peers:
        print(f"{peer.name:<27}{peer.flushed:<40}{peer.keys}")
    for name, reason in missing.items():
        print(f"not measured: {name}: {reason}")
    print(f"\n{', '.join(versions())}")


def versions() -> list[str]:
    """Name the servers there are."""
    found = []
    for version in (_redis.version, _nats.version):
        with suppress(Missing):
            found.append(version())
    return found


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round")
    options.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    options.add_argument(
        "--only", nargs="+", metavar="NAME", default=[""], help="queues whose name begins so, and ours"
    )
    add_option(options)
    chosen = options.parse_args()
    status = slowed(chosen.flush_ms)
    if status is not None:
        return status
    collect_rarely()  # as the daemon does
    peers = [peer for peer in PEERS if peer in PEERS[:2] or peer.name.lower().startswith(tuple(chosen.only))]
    rounds, seconds = chosen.rounds or (1 if chosen.quick else 5), 0.5 if chosen.quick else 2.0
    print(f"{rounds} x {seconds:g} s; flush + {flush_us() / 1000:g} ms; {os.cpu_count()} cpus, {sys.platform}")
    rates, missing = measure(peers, rounds, seconds)
    show(peers, rates, missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
