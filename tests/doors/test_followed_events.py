"""The real stream of events over a door: what happens goes out on many streams, as each has room for it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import anyio
import pytest
from serving import serving

from agentd.agents.directory import Directory
from agentd.api import events as api
from agentd.api.event_rows import PackedEvents
from agentd.events import Events

pytestmark = pytest.mark.anyio
FOLLOW = {"coalesce": False}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def events() -> Events:
    return Events()


def follow_of(events: Events):
    parts = SimpleNamespace(events=events, directory=Directory([]), packed_events=PackedEvents())
    return partial(api.follow, parts, None)


async def following(peer, call_id: int, credit: int) -> None:
    """Ask for events, and wait until their stream has begun: calls are answered in the turn after it."""
    await peer.send([1, call_id, "events.follow", FOLLOW, {"credit": credit}])
    for _ in range(3):
        assert (await peer.call(999, "daemon.status"))[:2] == [2, 999]


async def test_each_stream_gets_its_own_ids_and_numbers(path, connect_raw, events):
    async with serving(path) as served, connect_raw(path) as one, connect_raw(path) as other:
        served.answers.events_follow = follow_of(events)
        await following(one, 1, 100)
        events.emit("agent.state", n=0)
        assert (await one.read())[:3] == [4, 1, 1]
        await following(other, 70_000, 100)
        for n in (1, 2):
            events.emit("agent.state", n=n)
        got = [await one.read() for _ in range(2)], [await other.read() for _ in range(2)]
        assert [item[:3] for item in got[0]] == [[4, 1, 2], [4, 1, 3]]
        assert [item[:3] for item in got[1]] == [[4, 70_000, 1], [4, 70_000, 2]]
        assert [item[3]["data"]["n"] for item in got[0]] == [item[3]["data"]["n"] for item in got[1]] == [1, 2]


async def test_without_credit_they_wait_and_come_in_order(path, connect_raw, events):
    async with serving(path) as served, connect_raw(path) as peer:
        served.answers.events_follow = follow_of(events)
        await following(peer, 1, 2)
        for n in range(5):
            events.emit("agent.state", n=n)
        assert [(await peer.read())[2] for _ in range(2)] == [1, 2]
        assert (await peer.call(2, "daemon.status"))[:2] == [2, 2]
        await peer.send([5, 1, 10])
        assert [(await peer.read())[2] for _ in range(3)] == [3, 4, 5]
        events.emit("agent.state", n=5)
        item = await peer.read()
        assert (item[2], item[3]["data"]["n"]) == (6, 5)


@pytest.mark.parametrize("fed", [True, False])
async def test_an_item_that_is_too_large_ends_the_stream_behind_those_before_it(path, connect_raw, events, fed):
    async with serving(path) as served, connect_raw(path, hello=False) as peer:
        served.answers.events_follow = follow_of(events)
        await peer.hello(max_frame=500)
        await following(peer, 1, 100 if fed else 1)
        for text in ("a", "b", "c" * 1000, "d"):
            events.emit("agent.state", text=text)
        if not fed:
            await peer.send([5, 1, 100])
        with anyio.fail_after(10):
            got = [await peer.read() for _ in range(3)]
        assert [item[:3] for item in got[:2]] == [[4, 1, 1], [4, 1, 2]]
        assert got[2][:3] == [3, 1, "over_limit"]
