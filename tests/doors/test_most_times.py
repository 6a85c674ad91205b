"""How long a call may take, and how many may be in flight at once."""

from __future__ import annotations

import math
import time

import pytest
from serving import eventually, serving

from agentd.calling import STARTS
from agentd.config import RpcConfig
from agentd.doors.most_times import MostTimes
from agentd.doors.shared import KEPT_PART
from agentd.records import Caller, Role
from agentd.wire.calls import CALLS

FOR_EVER = "agents.capture"  # what the answers here never end
CAPTURE = {"target": "a"}
WAIT = {"target": "a", "until": "idle"}

MOST = MostTimes(RpcConfig(call_s=30.0, wait_s=300.0, long_s=7200.0))


@pytest.mark.parametrize(
    ("method", "params", "most_s"),
    [
        ("agents.list", {}, 30),
        ("agents.keys", {}, 30),
        ("messages.wait", {}, 330),
        ("messages.inbox", {}, 330),
        ("agents.spawn", {}, 7200),
        ("mailbox.compact", {}, 7200),
        ("events.follow", {}, math.inf),
        ("mcp.call", {"name": "wait"}, 330),
        ("mcp.call", {"name": "list_agents"}, 30),
        ("rpc.batch", [["agents.list", {}], ["messages.wait", {}]], 360),
        ("rpc.batch", [["agents.spawn", {}]] * 3, 7200),
        ("rpc.batch", [[], 5, [[]], ["no.such", {}]], 120),
    ],
)
def test_the_most_time_of_each_kind_of_call(method, params, most_s):
    assert MOST.of(method, params) == most_s


def test_what_waits_or_starts_programs_has_the_time_for_it():
    waits = {name for name, call in CALLS.items() if {"timeout_s", "wait_s"} & set(call.params.__struct_fields__)}
    assert waits == {name for name, call in CALLS.items() if call.takes == "a wait"}
    assert {name for name, call in CALLS.items() if call.takes == "long"} >= STARTS
    assert MostTimes(RpcConfig(call_s=100.0, long_s=1.0)).of("agents.spawn", {}) == 100


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "params", "options", "most_s"),
    [
        (FOR_EVER, CAPTURE, None, 0.3),
        (FOR_EVER, CAPTURE, {"deadline_ms": 60_000}, 0.3),
        (FOR_EVER, CAPTURE, {"deadline_ms": 100}, 0.1),
        ("agents.wait", WAIT, None, 0.8),
        ("rpc.batch", [[FOR_EVER, CAPTURE]], None, 0.3),
    ],
)
async def test_a_call_ends_at_its_most_time(path, connect_raw, method, params, options, most_s):
    async with serving(path, call_s=0.3, wait_s=0.5, frame_timeout_s=0.4) as served, connect_raw(path) as peer:
        began = time.monotonic()
        _, _, code, message, data = await peer.call(1, method, params, options)
        assert (code, message) == ("deadline", f"{method} did not end within its {most_s:g} s")
        assert data["retryable"]
        assert most_s <= time.monotonic() - began < most_s + 0.5
        assert served.door.counters.in_flight == 0


@pytest.mark.anyio
async def test_a_call_that_plans_with_its_time_knows_it(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        spawn, other = ("agents.spawn", {"profile": "p"}), ("agents.interrupt", {"target": "a"})
        assert 7190 < (await peer.call(1, *spawn))[2]["left_s"] <= 7200
        assert 30 < (await peer.call(2, *spawn, {"deadline_ms": 40_000}))[2]["left_s"] <= 40
        assert 10 < (await peer.call(3, *other, {"deadline_ms": 20_000}))[2]["left_s"] <= 20
        assert 20 < (await peer.call(4, *other, {"deadline_ms": 40_000}))[2]["left_s"] <= 30
        assert (await peer.call(5, *other))[2]["left_s"] == math.inf  # the door looks after it, without a timer


@pytest.mark.anyio
async def test_a_stream_has_no_most_time_but_the_one_its_client_gives(path, connect_raw):
    async with (
        serving(path, call_s=0.1, wait_s=0.1, long_s=0.1, frame_timeout_s=0.4) as served,
        connect_raw(path) as peer,
    ):
        await peer.send([1, 1, "events.follow", {}, {"credit": 0}])
        await peer.send([1, 2, "events.follow", {}, {"credit": 0, "deadline_ms": 250}])
        assert (await peer.call(3, FOR_EVER, CAPTURE))[:3] == [3, 3, "deadline"]
        assert (await peer.read())[:3] == [3, 2, "deadline"]
        assert served.door.counters.in_flight == 1


@pytest.mark.anyio
async def test_hello_says_how_long_one_call_may_wait(path, connect_raw):
    async with serving(path, wait_s=7.0), connect_raw(path, hello=False) as peer:
        assert (await peer.hello())["limits"]["wait_s"] == 7.0


@pytest.mark.anyio
async def test_over_the_most_in_flight_of_all_a_call_is_refused_and_short_ones_are_answered(path, connect_raw):
    async with (
        serving(path, max_in_flight_total=16) as served,
        connect_raw(path) as peer,
        connect_raw(path) as other,
    ):
        for line in (peer, other):
            await line.send(*([1, n, "agents.wait", WAIT] for n in range(1, 8)), [1, 8, "events.follow", {}])
        await eventually(lambda: served.door.counters.in_flight == 16)
        async with connect_raw(path) as third:
            for call_id, (method, params) in enumerate(
                [(FOR_EVER, CAPTURE), ("events.follow", {}), ("messages.wait", {"id": "m1", "until": "acked"})], 1
            ):
                _, _, code, message, data = await third.call(call_id, method, params)
                assert (code, data["retryable"]) == ("busy", True)
                assert data["retry_after_ms"] > 0
                assert "16 calls in flight" in message
            assert (await third.call(4, "daemon.status"))[0] == 2
            assert served.door.counters.in_flight == 16
            await peer.send([6, 1])
            await eventually(lambda: served.door.counters.in_flight == 15)
            await third.send([1, 5, "agents.wait", {"target": "ready", "until": "idle"}])
            assert (await third.read())[:2] == [2, 5]


@pytest.mark.anyio
async def test_agents_leave_some_of_it_to_the_operator(path, connect_raw):
    roles = [Role.AGENT, Role.OPERATOR]

    def in_turn(peer, _token):
        role = roles.pop(0)
        return Caller(role, "a1" if role is Role.AGENT else "", "ann", peer.pid, peer.uid)

    async with (
        serving(path, in_turn, max_in_flight_total=32) as served,
        connect_raw(path) as agent,
        connect_raw(path) as operator,
    ):
        kept = 32 // KEPT_PART
        await agent.send(*([1, n, "agents.wait", WAIT] for n in range(1, 33)))
        assert {(await agent.read())[2] for _ in range(kept)} == {"busy"}
        await operator.send(*([1, n, FOR_EVER, CAPTURE] for n in range(1, kept + 1)))
        await eventually(lambda: served.door.counters.in_flight == 32)
        assert (await operator.call(99, FOR_EVER, CAPTURE))[:3] == [3, 99, "busy"]
