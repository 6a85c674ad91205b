"""The ring of events."""

from __future__ import annotations

import anyio
import pytest

from agentd.events import Events

pytestmark = pytest.mark.anyio


async def test_events_are_numbered_and_kept_in_order():
    events = Events()
    first = events.emit("agent.state", state="idle")
    second = events.emit("message.acked", ids=["m1"])
    assert second.id == first.id + 1
    assert events.since(0) == [first, second]
    assert events.since(first.id) == [second]
    assert events.since(0, ["message.*"]) == [second]
    assert events.since(0, limit=1) == [first]


async def test_ids_rise_across_restarts():
    assert Events().last_id <= Events().emit("daemon.started").id


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


async def test_a_slow_follower_is_told_what_it_missed():
    events = Events(kept=3)
    numbers = [events.emit("agent.state", n=n).id for n in range(10)]
    got = []
    with anyio.fail_after(5):
        async for event in events.follow(after=numbers[0]):
            got.append(event)
            if len(got) == 4:
                break
    assert got[0].type == "gap"
    assert (got[0].data["first"], got[0].data["last"]) == (numbers[1], numbers[6])
    assert [event.id for event in got[1:]] == numbers[7:]
