"""The third tier's file: survives its writer, is private, and never troubles anybody, whatever is in its place."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import anyio
import apsw
import pytest
import structlog
from floor import ONE, OTHER, Clocks
from hypothesis import given
from hypothesis import strategies as st

from agentd.cache.cache import Cache
from agentd.cache.disk import Disk
from agentd.cache.entry import Entry, decode, encode
from agentd.cache.query import Query
from agentd.config import CacheConfig

pytestmark = pytest.mark.anyio


class Place:
    """A file, its clocks and the log."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "cache.db"
        self.clocks = Clocks()
        self.lines = structlog.testing.LogCapture()
        self.log = structlog.wrap_logger(structlog.PrintLogger(), processors=[self.lines])

    def disk(self, size: int = 100) -> Disk:
        return Disk(str(self.path), 300.0, size, self.log, self.clocks.monotonic, self.clocks.wall)

    def entry(self, query: Query = ONE, value: Any = "text") -> Entry:
        return Entry(query, value, self.clocks.now_s, self.clocks.wall(), "server", "life", 1)

    async def kept(self, disk: Disk, query: Query = ONE) -> Any:
        entry = await disk.get(query)
        return entry and entry.value

    async def works(self, disk: Disk) -> bool:
        """Return whether what is put now is there for the next one."""
        disk.put(self.entry(value="works"))
        await disk.close()
        again = self.disk()
        found = await self.kept(again)
        await again.close()
        return found == "works"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_an_answer_survives_its_writer(place):
    disk, entry = place.disk(), place.entry(value={"lines": ["a", "\udc80"], "width": 80, "none": None, 7: b"x"})
    disk.put(entry)
    assert await disk.get(ONE) == entry  # before it is written, too
    await disk.close()
    again = place.disk()
    assert await again.get(ONE) == entry
    assert await again.get(OTHER) is None
    assert len(again) == 1
    await again.close()


async def test_files_are_for_their_user_alone(place):
    before = os.umask(0)
    try:
        disk = place.disk()
        disk.put(place.entry())
        await disk.flush()
        for file in place.path.parent.iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        await disk.close()
    finally:
        os.umask(before)


async def test_writes_are_batched_and_a_full_batch_does_not_wait_for_the_flush(place):
    disk = place.disk()
    for number in range(250):
        disk.put(place.entry(Query("capture", (number,))))
    assert len(disk._pending) == 50
    await disk.flush()
    assert not disk._pending
    await disk.close()


async def test_the_file_keeps_no_more_than_its_size_and_nothing_too_old(place):
    disk = place.disk(size=10)
    for number in range(500):
        disk.put(place.entry(Query("capture", (number,))))
        await disk.flush()
    assert len(disk) <= 10 + 20  # looked after every twenty flushes
    assert await place.kept(disk, Query("capture", (499,)))
    assert disk.counters.evicted > 0
    place.clocks.now_s += 301
    for _ in range(21):
        disk.put(place.entry())
        await disk.flush()
    assert len(disk) == 1
    await disk.close()


def junk(path: Path) -> None:
    path.write_bytes(b"this is not a database" * 400)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scribbled(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:] = os.urandom(len(data) - 100)
    path.write_bytes(data)


