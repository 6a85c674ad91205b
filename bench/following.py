"""What the index of messages costs those who send: the same senders without it, and with each engine following.

    python -m bench.following [--quick]

The ways take turns within a round, each on a mailbox of its own; ratios are medians of those within a round. `behind`
is how long the index needs to catch up once the senders are done.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable

import anyio

from agentd.config import MailboxConfig, SearchConfig
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.search import Search
from agentd.records import Draft

WAYS = ("without", "tantivy", "fts5")
BODY = (
    "please look at the service in src/main.py and tell me whether the deploy of yesterday is what broke the tests " * 2
)


async def send(box: Mailbox, senders: int, batch: int, deadline_s: float) -> int:
    """Send until the deadline; returns how many messages were accepted."""
    counts = [0] * senders

    async def one(number: int) -> None:
        while time.perf_counter() < deadline_s:
            drafts = [Draft(f"a{(number + n) % 500}", f"s{number}", f"{BODY} {n}") for n in range(batch)]
            counts[number] += len(await box.put(drafts))

    async with anyio.create_task_group() as tasks:
        for number in range(senders):
            tasks.start_soon(one, number)
    return sum(counts)


async def rate(way: str, senders: int, batch: int, length_s: float) -> tuple[float, float]:
    """Return messages a second, and for how long the index was behind after that."""
    told: list[Search] = []
    engine = "auto" if way == "without" else way
    config = SearchConfig(enabled=way != "without", engine=engine)
    limits = MailboxConfig(max_inbox_messages=10_000_000)
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        async with Mailbox.open(directory, limits, lambda changes: [s.on_changes(changes) for s in told]) as box:
            opened = Search.open(directory, config, box, print)
            async with opened as search, anyio.create_task_group() as tasks:
                told.append(search)
                await tasks.start(search.run)
                began_s = time.perf_counter()
                sent = await send(box, senders, batch, began_s + length_s)
                done_s = time.perf_counter()
                while config.enabled and await search.behind():
                    await anyio.sleep(0.2)
                behind_s = time.perf_counter() - done_s
                tasks.cancel_scope.cancel()
    return sent / (done_s - began_s), behind_s


def show(name: str, rounds: int, measure: Callable[[str], tuple[float, float]]) -> None:
    """Print the rows of one kind of sending."""
    got = [{way: measure(way) for way in WAYS} for _ in range(rounds)]
    for way in WAYS:
        rates = [row[way][0] for row in got]
        ratio = statistics.median(row[way][0] / row["without"][0] for row in got)
        behind_s = statistics.median(row[way][1] for row in got)
        print(f"{name:<24}{way:<10}{statistics.median(rates):>10,.0f}{ratio:>11.2f}{behind_s:>10.1f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="shorter, for a first look")
    given = parser.parse_args()
    length, times = (1.0, 1) if given.quick else (3.0, 5)
    print(f"{times} rounds of {length:g} s{'':<12}way      messages/s  / without  behind s")
    for label, many, size in (("500 senders, 1 a call", 500, 1), ("5 senders, 100 a call", 5, 100)):
        show(label, times, lambda way, many=many, size=size: anyio.run(rate, way, many, size, length))
