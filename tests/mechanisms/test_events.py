"""Events: numbered, kept in a ring and in files, followed from an id on; ids do not lie, also across restarts."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.errors import InvalidValue
from agentd.events import Events
from agentd.events.coalescing import FAR_BEHIND, coalesced
from agentd.events.feed import Feed, read_on
from agentd.events.store import SEGMENT_BYTES, EventStore
from agentd.records import Event

pytestmark = pytest.mark.anyio
PLENTY = 100_000_000


@pytest.fixture
def directory(tmp_path: Path) -> str:
    return str(tmp_path / "events")


@asynccontextmanager
async def life(directory: str, *, kept: int = 10_000, ends: bool = True, writes: bool = True) -> AsyncIterator[Events]:
    """Be one daemon with a store; one that does not end in order leaves nothing but what it has written."""
    store = EventStore(directory, PLENTY)
    events = Events(store, kept)
    try:
        async with anyio.create_task_group() as tasks:
            if writes:
                tasks.start_soon(events.run)
            yield events
            tasks.cancel_scope.cancel()
        if ends:
            await events.close()
    finally:
        store.close()


async def written(events: Events) -> None:
    """Wait until all is on disk."""
    with anyio.fail_after(10):
        while events._store.last_id < events.last_id:
            await anyio.sleep(0.01)


async def first(count: int, events: Events, *args: Any, **more: Any) -> list[Event]:
    got: list[Event] = []
    with anyio.fail_after(10):
        async for batch in events.follow_batches(*args, **more):
            if isinstance(batch, Feed):
                await batch.into(read_on)
                continue
            got += batch
            if len(got) >= count:
                break
    return got[:count]


def numbers(events: list[Event]) -> list[Any]:
    """Return each event's n, a gap's first and last."""
    return [(e.data["first"], e.data["last"]) if e.type == "gap" else e.data.get("n") for e in events]


async def test_events_are_numbered_and_kept_in_order():
    events = Events()
    one = events.emit("agent.state", state="idle")
    two = events.emit("message.acked", ids=["m1"])
    assert two.id == one.id + 1
    assert await events.since(0) == [one, two]
    assert await events.since(one.id) == [two]
    assert await events.since(0, ["message.*"]) == [two]
    assert await events.since(0, limit=1) == [one]
    assert await events.since(0, wanted=lambda event: event.id == two.id) == [two]


async def test_a_follower_sees_what_comes_and_only_the_types_it_asked_for():
    events = Events()
    events.emit("agent.state", n=0)
    seen = []

    async def follow() -> None:
        async for event in events.follow(types=["agent.state"]):
            seen.append(event.data["n"])
            if len(seen) == 2:
                return

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            await anyio.wait_all_tasks_blocked()
            events.emit("agent.state", n=1)
            events.emit("message.acked", n=2)
            events.emit("agent.state", n=3)
    assert seen == [1, 3]


async def test_a_slow_follower_is_told_what_it_missed_when_nothing_is_kept_on_disk():
    events = Events(kept=3)
    ids = [events.emit("agent.state", n=n).id for n in range(10)]
    assert numbers(await first(4, events, ids[0])) == [(ids[1], ids[6]), 7, 8, 9]


async def test_a_slow_follower_misses_nothing_that_is_on_disk(directory: str):
    async with life(directory, kept=5, writes=False) as events:
        start = events.emit("x", n=-1).id
        for n in range(40):
            events.emit("x", n=n)
            if n % 4 == 3:
                await events._write(events._store)
        assert numbers(await first(40, events, start)) == list(range(40))
        assert numbers(await events.since(start, limit=100)) == list(range(40))


async def test_after_an_orderly_restart_a_reader_goes_on_as_if_nothing_had_been(directory: str):
    async with life(directory) as events:
        ids = [events.emit("x", n=n).id for n in range(3)]
    async with life(directory) as events:
        ids += [events.emit("x", n=n).id for n in range(3, 6)]
        assert ids == list(range(ids[0], ids[0] + 6))
        assert numbers(await first(5, events, ids[0])) == [1, 2, 3, 4, 5]
        assert numbers(await first(6, events, 0)) == [0, 1, 2, 3, 4, 5]


async def test_after_a_crash_no_id_is_given_twice_and_what_is_not_known_is_a_gap(directory: str):
    async with life(directory, ends=False) as events:
        kept = events.emit("x", n=0).id
        await written(events)
        lost = [events.emit("x", n=n).id for n in range(1, 4)]  # told to readers, and not written
    async with life(directory) as events:
        new = events.emit("x", n=10).id
        assert new > lost[-1]
        assert numbers(await first(2, events, kept)) == [(kept + 1, new - 1), 10]
        assert numbers(await first(2, events, lost[1])) == [(lost[1] + 1, new - 1), 10]
    async with life(directory, writes=False) as events:  # and it stays where it is
        assert numbers(await first(2, events, kept)) == [(kept + 1, new - 1), 10]


async def test_a_crash_before_anything_was_written_again_is_still_a_gap(directory: str):
    async with life(directory) as events:
        kept = events.emit("x", n=0).id
    async with life(directory, ends=False, writes=False) as events:
        told = events.emit("x", n=1).id
    async with life(directory, ends=False, writes=False) as events:
        assert events.emit("x", n=1).id > told
    async with life(directory) as events:
        new = events.emit("x", n=2).id
        assert new > told
        one, two, last = numbers(await first(3, events, kept))  # of each crash one
        assert (one[0], one[1] + 1, two[1], last) == (kept + 1, two[0], new - 1, 2)


async def test_without_files_what_came_before_this_daemon_is_a_gap():
    before = Events().emit("x").id
    await anyio.sleep(0.001)
    events = Events()
    [told] = await first(1, events, before)
    assert (told.type, told.data["first"], told.data["last"]) == ("gap", before + 1, events.last_id)


async def test_an_id_that_was_not_given_here_is_refused():
    events = Events()
    events.emit("x")
    with pytest.raises(InvalidValue, match="has not happened here"):
        await first(1, events, events.last_id + 1)
    with pytest.raises(InvalidValue, match="has not happened here"):
        await events.since(events.last_id + 1)


@pytest.mark.parametrize("damage", ["cut", "garbage", "emptied"])
async def test_damaged_lines_are_a_gap_and_nothing_else(directory: str, damage: str):
    async with life(directory) as events:
        ids = [events.emit("x", n=n).id for n in range(5)]
    [path] = Path(directory).glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    wrong = {"cut": lines[2][:-9] + b"\n", "garbage": b"\xff\x00{]\n", "emptied": b"\n"}[damage]
    path.write_bytes(b"".join([*lines[:2], wrong, *lines[3:]]))
    async with life(directory) as events:
        assert numbers(await first(5, events, 0)) == [0, 1, (ids[2], ids[2]), 3, 4]


async def test_of_the_files_the_newest_are_kept_and_the_rest_is_a_gap(directory: str):
    store = EventStore(directory, 2 * SEGMENT_BYTES)
    events = Events(store, kept=10)
    start = events.emit("x", n=-1).id
    for n in range(60):
        events.emit("x", n=n, text="x" * 100_000)
        await events._write(store)
    assert sum(path.stat().st_size for path in Path(directory).iterdir()) <= 3 * SEGMENT_BYTES
    got = await events.since(start, limit=1000)
    begun, *rest = numbers(got)
    assert begun[0] == start + 1
    assert rest == list(range(begun[1] - start, 60))
    assert len(rest) > 10  # more than the ring has
    store.close()


async def test_a_disk_that_takes_nothing_costs_no_event_that_the_ring_has(directory: str, monkeypatch):
    store = EventStore(directory, PLENTY)
    events = Events(store)
    start = events.last_id
    events.emit("x", n=0)
    real, room = os.write, [20]

    def full(descriptor: int, data: Any) -> int:
        if room:
            return real(descriptor, data[: room.pop()])  # a part still fits, and ends within the first line
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        for n in range(1, 5):
            events.emit("x", n=n)
        await events._write(store)
    assert "space" in events.trouble
    await events.close()
    assert not events.trouble
    again = Events(EventStore(directory, PLENTY))
    assert numbers(await first(5, again, start)) == [0, 1, 2, 3, 4]


async def test_a_file_that_cannot_be_opened_is_no_end_and_costs_no_event(directory: str):
    """R14: a daemon without free descriptors goes on."""
    events = Events(EventStore(directory, PLENTY))
    start = events.last_id
    in_the_way = Path(directory) / f"{start + 1:020}.jsonl"
    in_the_way.mkdir()
    events.emit("x", n=0)
    with anyio.move_on_after(0.3):
        await events.run()
    assert "cannot open" in events.trouble
    in_the_way.rmdir()
    await events.close()
    assert not events.trouble
    again = Events(EventStore(directory, PLENTY))
    assert numbers(await first(1, again, start)) == [0]


async def test_an_end_that_cannot_be_written_down_is_told_by_the_next(directory: str):
    events = Events(EventStore(directory, PLENTY))
    start = events.last_id
    events.emit("x", n=0)
    (Path(directory) / "ended").mkdir()
    await events.close()
    (Path(directory) / "ended").rmdir()
    again = Events(EventStore(directory, PLENTY))
    assert [event.type for event in await again.since(start)] == ["x", "gap"]


async def test_files_are_private(directory: str):
    async with life(directory) as events:
        events.emit("x")
    assert os.stat(directory).st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in Path(directory).iterdir()} == {0o600}


async def test_silence_is_told_and_how_far_one_has_seen():
    events = Events()
    start = events.last_id
    events.emit("y")
    [beat] = await first(1, events, start, ["x"], heartbeat_s=0.05)
    assert (beat.type, beat.id) == ("heartbeat", events.last_id)  # past what was filtered out


async def test_a_heartbeat_comes_also_while_only_others_events_happen():
    events = Events()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def chatter() -> None:
                while True:
                    events.emit("y")
                    await anyio.sleep(0.002)

            tasks.start_soon(chatter)
            assert [e.type for e in await first(2, events, None, ["x"], heartbeat_s=0.05)] == ["heartbeat"] * 2
            tasks.cancel_scope.cancel()


async def test_who_is_far_behind_gets_the_newest_state_of_each_agent_and_all_else():
    events = Events()
    start = events.last_id
    for n in range(FAR_BEHIND):
        events.emit("agent.state", agent=f"a{n % 2}", n=n)
        events.emit("message.acked", n=n)
    told = await first(FAR_BEHIND + 2, events, start, coalesce=True)
    states = [event for event in told if event.type == "agent.state"]
    assert [event.data["n"] for event in states] == [FAR_BEHIND - 2, FAR_BEHIND - 1]
    assert {event.data["coalesced"] for event in states} == {FAR_BEHIND // 2 - 1}
    assert [e.data["n"] for e in told if e.type != "agent.state"] == list(range(FAR_BEHIND))
    assert [event.id for event in told] == sorted(event.id for event in told)
    assert len(await first(2 * FAR_BEHIND, events, start)) == 2 * FAR_BEHIND  # who did not ask gets them all


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=200))
@settings(deadline=None, max_examples=60)
def test_coalescing_leaves_the_last_state_of_each_and_counts_the_rest(told: list[tuple[str, bool]]):
    events = [Event(n, "agent.state" if state else "x", 0, {"agent": a}) for n, (a, state) in enumerate(told)]
    kept = coalesced(events)
    for agent in "abc":
        before = [e for e in events if e.type == "agent.state" and e.data["agent"] == agent]
        after = [e for e in kept if e.type == "agent.state" and e.data["agent"] == agent]
        assert sum(1 + int(str(e.data.get("coalesced", 0))) for e in after) == len(before)
        assert [e.id for e in after][-1:] == [e.id for e in before][-1:]
    assert [e for e in kept if e.type == "x"] == [e for e in events if e.type == "x"]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("emit"), st.integers(1, 12)),
        st.just(("write", 0)),
        st.just(("end", 0)),
        st.just(("crash", 0)),
    ),
    max_size=25,
)


@given(steps, st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_whatever_happens_a_reader_gets_each_event_or_a_gap_with_it(tmp_path_factory, history, where: int):
    """Ids rise and are given once; from any of them a reader gets, in order, what is kept, and gaps for all else."""
    directory = tmp_path_factory.mktemp("life")
    anyio.run(_live, str(directory), history, where)
    shutil.rmtree(directory)


async def _live(directory: str, history: list[tuple[str, int]], where: int) -> None:
    store = EventStore(directory, PLENTY)
    events = Events(store, kept=8)
    given_: list[Event] = []
    for step, count in history:
        if step == "emit":
            given_ += [events.emit("x", n=len(given_) + n) for n in range(count)]
        elif step == "write":
            await events._write(store)
        else:
            await events.close() if step == "end" else store.close()
            store = EventStore(directory, PLENTY)
            events = Events(store, kept=8)
    ids = [event.id for event in given_]
    assert ids == sorted(set(ids))
    if given_:
        start = ids[where % len(ids)]
        got = await events.since(start, limit=10_000)
        covered = start
        for event in got:
            assert event.data["first"] == covered + 1 if event.type == "gap" else event.id == covered + 1
            covered = event.id
        assert covered == events.last_id
        told = {event.id: event.data for event in got if event.type != "gap"}
        assert all(told[event.id] == event.data for event in given_ if event.id in told)
    store.close()
