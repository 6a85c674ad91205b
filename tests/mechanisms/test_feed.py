"""Feeds: what happens reaches readers that are up to date in order and once, whether they take it at once or later."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.events import Events
from agentd.events.feed import Feed
from agentd.records import Event

pytestmark = pytest.mark.anyio


class Reader:
    """Follows as a door does; takes from its feed while `room` is left, and by itself what it is then given."""

    def __init__(self, events: Events, room: int, **more: Any) -> None:
        self._batches = events.follow_batches(**more)
        self._room = room
        self.fed: list[list[Event]] = []
        self.got: list[Event] = []
        self.feeds = 0

    async def run(self) -> None:
        async for given_ in self._batches:
            if isinstance(given_, Feed):
                self.feeds += 1
                await given_.into(self._take)
            else:
                self.got += given_
                self._room = max(self._room, 2)

    def _take(self, items: list[Any]) -> bool:
        if len(items) > self._room:
            return False
        self._room -= len(items)
        self.fed.append(items)
        self.got += items
        return True


async def reading(events: Events, count: int, *readers: Reader, burst: int = 1) -> None:
    """Let the readers run while so many events happen, `burst` at a time, until each has the last one."""
    async with anyio.create_task_group() as group:
        for reader in readers:
            group.start_soon(reader.run)
        await anyio.wait_all_tasks_blocked()
        last = None
        for number in range(count):
            last = events.emit("agent.state", n=number)
            if number % burst == burst - 1:
                await anyio.wait_all_tasks_blocked()
        with anyio.fail_after(10):
            while last and not all(reader.got and reader.got[-1].id == last.id for reader in readers):
                await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()


async def test_what_happens_in_one_turn_is_handed_over_together_and_wakes_nobody():
    events = Events()
    readers = [Reader(events, 1000) for _ in range(3)]
    await reading(events, 6, *readers, burst=3)
    for reader in readers:
        assert [[event.data["n"] for event in items] for items in reader.fed] == [[0, 1, 2], [3, 4, 5]]
        assert reader.feeds == 1, "it was never woken"
    assert readers[0].fed[0] is readers[1].fed[0], "made once for all who read the same"


async def test_who_wants_other_events_is_not_told():
    events = Events()
    reader = Reader(events, 1000, types=["message.acked"])
    async with anyio.create_task_group() as group:
        group.start_soon(reader.run)
        await anyio.wait_all_tasks_blocked()
        for number in range(4):
            events.emit("message.acked" if number % 2 else "agent.state", n=number)
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert [event.data["n"] for event in reader.got] == [1, 3]
    assert reader.feeds == 1


async def test_more_in_a_turn_than_is_kept_is_told_as_a_gap():
    events = Events(kept=4)
    reader = Reader(events, 1000)
    await reading(events, 10, reader, burst=10)
    (first, *rest) = reader.got
    assert first.type == "gap"
    assert first.data["last"] - first.data["first"] == 5
    assert [event.data["n"] for event in rest] == [6, 7, 8, 9]


async def test_silence_counts_from_what_was_handed_over_last():
    events = Events()
    reader = Reader(events, 1000, heartbeat_s=0.2)
    async with anyio.create_task_group() as group:
        group.start_soon(reader.run)
        begun_s = anyio.current_time()
        with anyio.fail_after(10):
            while anyio.current_time() - begun_s < 0.6:
                events.emit("agent.state")
                await anyio.sleep(0.01)
            assert not [event for event in reader.got if event.type == "heartbeat"]
            told = len(reader.got)
            while len(reader.got) == told:
                await anyio.sleep(0.01)
        group.cancel_scope.cancel()
    assert reader.got[-1].type == "heartbeat"
    assert reader.got[-1].id == events.last_id


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 30), st.integers(1, 7))
@settings(deadline=None, max_examples=60)
async def test_every_reader_gets_every_event_once_and_in_order(rooms: list[int], count: int, burst: int):
    events = Events()
    readers = [Reader(events, room) for room in rooms]
    await reading(events, count, *readers, burst=burst)
    for reader in readers:
        assert [event.data["n"] for event in reader.got] == list(range(count))
