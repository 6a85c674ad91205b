"""A disk that is full, a log with readers beside it, and a wall clock that is moved about (F18, F23, F26)."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from boxes import ALL, Clock, bodies, draft, open_box, put_ids, state_of, take
from fault_rows import row
from scenes import ROOT

from agentd.records import MessageState

SMALL_DISK = Path(__file__).with_name("small_disk.py")
WAL_MOST_BYTES = 64 * 1024 * 1024
TEN_YEARS_S = 10 * 365 * 86400.0
MOUNTED = 'mount -t tmpfs -o size=60m tmpfs "$0" && exec "$@"'

pytestmark = pytest.mark.anyio


def _mounted(place: Path | str, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a mount namespace of its own that has a small file system at a place."""
    words = ["unshare", "-m", "sh", "-c", MOUNTED, str(place), *argv]
    return subprocess.run(
        words, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=100
    )


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    place = tmp_path / "disk"
    place.mkdir()
    if not shutil.which("unshare") or _mounted(place, "true").returncode:
        pytest.skip("a small file system cannot be mounted here: unshare -m is missing or not allowed")
    return place


@pytest.mark.parametrize("reserve_mb", [20, 0], ids=["with the reserve", "without it"])
async def test_a_full_disk_refuses_sends_and_comes_back_by_itself(small_disk: Path, reserve_mb: int) -> None:
    """F18: with the reserve every ack, nack, retry and drop goes through at the brim; without it nothing is lost."""
    done = _mounted(small_disk, sys.executable, str(SMALL_DISK), str(small_disk), str(reserve_mb))
    assert done.returncode == 0, done.stderr
    came_to = json.loads(done.stdout)
    assert came_to["accepted"] > 1000
    assert came_to["lost"] == 0
    assert came_to["back_s"] < 2.0
    assert came_to["standings"] == ["ok", "ok"]
    if reserve_mb:
        assert came_to["acked"] + came_to["nacked"] + came_to["dropped"] + came_to["retried"] == 240
    row("F18", 0, reserve_mb=reserve_mb, **came_to)


async def test_readers_do_not_make_the_log_grow(tmp_path: Path) -> None:
    """F23: the whole inbox is read again and again while 20,000 messages are written."""
    place = tmp_path / "box"
    largest = 0
    async with open_box(place, shards=1, max_inbox_messages=1 << 20) as box:
        await put_ids(box, *(draft("x" * 1000) for _ in range(1000)))
        written = asyncio.Event()

        async def read() -> int:
            count = 0
            while not written.is_set():
                count += len(await box.inbox("a", ALL, 2000))
            return count

        readers = [asyncio.create_task(read()) for _ in range(2)]
        for _ in range(40):
            await put_ids(box, *(draft("x" * 1000, to="b") for _ in range(500)))
            largest = max(largest, (place / "s00.db-wal").stat().st_size)
        written.set()
        assert min(await asyncio.gather(*readers)) > 1000
    assert 0 < largest <= WAL_MOST_BYTES
    row("F23", 0, writes=20_000, wal_bytes=largest)


@pytest.mark.parametrize("steps_s", [(-3600.0,), (3600.0,), (TEN_YEARS_S, -TEN_YEARS_S), (0.2,), (-0.2,)])
async def test_a_clock_that_steps_all_the_time_moves_no_lease_and_no_order(
    tmp_path: Path, steps_s: tuple[float, ...]
) -> None:
    """F26: the wall clock jumps each 100 ms; leases, back-off, time to live and order go by the time that passed."""
    clock = Clock()
    steps = itertools.cycle(steps_s)

    def pass_s(seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            clock.forward(0.1)
            clock.jump(next(steps))

    async with open_box(tmp_path / "box", clock, shards=1) as box:
        leased, nacked, mortal = await put_ids(
            box, draft("leased"), draft("nacked", sender="t"), draft("mortal", sender="u", ttl_s=30.0)
        )
        first, second = await take(box, limit=2, lease_s=20.0)
        await box.nack([second], 10.0, "later", 5)
        pass_s(9.5)
        assert await box.sweep() == 0
        assert bodies(await take(box, limit=9, lease_s=0.1)) == ["mortal"]  # the others: leased, and in back-off
        pass_s(1.0)
        assert bodies(await take(box, limit=9, lease_s=1.0)) == ["nacked", "mortal"]
        assert await box.deliver([first]) == [None]
        pass_s(18.5)
        assert await box.sweep() == 0
        assert await state_of(box, mortal) is not MessageState.EXPIRED
        pass_s(1.5)
        await box.sweep()
        assert await state_of(box, mortal) is MessageState.EXPIRED
        later = []
        for n in range(5):
            pass_s(0.1)
            later += await put_ids(box, draft(f"later {n}", to="b"))
        assert [leased, nacked, mortal, *later] == sorted([leased, nacked, mortal, *later])
        assert bodies(await take(box, "b")) == [f"later {n}" for n in range(5)]
