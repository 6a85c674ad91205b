"""What of the cost of a batch is the disk's, what SQLite's, and what is left: how far from the floor is the mailbox?

    python -m bench.limits [--quick] [--rounds N]        in TMPDIR: the disk in question

Batches of 1,000 messages of 200 bytes, with keys, as `queues.py` sends them, on one shard. `append` writes the bytes of
the bodies and flushes; `rows` inserts the same rows, made beforehand, and commits; `rows and entries` enters them in
the box and the table of keys as well, in bulk behind the commits as the mailbox does; `mailbox` is the whole. Time and
CPU time of this process for each message, median of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from agentd.garbage import collect_rarely
from agentd.mailbox import schema
from agentd.mailbox.box import TAIL_MESSAGES
from agentd.mailbox.keys import digest_of
from agentd.mailbox.rows import MessagePart, fresh
from agentd.mailbox.store import WAL_BYTES
from agentd.records import Draft
from bench._boxes import directory, opened
from bench._queue import letters

SIZE = 1000
Batches = list[list[Draft]]


def batches(count: int) -> Batches:
    """Return new messages as the mailbox takes them."""
    return [[Draft(to, "sender", body, key=key) for key, to, body in letters(SIZE)] for _ in range(count)]


def append(place: Path, sent: Batches) -> None:
    """Write the bodies of each batch and flush."""
    fd = os.open(place / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for batch in sent:
        os.write(fd, "".join([draft.body for draft in batch]).encode())
        os.fdatasync(fd)
    os.close(fd)


def rows(place: Path, sent: Batches) -> Callable[[], None]:
    """Commit each batch's rows; returns what is to be timed, so that making them is not."""
    return _insert(place, sent, entered=False)


def rows_and_entries(place: Path, sent: Batches) -> Callable[[], None]:
    """Commit each batch's rows, and enter them in the box and the table of keys now and then."""
    return _insert(place, sent, entered=True)


def _insert(place: Path, sent: Batches, *, entered: bool) -> Callable[[], None]:
    path = place / "s00.db"
    schema.touch(path)
    connection = schema.connect(path)
    pages = [0]
    connection.set_wal_hook(lambda _c, _n, count: pages.__setitem__(0, count) or apsw.SQLITE_OK)
    made = _made(sent)

    def run() -> None:
        filed, keys = 0, {}
        for parts, names in made:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany(schema.INSERT, parts)
            keys.update(names)
            if entered and len(keys) > TAIL_MESSAGES:
                connection.execute(schema.FILL_BOX, (filed,))
                connection.executemany("INSERT INTO idem0(k, seq) VALUES(?, ?)", sorted(keys.items()))
                filed = parts[-1][0]
                keys.clear()
            connection.execute("COMMIT")
            if pages[0] * 4096 > WAL_BYTES:
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        connection.close()

    return run


def _made(sent: Batches) -> list[tuple[list[MessagePart], dict[bytes, int]]]:
    made = []
    seq = 16
    for batch in sent:
        parts, names = [], {}
        for draft in batch:
            seq += 16
            part, _ = fresh(seq, draft, None, seq)
            parts.append(part)
            names[digest_of(draft) or b""] = seq
        made.append((parts, names))
    return made


async def mailbox(place: Path, sent: Batches) -> None:
    """Put each batch."""
    async with opened(place, shards=1) as box:
        for batch in sent:
            await box.put(batch)


def _timed(run: Callable[[], object], messages: int) -> tuple[float, float]:
    begin_s, cpu_s = time.perf_counter(), time.process_time()
    run()
    return (time.perf_counter() - begin_s) / messages * 1e6, (time.process_time() - cpu_s) / messages * 1e6


def measure(count: int) -> dict[str, tuple[float, float]]:
    """Return time and CPU time of one message in each case, in microseconds."""
    found = {}
    messages = count * SIZE
    with directory() as place:
        sent = batches(count)
        found["append"] = _timed(lambda: append(place, sent), messages)
    for name, case in (("rows", rows), ("rows and entries", rows_and_entries)):
        with directory() as place:
            found[name] = _timed(case(place, batches(count)), messages)
    with directory() as place:
        sent = batches(count)
        found["mailbox"] = _timed(lambda: asyncio.run(mailbox(place, sent)), messages)
    return found


def main() -> int:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true", help="one short round")
    options.add_argument("--rounds", type=int, help="default: 5, with --quick 1")
    chosen = options.parse_args()
    collect_rarely()  # as the daemon does
    count = 40 if chosen.quick else 120
    found = [measure(count) for _ in range(chosen.rounds or (1 if chosen.quick else 5))]
    print(f"{len(found)} x {count} batches of {SIZE}")
    print(f"{'case':<20}{'us/message':>12}{'CPU us':>10}{'msgs/s':>12}{'of mailbox':>12}")
    for name in found[0]:
        took, cpu = (statistics.median(one[name][n] for one in found) for n in (0, 1))
        share = statistics.median(one[name][0] / one["mailbox"][0] for one in found)
        print(f"{name:<20}{took:12.1f}{cpu:10.1f}{1e6 / took:12,.0f}{share:12.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
