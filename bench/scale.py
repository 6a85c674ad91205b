"""Does the mailbox stay quick when it is full: taking, counting, starting, and its memory?

    python -m bench.scale [--quick] [--messages N] [--inboxes N] [--flush-ms N]      in TMPDIR: the disk in question

A mailbox is filled with messages of 200 bytes over the inboxes, from 100 senders. Then: take the next 100 of an inbox
and acknowledge them, inbox after inbox, each time with its commits; the depths of 1,000 inboxes; starting on those
files, after a clean stop and after kill -9, from the call until the mailbox can be used (each in a process of its own,
whose own start is not counted). Memory is that of a process with a mailbox in which 20,000 bodies of 32 KiB wait, after
it put them there and again after it was started on them. Prints what was asked for beside it; exits with 1 when it is
exceeded.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

from agentd.garbage import collect_rarely
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, Receipt
from bench._boxes import BODY, directory, opened, progress, quantile_ms
from bench._flush import add_option, flush_us, slowed

BATCH = 1000
SENDERS = 100
TAKEN = 100
LARGE = (20_000, "x" * 32_768)
LARGE_BATCH = 100  # bodies of 32 KiB in a call
STARTS = 5


class Figure(NamedTuple):
    """One line of the table."""

    name: str
    value: float
    unit: str
    most: float | None = None


def recipient(number: int) -> str:
    return f"agent-{number}"


async def fill(box: Mailbox, count: int, inboxes: int, body: str, batch: int) -> float:
    """Put so many messages; returns how many a second."""
    begin_s = time.perf_counter()
    for start in range(0, count, batch):
        numbers = range(start, min(start + batch, count))
        results = await box.put([Draft(recipient(n % inboxes), f"s-{n % SENDERS}", body) for n in numbers])
        assert all(isinstance(result, Receipt) for result in results)
        progress(f"filled {start + batch} of {count}")
    progress("")
    return count / (time.perf_counter() - begin_s)


async def take_and_ack(box: Mailbox, inboxes: int, times: int) -> list[Figure]:
    """Take the next hundred and acknowledge them, as a courier does for one agent after another."""
    took_s: list[float] = []
    for turn in range(times):
        to = recipient(turn * 7 % inboxes)
        begin_s = time.perf_counter()
        taken = await box.reserve(to, TAKEN, 1 << 30, 60.0)
        refused = await box.ack(taken, to)
        took_s.append(time.perf_counter() - begin_s)
        assert taken
        assert not any(refused)
    name = f"take {TAKEN} and ack them"
    return [
        Figure(f"{name}, p50", quantile_ms(took_s, 0.5), "ms"),
        Figure(f"{name}, p95", quantile_ms(took_s, 0.95), "ms", 5),
        Figure(f"{name}, most", max(took_s) * 1e3, "ms"),
    ]


def depths(box: Mailbox, inboxes: int) -> Figure:
    """Ask for the depth of each inbox."""
    took_s: list[float] = []
    for _ in range(20):
        begin_s = time.perf_counter()
        counts = [box.depth(recipient(number)) for number in range(inboxes)]
        took_s.append(time.perf_counter() - begin_s)
        assert any(counts)
    return Figure(f"depth of {inboxes} inboxes, p95", quantile_ms(took_s, 0.95), "ms", 5)


async def full_mailbox(place: Path, count: int, inboxes: int) -> list[Figure]:
    async with opened(place) as box:
        filled = Figure("fill", await fill(box, count, inboxes, BODY, BATCH), "msgs/s")
        times = min(1000, count // TAKEN // 2)
        return [filled, *await take_and_ack(box, inboxes, times), depths(box, inboxes)]


# -- in a process of its own


async def start(place: Path, wait: bool) -> None:
    """Open the mailbox and say how long that took; then wait to be killed, or close it."""
    begin_s = time.perf_counter()
    async with opened(place) as box:
        assert box.stats()["waiting"]
        print(time.perf_counter() - begin_s, memory_mb(), flush=True)
        if wait:
            await box.put([Draft(recipient(0), "sender", BODY)] * 100)  # something to recover
            print("put", flush=True)
            await asyncio.Event().wait()


async def hold(place: Path, count: int) -> None:
    """Fill the mailbox with large messages and say what memory that took."""
    async with opened(place) as box:
        await fill(box, count, 1000, LARGE[1], LARGE_BATCH)
        print(memory_mb(), flush=True)


def memory_mb() -> float:
    """Return the most memory this process has had."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def child(place: Path, *words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "bench.scale", "--child", str(place), *words]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent.parent)


def started(place: Path) -> tuple[float, float]:
    """Start once and stop cleanly; returns the seconds and the megabytes."""
    with child(place, "start") as process:
        seconds, megabytes = map(float, process.communicate()[0].split())
    return seconds, megabytes


def kill(place: Path) -> None:
    """Let a process write to the mailbox and kill it."""
    with child(place, "wait") as process:
        assert process.stdout is not None
        for _ in range(2):
            process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)


def starts(place: Path) -> list[Figure]:
    """Start a few times, after a clean stop and after a kill."""
    clean_s = [started(place)[0] for _ in range(STARTS)]
    killed_s = []
    for _ in range(STARTS):
        kill(place)
        killed_s.append(started(place)[0])
    return [
        Figure("start after a clean stop, slowest", max(clean_s), "s", 1),
        Figure("start after kill -9, slowest", max(killed_s), "s", 1),
    ]


def memory(count: int) -> list[Figure]:
    """Hold large messages, in one process and then in another."""
    with directory() as place:
        with child(place, "hold", str(count)) as process:
            held = float(process.communicate()[0])
        size = f"{count} x 32 KiB"
        return [
            Figure(f"memory while {size} wait", held, "MB", 250),
            Figure("memory after a start on them", started(place)[1], "MB", 250),
        ]


def show(figures: list[Figure]) -> int:
    """Print the table."""
    print(f"{'':<44}{'value':>12} {'':<7}{'at most':>8}")
    failed = 0
    for name, value, unit, most in figures:
        above = most is not None and value > most
        failed |= above
        print(f"{name:<44}{value:12,.3f} {unit:<7}{most or '':>8}{'  ABOVE' if above else ''}")
    return int(failed)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="a tenth of the messages")
    options.add_argument("--messages", type=int, default=50_000, metavar="N", help="default: 50,000")
    options.add_argument("--inboxes", type=int, default=1000, metavar="N", help="default: 1,000")
    options.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    add_option(options)
    chosen = options.parse_args()
    if chosen.child:
        return in_child(*chosen.child)
    status = slowed(chosen.flush_ms)
    if status is not None:
        return status
    collect_rarely()  # as the daemon does
    scale = 10 if chosen.quick else 1
    count, inboxes = chosen.messages // scale, chosen.inboxes // scale
    print(f"{count} messages in {inboxes} inboxes; flush + {flush_us() / 1000:g} ms; {os.cpu_count()} cpus")
    with directory() as place:
        figures = asyncio.run(full_mailbox(place, count, inboxes)) + starts(place)
    return show(figures + memory(LARGE[0] // scale))


def in_child(place: str, what: str, *words: str) -> int:
    work = hold(Path(place), int(words[0])) if words else start(Path(place), what == "wait")
    asyncio.run(work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
