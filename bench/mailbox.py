"""What does a durable message cost: one by one, in batches, with 500 senders at once, beside the disk's own limit?

    python -m bench.mailbox [--quick] [--rounds N] [--flush-ms N] [--chart FILE]       in TMPDIR: the disk in question

P is how often this disk takes 256 bytes in a preallocated file and confirms them (write and fdatasync). `appended` is
what it takes when the same bytes are appended to a file, one fdatasync for each batch, in messages per second: once the
bytes of the messages alone, once all the bytes that the engine wrote for them. `one tx per message` is the same mailbox
with nothing merged: what group commit is compared with. `through the door` is a real daemon and the blocking client, in
processes of their own; it is compared with the same mailbox in this process, all to one inbox. Prints the median over
the rounds and its range; ratios are taken within a round. Exits with 1 when a figure is not what it must be.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from agentd.garbage import collect_rarely
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, Receipt
from bench import _door
from bench._boxes import BODY, SHARDS, directory, opened, progress, quantile_ms
from bench._disk import appends, flushes, written_bytes
from bench._flush import add_option, flush_us, slowed

SENDERS = 500
CONNECTIONS = 50
BATCHES = (1, 10, 100, 1000)
LOW_LOAD_PER_S = 20
Figures = dict[str, float]
T = TypeVar("T")


class Sent(NamedTuple):
    """What came of some sending."""

    rate: float  # messages a second
    p50_ms: float  # of a call
    p99_ms: float
    written_bytes: float  # for each message; 0 where the system does not tell
    lag_p99_ms: float  # of the event loop


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tenth of the time")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--chart", type=Path, metavar="FILE", help="write a picture by batch size (SVG)")
    add_option(options)
    chosen = options.parse_args()
    status = slowed(chosen.flush_ms)
    if status is not None:
        return status
    collect_rarely()  # as the daemon does
    rounds = [measure(0.2 if chosen.quick else 2.0) for _ in range(chosen.rounds)]
    print(f"flush + {flush_us() / 1000:g} ms{'':<37}{'median':>12}{'least':>12}{'most':>12}")
    for name in rounds[0]:
        values = [figures[name] for figures in rounds]
        print(f"{name:<52}{statistics.median(values):>12,.1f}{min(values):>12,.1f}{max(values):>12,.1f}")
    if chosen.chart:
        draw_chart(rounds, chosen.chart)
    return judge(rounds)


def measure(seconds: float) -> Figures:
    """Run every case once, each in a new mailbox."""
    figures: Figures = {"P: write + fdatasync, preallocated, per s": flushes(int(1000 * seconds))}
    for size in BATCHES:
        progress(f"batches of {size}")
        figures.update(batches(seconds, size))
    figures["batches of 1000 without a journal, msgs/s"] = one_sender(seconds, 1000, journal=False).rate
    figures.update(crowds(seconds))
    progress("low load, reading, the door")
    figures.update(low_load(max(int(60 * seconds), 20)))
    figures.update(reading(int(10_000 * seconds)))
    figures.update(through_the_door(seconds))
    progress("")
    return figures


RATIOS = {  # name: (numerator, denominator, must)
    "batch of 100 / one by one": ("batches of 100, msgs/s", "batches of 1, msgs/s", 10),
    "batch of 1000 / one by one": ("batches of 1000, msgs/s", "batches of 1, msgs/s", 10),
    "one by one / P": ("batches of 1, msgs/s", "P: write + fdatasync, preallocated, per s", 0.15),
    **{
        f"batches of {size} / {bytes_} appended": (f"batches of {size}, msgs/s", f"  {bytes_} appended ({size})", 0.7)
        for size in BATCHES
        for bytes_ in ("messages", "all bytes")
    },
    "group commit / one tx per message": (
        f"{SENDERS} senders, 1 shards, msgs/s",
        f"{SENDERS} senders, one tx per message, 1 shard, msgs/s",
        5,
    ),
    "wait: one tx per message / group commit, 2 shards": ("  ack p50 ms (one tx)", "  ack p50 ms (2)", 5),
    "journal off / on, batch of 1000": ("batches of 1000 without a journal, msgs/s", "batches of 1000, msgs/s", 0),
    **{
        f"door / in process, {case}": (f"through the door, {case}", f"in process, {case}", 0.5)
        for case in ("batches of 100", "batches of 1000", f"{CONNECTIONS} x 1")
    },
}
LIMITS = {  # name: most
    f"one message at {LOW_LOAD_PER_S}/s, p99 ms": 10,
    f"  ack p99 ms ({SHARDS})": 100,
}


def judge(rounds: list[Figures]) -> int:
    """Print what is compared, and say what is not as it must be."""
    print(f"\n{'ratio':<52}{'median':>12}{'least':>12}{'most':>12}{'must':>8}")
    failed = 0
    for name, (above, below, must) in RATIOS.items():
        ratios = [figures[above] / figures[below] for figures in rounds if figures[below]]
        median = statistics.median(ratios or [0])
        failed |= median < must
        verdict = "" if median >= must else "  BELOW"
        print(f"{name:<52}{median:>12.2f}{min(ratios or [0]):>12.2f}{max(ratios or [0]):>12.2f}{must:>8g}{verdict}")
    for name, most in LIMITS.items():
        median = statistics.median(figures[name] for figures in rounds)
        failed |= median > most
        print(f"{name.strip():<52}{median:>12.2f}{'':>24}{f'<= {most}':>8}{'' if median <= most else '  ABOVE'}")
    return int(failed)


def draw_chart(rounds: list[Figures], path: Path) -> None:
    """Draw what a call takes and what it brings, by its size."""
    from bench.chart import draw

    def medians(name: str, scale: float = 1.0) -> list[float]:
        return [statistics.median(figures[name.format(size)] for figures in rounds) * scale for size in BATCHES]

    lines = {
        "thousand messages a second": medians("batches of {}, msgs/s", 1e-3),
        "the disk alone, the messages' bytes": medians("  messages appended ({})", 1e-3),
        "ms of a call, median": medians("  p50 ms ({})"),
        "ms of a call, p99": medians("  p99 ms ({})"),
    }
    draw(path, "Durable sends by size of the batch", BATCHES, lines, "messages in a batch, one sender", "")


def batches(seconds: float, size: int) -> Figures:
    """Measure one sender with batches of one size, and the disk with as many bytes."""
    sent = one_sender(seconds, size)
    return {
        f"batches of {size}, msgs/s": sent.rate,
        f"  p50 ms ({size})": sent.p50_ms,
        f"  p99 ms ({size})": sent.p99_ms,
        f"  bytes written for a message ({size})": sent.written_bytes,
        f"  messages appended ({size})": size * appends(size * len(BODY), seconds / 2),
        f"  all bytes appended ({size})": size * appends(int(size * sent.written_bytes), seconds / 2),
    }


def one_sender(seconds: float, size: int, *, to: str = "", shards: int = SHARDS, journal: bool = True) -> Sent:
    """Send batches, to 50 inboxes unless there is one recipient; the sender awaits each call."""
    drafts = [Draft(to or f"agent-{n % 50}", "sender", BODY) for n in range(size)]

    async def run(box: Mailbox) -> Sent:
        waits_s: list[float] = []
        before, begin_s = written_bytes(), time.perf_counter()
        await send_until(box, drafts, begin_s + seconds, waits_s)
        return summary(waits_s, size, time.perf_counter() - begin_s, before, [0.0])

    return in_mailbox(run, shards, journal=journal)


def many_senders(seconds: float, senders: int, shards: int, to: str = "", **settings: Any) -> Sent:
    """Send from many senders at once, each of which awaits its own calls."""

    async def run(box: Mailbox) -> Sent:
        waits_s: list[float] = []
        lags_s = [0.0]
        watcher = asyncio.create_task(watch_lag(lags_s))
        before, begin_s = written_bytes(), time.perf_counter()
        lines = [[Draft(to or f"agent-{number}", "sender", BODY)] for number in range(senders)]
        await asyncio.gather(*(send_until(box, line, begin_s + seconds, waits_s) for line in lines))
        took_s = time.perf_counter() - begin_s
        watcher.cancel()
        return summary(waits_s, 1, took_s, before, lags_s)

    return in_mailbox(run, shards, **settings)


async def send_until(box: Mailbox, drafts: list[Draft], end_s: float, waits_s: list[float]) -> None:
    """Send the same messages again and again."""
    while (begin_s := time.perf_counter()) < end_s:
        results = await box.put(drafts)
        assert isinstance(results[-1], Receipt)
        waits_s.append(time.perf_counter() - begin_s)


async def watch_lag(lags_s: list[float]) -> None:
    """Note how late the event loop is."""
    while True:
        begin_s = time.perf_counter()
        await asyncio.sleep(0.005)
        lags_s.append(time.perf_counter() - begin_s - 0.005)


def summary(waits_s: list[float], size: int, took_s: float, before: int | None, lags_s: list[float]) -> Sent:
    count, after = len(waits_s) * size, written_bytes()
    each = 0.0 if before is None or after is None else (after - before) / count
    return Sent(count / took_s, quantile_ms(waits_s, 0.5), quantile_ms(waits_s, 0.99), each, quantile_ms(lags_s, 0.99))


def crowds(seconds: float) -> Figures:
    """Measure many senders at once, over some shards and with nothing merged."""
    figures: Figures = {}
    for shards in (1, 2, 4):
        progress(f"{SENDERS} senders, {shards} shards")
        sent = many_senders(seconds, SENDERS, shards)
        figures[f"{SENDERS} senders, {shards} shards, msgs/s"] = sent.rate
        figures[f"  ack p50 ms ({shards})"] = sent.p50_ms
        figures[f"  ack p99 ms ({shards})"] = sent.p99_ms
        figures[f"  event loop lag p99 ms ({shards})"] = sent.lag_p99_ms
    progress("one transaction for each message")
    sent = many_senders(seconds, SENDERS, 1, group_commit=False)
    figures[f"{SENDERS} senders, one tx per message, 1 shard, msgs/s"] = sent.rate
    figures["  ack p50 ms (one tx)"] = sent.p50_ms
    return figures


def low_load(count: int) -> Figures:
    """Measure what a message takes when hardly any come."""

    async def run(box: Mailbox) -> list[float]:
        waits_s: list[float] = []
        for _ in range(count):
            await asyncio.sleep(1 / LOW_LOAD_PER_S)
            begin_s = time.perf_counter()
            await box.put([Draft("agent-1", "sender", BODY)])
            waits_s.append(time.perf_counter() - begin_s)
        return waits_s

    waits_s = in_mailbox(run, SHARDS)
    return {f"one message at {LOW_LOAD_PER_S}/s, p{q} ms": quantile_ms(waits_s, q / 100) for q in (50, 99)}


def reading(count: int) -> Figures:
    """Measure the recipient's side over a filled inbox."""

    async def run(box: Mailbox) -> Figures:
        for start in range(0, count, 1000):
            await box.put([Draft("agent-1", f"s{n % 7}", BODY) for n in range(start, min(start + 1000, count))])
        tens_s: list[float] = []
        for _ in range(min(100, count // 20)):
            begin_s = time.perf_counter()
            taken = await box.reserve("agent-1", 10, 1 << 20, 30.0)
            tens_s.append(time.perf_counter() - begin_s)
            await box.deliver(taken)
        begin_s = time.perf_counter()
        taken = await box.reserve("agent-1", 1000, 1 << 30, 30.0)
        reserved_s = time.perf_counter()
        await box.ack(taken, "agent-1")
        return {
            "reserve 1000 at once, msgs/s": len(taken) / (reserved_s - begin_s),
            "ack 1000 at once, msgs/s": len(taken) / (time.perf_counter() - reserved_s),
            "reserve 10, p50 ms": quantile_ms(tens_s, 0.5),
            "reserve 10, p99 ms": quantile_ms(tens_s, 0.99),
        }

    return in_mailbox(run, SHARDS)


def through_the_door(seconds: float) -> Figures:
    """Measure the way through the socket, and the same without it."""
    figures: Figures = {}
    for size in (100, 1000):
        figures[f"in process, batches of {size}"] = one_sender(seconds, size, to=_door.TO).rate
        with _door.daemon() as environ:
            figures[f"through the door, batches of {size}"] = _door.in_batches(environ, seconds, size)
    figures[f"in process, {CONNECTIONS} x 1"] = many_senders(seconds, CONNECTIONS, SHARDS, to=_door.TO).rate
    with _door.daemon() as environ:
        figures[f"through the door, {CONNECTIONS} x 1"] = _door.one_each(environ, seconds, CONNECTIONS)
    return figures


def in_mailbox(run: Callable[[Mailbox], Awaitable[T]], shards: int, **settings: Any) -> T:
    async def in_place(place: Path) -> T:
        async with opened(place, shards, **settings) as box:
            return await run(box)

    with directory() as place:
        return asyncio.run(in_place(place))


if __name__ == "__main__":
    sys.exit(main())
