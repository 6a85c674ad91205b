"""What does a durable message cost: one by one, in batches, with 500 senders at once, beside the disk's own limit?

    python -m bench.mailbox [--quick] [--rounds N]        in TMPDIR, which should be on the disk in question

P is how often this disk takes 256 bytes in a preallocated file and confirms them (write and fdatasync), measured in
each round beside the rest. `one tx per message` is the same mailbox with nothing merged: what group commit is compared
with. Prints the median over the rounds and its range; ratios are taken within a round. Exits with 1 when a ratio is
below what it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agentd.config import MailboxConfig
from agentd.mailbox import shard as shard_module
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, Receipt

BODY = "x" * 200
SENDERS = 500
Figures = dict[str, float]


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tenth of the work")
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    scale = 0.1 if chosen.quick else 1.0
    rounds = [measure(scale) for _ in range(chosen.rounds)]
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<52}{statistics.median(values):>12,.1f}{min(values):>12,.1f}{max(values):>12,.1f}")
    return judge(rounds)


def measure(scale: float) -> Figures:
    """Run every case once, each in a new mailbox."""
    flushes = raw_flushes(int(2000 * scale))
    figures: Figures = {"P: write + fdatasync, preallocated, per s": flushes}
    figures["one sender, one by one, msgs/s"] = one_sender(int(3000 * scale), 1)
    figures["one sender, batches of 100, msgs/s"] = one_sender(int(40_000 * scale), 100)
    figures["one sender, batches of 1000, msgs/s"] = one_sender(int(80_000 * scale), 1000)
    figures["the same without a journal, msgs/s"] = one_sender(int(80_000 * scale), 1000, journal=False)
    for shards in (1, 2, 4):
        rate, p50_ms, p99_ms, lag_ms = many_senders(int(60 * scale) or 1, shards)
        figures[f"{SENDERS} senders, {shards} shards, msgs/s"] = rate
        figures[f"  ack p50 ms ({shards})"] = p50_ms
        figures[f"  ack p99 ms ({shards})"] = p99_ms
        figures[f"  event loop lag p99 ms ({shards})"] = lag_ms
    with nothing_merged():
        rate, p50_ms, _, _ = many_senders(int(20 * scale) or 1, 1)
        figures[f"{SENDERS} senders, one tx per message, 1 shard, msgs/s"] = rate
        figures["  ack p50 ms (one tx)"] = p50_ms
    figures.update(reading(int(20_000 * scale)))
    return figures


RATIOS = {  # name: (numerator, denominator, must, ideal)
    "batch of 100 / one by one": ("one sender, batches of 100, msgs/s", "one sender, one by one, msgs/s", 3, 10),
    "batch of 1000 / one by one": ("one sender, batches of 1000, msgs/s", "one sender, one by one, msgs/s", 10, 30),
    "one by one / P": ("one sender, one by one, msgs/s", "P: write + fdatasync, preallocated, per s", 0.15, 0.4),
    "group commit / one tx per message": (
        f"{SENDERS} senders, 1 shards, msgs/s",
        f"{SENDERS} senders, one tx per message, 1 shard, msgs/s",
        5,
        15,
    ),
    "wait: one tx per message / group commit, 2 shards": ("  ack p50 ms (one tx)", "  ack p50 ms (2)", 5, 15),
    "journal off / on, batch of 1000": (
        "the same without a journal, msgs/s",
        "one sender, batches of 1000, msgs/s",
        0,
        0,
    ),
}


def judge(rounds: list[Figures]) -> int:
    print(f"\n{'ratio':<52}{'median':>12}{'least':>12}{'most':>12}{'must':>8}{'ideal':>8}")
    failed = 0
    for name, (above, below, must, ideal) in RATIOS.items():
        ratios = [figures[above] / figures[below] for figures in rounds]
        median = statistics.median(ratios)
        failed |= median < must
        verdict = "" if median >= must else "  BELOW"
        print(f"{name:<52}{median:>12.2f}{min(ratios):>12.2f}{max(ratios):>12.2f}{must:>8g}{ideal:>8g}{verdict}")
    return int(failed)


def raw_flushes(count: int) -> float:
    with directory() as place:
        fd = os.open(place / "raw", os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(fd, 0, 256 * count)
        os.pwrite(fd, bytes(256 * count), 0)
        os.fsync(fd)
        begin = time.perf_counter()
        for n in range(count):
            os.pwrite(fd, b"y" * 256, 256 * n)
            os.fdatasync(fd)
        took = time.perf_counter() - begin
        os.close(fd)
    return count / took


def one_sender(count: int, batch: int, *, journal: bool = True) -> float:
    """Return messages per second of one sender that awaits each call."""

    async def run(box: Mailbox) -> float:
        begin = time.perf_counter()
        for _ in range(max(count // batch, 1)):
            results = await box.put([Draft(f"agent-{n % 50}", "sender", BODY) for n in range(batch)])
            assert isinstance(results[-1], Receipt)
        return max(count // batch, 1) * batch / (time.perf_counter() - begin)

    return in_mailbox(run, shards=2, journal=journal)


def many_senders(each: int, shards: int) -> tuple[float, float, float, float]:
    """Return msgs/s, p50 and p99 of a call in ms, and the loop's p99 lag in ms; every sender awaits its own calls."""
    waits_s: list[float] = []
    lags_s: list[float] = []

    async def send(box: Mailbox, number: int) -> None:
        for _ in range(each):
            begin = time.perf_counter()
            [result] = await box.put([Draft(f"agent-{number}", "sender", BODY)])
            assert isinstance(result, Receipt)
            waits_s.append(time.perf_counter() - begin)

    async def watch() -> None:
        while True:
            begin = time.perf_counter()
            await asyncio.sleep(0.005)
            lags_s.append(time.perf_counter() - begin - 0.005)

    async def run(box: Mailbox) -> float:
        watcher = asyncio.create_task(watch())
        begin = time.perf_counter()
        await asyncio.gather(*(send(box, number) for number in range(SENDERS)))
        took = time.perf_counter() - begin
        watcher.cancel()
        return SENDERS * each / took

    rate = in_mailbox(run, shards=shards)
    return rate, quantile_ms(waits_s, 0.5), quantile_ms(waits_s, 0.99), quantile_ms(lags_s or [0.0], 0.99)


