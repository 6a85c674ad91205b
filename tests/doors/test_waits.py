"""Calls that merely wait: a record each, no task, and everything that a call in flight may meet."""

from __future__ import annotations

import asyncio
import math
import time

import anyio
import pytest
from serving import eventually, serving

from agentd.agents.waiters import Wait, Waiters
from agentd.doors.deadlines import Deadlines
from agentd.errors import Denied
from agentd.records import Change, MessageState

pytestmark = pytest.mark.anyio


def wait(key: str, timeout_s: float = 60.0) -> dict:
    return {"id": key, "until": "acked", "timeout_s": timeout_s}


def happen(served, *keys: str) -> None:
    served.answers.waiters.on_changes([Change(key, "operator", MessageState.ACKED) for key in keys])


async def held(served, count: int) -> None:
    """Return when so many calls wait, and no task does."""
    shared = served.door._shared
    await eventually(lambda: len(shared.deadlines) == len(served.answers.waiters) == count)


async def test_a_wait_is_answered_when_its_change_comes(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("m1")], [1, 2, "messages.wait", wait("m2")])
        await held(served, 2)
        happen(served, "m2")
        assert await peer.read() == [2, 2, {"over": True}]
        happen(served, "m1", "m1")
        assert await peer.read() == [2, 1, {"over": True}]
        assert (len(served.answers.waiters), served.door.counters.in_flight) == (0, 0)
        assert served.door.counters.calls == 2


async def test_what_is_there_already_is_answered_at_once(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        assert await peer.call(1, "messages.wait", wait("ready")) == [2, 1, {"over": False}]
        assert len(served.answers.waiters) == 0


async def test_a_change_while_the_call_looks_is_not_missed(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("slow")])
        await served.answers.until(looks=1)
        happen(served, "slow")
        served.answers.may_look.set()
        assert await peer.read() == [2, 1, {"over": True}]


async def test_a_wait_leaves_no_task_behind(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send(*([1, n, "messages.wait", wait(f"m{n}")] for n in range(1, 201)))
        await held(served, 200)
        while served.door._shared.workers._idle:
            served.door._shared.workers.thin()
            await anyio.sleep(0)
        assert len(asyncio.all_tasks()) < 20
        happen(served, *(f"m{n}" for n in range(1, 201)))
        assert {(await peer.read())[1] for _ in range(200)} == set(range(1, 201))


async def test_a_waits_own_time_and_the_calls_deadline(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        began = time.monotonic()
        assert await peer.call(1, "messages.wait", wait("m1", 0.1)) == [2, 1, {"over": True}]
        _, _, code, message, data = await peer.call(2, "messages.wait", wait("m1"), {"deadline_ms": 200})
        assert (code, data["retryable"]) == ("deadline", True)
        assert message == "messages.wait did not end within its 0.2 s"
        assert 0.29 < time.monotonic() - began < 5
        assert (len(served.answers.waiters), served.door.counters.in_flight) == (0, 0)
        assert len(served.door._shared.deadlines) == 0


async def test_the_soonest_is_over_first_whichever_came_first(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        times = {1: 60.0, 2: 0.3, 3: 0.1, 4: 0.2}
        await peer.send(*([1, n, "messages.wait", wait(f"m{n}", s)] for n, s in times.items()))
        assert [(await peer.read())[1] for _ in range(3)] == [3, 4, 2]


async def test_cancel_ends_a_wait_and_is_idempotent(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("m1")])
        await held(served, 1)
        await peer.send([6, 1], [6, 1])
        assert (await peer.read())[:3] == [3, 1, "cancelled"]
        assert len(served.answers.waiters) == 0
        happen(served, "m1")
        assert (await peer.call(1, "daemon.status"))[:2] == [2, 1]  # its id is free again


@pytest.mark.parametrize("looking", [True, False])
async def test_a_client_that_vanishes_leaves_no_wait(path, connect_raw, looking):
    async with serving(path) as served:
        async with connect_raw(path) as peer:
            await peer.send([1, 1, "messages.wait", wait("slow" if looking else "m1")])
            await served.answers.until(looks=1)
            if not looking:
                await held(served, 1)
        await eventually(lambda: served.door.counters.in_flight == 0)
        assert len(served.answers.waiters) == 0


async def test_waits_are_calls_in_flight(path, connect_raw):
    async with serving(path, max_in_flight=2) as served, connect_raw(path) as peer:
        await peer.send(*([1, n, "messages.wait", wait(f"m{n}")] for n in (1, 2)), [1, 3, "daemon.status", {}])
        await held(served, 2)
        assert len(served.answers.callers) == 2
        happen(served, "m1")
        assert {(await peer.read())[1] for _ in range(2)} == {1, 3}


async def test_a_cancel_in_the_moment_in_which_a_wait_begins(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("slow")])
        await served.answers.until(looks=1)
        served.answers.may_look.set()
        next(iter(served.door._shared.connections)).cancel_all(Denied("by the test"))
        assert (await peer.read())[:3] == [3, 1, "denied"]
        assert len(served.answers.waiters) == 0


async def test_credit_for_a_wait_is_nothing(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("m1")])
        await held(served, 1)
        await peer.send([5, 1, 10])
        happen(served, "m1")
        assert (await peer.read())[:2] == [2, 1]


async def test_a_fault_of_ours_after_the_wait_is_told_and_logged(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("broken")])
        await held(served, 1)
        happen(served, "broken")
        assert (await peer.read())[:3] == [3, 1, "internal"]
        assert served.log.events() == ["rpc.call_failed"]


async def test_a_wait_within_a_batch_is_waited_for(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "rpc.batch", [["messages.wait", wait("m1")], ["messages.wait", wait("m2", 0.05)]]])
        await eventually(lambda: len(served.answers.waiters) == 1)
        happen(served, "m1")
        assert await peer.read() == [2, 1, [[0, {"over": True}]] * 2]
        assert len(served.answers.waiters) == 0


async def test_waits_end_when_the_door_drains(path, connect_raw):
    async with serving(path, drain_s=0.2) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("m1")])
        await held(served, 1)
        await served.door.drain()
        assert (await peer.read())[0] == 7
        assert (await peer.read())[:3] == [3, 1, "unavailable"]
        assert await peer.is_closed()


async def test_a_change_after_the_door_ended_does_no_harm(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "messages.wait", wait("m1")])
        await held(served, 1)
    assert len(served.answers.waiters) == 0
    happen(served, "m1")


class Never(Wait):
    """A wait that nothing ends but its time."""

    def wanted(self, _what: object) -> bool:
        return False

    async def look(self, *, over: bool) -> bool | None:
        return over or None


async def test_waits_that_ended_early_do_not_pile_up():
    waiters, deadlines = Waiters(), Deadlines()
    for number in range(10_000):
        wait = Never(waiters, f"m{number}", 300.0)
        waiters.add(wait)
        wait.on_end = lambda _wait: deadlines.ended()
        deadlines.add(wait, math.inf, math.inf)
        wait.end(True)
    assert len(deadlines) < 200
    deadlines.close()