def newer(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("PRAGMA user_version = 99")
    db.close()


def foreign(path: Path) -> None:
    path.unlink()
    db = apsw.Connection(str(path))
    db.execute("CREATE TABLE precious (data)")
    db.close()


def other_tables(path: Path) -> None:
    db = apsw.Connection(str(path))
    db.execute("DROP TABLE answers")
    db.close()


@pytest.mark.parametrize("damage", [junk, truncated, scribbled, newer, foreign, other_tables])
async def test_a_file_that_is_not_ours_to_read_is_moved_aside_and_made_anew(place, damage):
    disk = place.disk()
    for number in range(100):
        disk.put(place.entry(Query("capture", (number,)), "x" * 2000))
    await disk.close()
    damage(place.path)
    as_found = place.path.read_bytes()
    disk = place.disk()
    for number in range(100):
        await disk.get(Query("capture", (number,)))
    assert await place.works(disk)
    if damage in (newer, foreign):
        assert Path(f"{place.path}.aside").read_bytes() == as_found
    assert any("moved aside" in line["event"] for line in place.lines.entries)


@pytest.mark.parametrize("obstacle", ["directory", "symlink", "no directory"])
async def test_a_place_that_cannot_be_used_costs_the_tier_and_nothing_else(place, obstacle):
    if obstacle == "directory":
        place.path.mkdir()
    elif obstacle == "symlink":
        (place.path.parent / "elsewhere").write_text("precious")
        place.path.symlink_to(place.path.parent / "elsewhere")
    else:
        place.path = place.path.parent / "none" / "cache.db"
    disk = place.disk()
    disk.put(place.entry())
    await disk.flush()
    assert await disk.get(ONE) is None
    assert [line["log_level"] for line in place.lines.entries] == ["warning"]
    if obstacle == "directory":  # once the obstacle is gone it is tried again, not at once but soon
        place.path.rmdir()
        await disk.flush()
        assert not place.path.exists()
        place.clocks.now_s += 6
        await disk.flush()
        assert await place.works(disk)
    elif obstacle == "symlink":
        assert (place.path.parent / "elsewhere").read_text() == "precious"
    await disk.close()


async def test_a_file_that_another_process_holds_is_left_alone(place):
    disk = place.disk()
    second = place.disk()
    second.put(place.entry())
    await second.flush()
    assert await second.get(ONE) is None
    assert await place.works(disk)
    assert not Path(f"{place.path}.aside").exists()


async def test_the_cache_opens_its_file_and_serves_from_it_after_a_restart(place):
    asked = []

    async def ask(query):
        asked.append(query)
        return {"number": len(asked)}

    def opened():
        return Cache.open(CacheConfig(), ask, lambda query: (query.kind,), lambda: "server", str(place.path), place.log)

    async with opened() as cache:
        await cache.get(ONE)
    async with opened() as cache:
        cache.revive(lambda _query, _asked_at_s: True)
        assert (await cache.get(ONE))[:2] == ({"number": 1}, "l3")
    assert len(asked) == 1


async def test_the_cache_writes_behind(place):
    async def ask(_query):
        return 1

    async with (
        Cache.open(CacheConfig(), ask, lambda _q: (), lambda: "server", str(place.path), place.log) as cache,
        anyio.create_task_group() as tasks,
    ):
        await tasks.start(cache.run)
        await cache.get(ONE)
        with anyio.fail_after(30):
            while cache._l3.store._pending:  # the flush is on a timer
                await anyio.sleep(0.02)
        tasks.cancel_scope.cancel()


# -- bytes

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


@given(
    value=plain, args=st.lists(st.text(max_size=5) | st.integers(), max_size=3), at=st.integers(0), bit=st.integers(0)
)
def test_bytes_give_back_the_entry_and_nothing_else_does(value, args, at, bit):
    query = Query("kind", tuple(args))
    entry = Entry(query, value, 1.5, 2.5, "source", "life", 3)
    data = encode(entry)
    assert data is not None
    assert decode(data, query) == entry
    assert decode(data, Query("other", tuple(args))) is None
    flipped = bytearray(data)
    flipped[at % len(data)] ^= 1 << bit % 8
    assert decode(bytes(flipped), query) is None
    assert decode(data[:-1], query) is None


@pytest.mark.parametrize("value", [(1, 2), object(), {1, 2}, 1 << 70, [(1,)], [b"x", ONE]])
async def test_what_would_not_come_back_as_it_was_has_no_bytes(value):
    assert encode(Entry(ONE, value, 1.0, 1.0, "", "", 0)) is None


@pytest.mark.parametrize("data", [None, "text", 7, b"", b"1234", b"12345", ["list"]])
async def test_other_things_are_no_entry(data):
    assert decode(data, ONE) is None