def reading(count: int) -> Figures:
    """Measure the recipient's side over a filled inbox."""
    figures: Figures = {}

    async def run(box: Mailbox) -> float:
        for start in range(0, count, 1000):
            await box.put([Draft("agent-1", f"s{n % 7}", BODY) for n in range(start, min(start + 1000, count))])
        tens: list[float] = []
        for _ in range(min(100, count // 20)):
            begin = time.perf_counter()
            taken = await box.reserve("agent-1", 10, 1 << 20, 30.0)
            tens.append(time.perf_counter() - begin)
            await box.deliver(taken)
        begin = time.perf_counter()
        taken = await box.reserve("agent-1", 1000, 1 << 30, 30.0)
        figures["reserve 1000 at once, msgs/s"] = len(taken) / (time.perf_counter() - begin)
        begin = time.perf_counter()
        await box.ack(taken, "agent-1")
        figures["ack 1000 at once, msgs/s"] = len(taken) / (time.perf_counter() - begin)
        figures["reserve 10, p50 ms"] = quantile_ms(tens, 0.5)
        figures["reserve 10, p99 ms"] = quantile_ms(tens, 0.99)
        return 0.0

    in_mailbox(run, shards=2)
    return figures


def quantile_ms(values_s: list[float], q: float) -> float:
    return sorted(values_s)[int(q * (len(values_s) - 1))] * 1e3


def in_mailbox(run: Callable[[Mailbox], Awaitable[float]], *, shards: int, journal: bool = True) -> float:
    async def opened(place: Path) -> float:
        config = MailboxConfig(shards=shards, journal=journal, reserve_mb=1, max_inbox_messages=10_000_000)
        async with Mailbox.open(place / "box", config, lambda _changes: None) as box:
            return await run(box)

    with directory() as place:
        return asyncio.run(opened(place))


@contextmanager
def directory() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="agentd-bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


@contextmanager
def nothing_merged() -> Iterator[None]:
    """Let the writer take one command for each transaction."""
    usual = shard_module.DRAIN_COST
    shard_module.DRAIN_COST = 1
    try:
        yield
    finally:
        shard_module.DRAIN_COST = usual


if __name__ == "__main__":
    sys.exit(main())
