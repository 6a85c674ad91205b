"""The access log and the rates: what is refused, what only the operator may do, who is cut off (R01, R03, R15, S09)."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import anyio
import pytest
from serving import Served, eventually, serving

from agentd.config import RpcConfig
from agentd.doors.access import FILE_BYTES, AccessLog
from agentd.doors.peers import Peer
from agentd.doors.rates import BURST_S, Rates
from agentd.errors import Denied, NotFound, RateLimit
from agentd.records import Caller, Role
from agentd.wire.calls import CALLS, RECORDED

pytestmark = pytest.mark.anyio
ANN = Caller(Role.AGENT, "a1", "ann", 7, 8)
FORGED = 'x\n{"level":"error","what":"done"}\r\n'


def as_ann(peer: Peer, _token: str | None) -> Caller:
    return Caller(Role.AGENT, "a1", "ann", peer.pid, peer.uid)


def lines(served: Served, what: str) -> list[dict[str, Any]]:
    return [line for line in served.accesses() if line["what"] == what]


def test_what_is_recorded_is_what_the_operator_alone_may_change():
    assert {"daemon.shutdown", "agents.keys", "agents.stop", "agents.spawn", "messages.drop"} <= RECORDED
    assert not {"messages.send", "agents.list", "events.follow", "agents.report"} & RECORDED
    assert RECORDED.isdisjoint(name for name, call in CALLS.items() if call.stream)


async def test_a_refused_call_is_written_down_and_an_allowed_one_is_not(path, connect_raw):
    async with serving(path, as_ann) as served, connect_raw(path) as peer:
        assert (await peer.call(1, "daemon.status"))[0] == 2
        assert not served.accesses()
        assert (await peer.call(2, "agents.keys", {"target": "bob", "keys": ["s3cret"]}))[2] == "denied"
        [line] = served.accesses()
        assert (line["what"], line["by"], line["name"], line["method"]) == ("refused", "a1", "ann", "agents.keys")
        assert (line["code"], line["pid"], line["uid"], line["count"]) == ("denied", os.getpid(), os.getuid(), 1)
        assert served.emitted[0][0] == "call.refused"


async def test_a_refusal_inside_a_batch_and_through_a_tool_is_written_down(path, connect_raw):
    async with serving(path, as_ann) as served, connect_raw(path) as peer:
        await peer.call(1, "rpc.batch", [["agents.stop", {"targets": ["bob"]}]])
        assert [line["method"] for line in lines(served, "refused")] == ["agents.stop"]
    async with serving(path, as_ann) as served, connect_raw(path) as peer:
        made = await peer.call(1, "mcp.call", {"name": "spawn", "arguments": {"profile": "shell"}})
        assert made[0] == 2
        assert [line["method"] for line in lines(served, "refused")[-1:]] == ["agents.spawn"]


async def test_the_operators_own_calls_are_written_down_with_their_end_and_without_secrets(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        served.answers.agents_spawn = lambda _params: {"agents": []}

        async def stop(params: Any) -> Any:
            await anyio.sleep(0)
            raise NotFound(f"no {params.targets[0]}")

        served.answers.agents_stop = stop
        secret = {"profile": "shell", "n": 2, "env": {"KEY": "s3cret"}, "prompt": "s3cret"}
        assert (await peer.call(1, "agents.spawn", secret))[0] == 2
        assert (await peer.call(2, "agents.stop", {"targets": ["bob"]}))[2] == "not_found"
        assert (await peer.call(3, "messages.send", {"to": "a", "body": "s3cret"}))[0] == 2
        spawned, stopped = lines(served, "done")
        assert (spawned["method"], spawned["profile"], spawned["n"], "code" in spawned) == (
            "agents.spawn",
            "shell",
            2,
            False,
        )
        assert (stopped["method"], stopped["targets"], stopped["code"]) == ("agents.stop", ["bob"], "not_found")
        assert stopped["by"] == "operator"
        with open(served.access_file) as file:
            assert "s3cret" not in file.read()


async def test_a_recorded_call_that_is_cancelled_stands_there_as_that(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        served.answers.agents_stop = served.answers.agents_capture  # takes for ever
        await peer.send([1, 1, "agents.stop", {"targets": ["bob"]}])
        await served.answers.until(begun=1)
        await peer.send([6, 1])
        assert (await peer.read())[2] == "cancelled"
        assert [line["code"] for line in lines(served, "done")] == ["cancelled"]


async def test_who_is_turned_away_or_cut_off_is_written_down(path, connect_raw, frame):
    def refuse(_peer: Peer, _token: str | None) -> Caller:
        raise Denied("not with this token")

    async with serving(path, refuse) as served, connect_raw(path, hello=False) as peer:
        await peer.send([0, {"v": [1], "token": "t0ken"}])
        assert await peer.is_closed()
        [line] = served.accesses()
        assert (line["what"], line["code"], line["by"], line["uid"]) == ("closed", "denied", None, os.getuid())
    async with serving(path, frame_timeout_s=0.2) as served:
        async with connect_raw(path) as peer:
            await peer.stream.send(b"\xff\xff\xff\xff")
            assert await peer.is_closed()
        async with connect_raw(path) as peer:
            await peer.stream.send(frame([1, 1, "daemon.status", {}])[:-1])
            assert await peer.is_closed()
        assert [line["code"] for line in served.accesses()][-2:] == ["protocol_error", "timed_out"]
        assert [type_ for type_, _ in served.emitted] == ["peer.closed"] * 2


async def test_a_slow_reader_is_written_down_with_the_reason(path, silent, frame):
    async with serving(path, max_output_bytes=262_144) as served:
        served.answers.payload = b"x" * 100_000
        follow = [[1, n, "events.follow", {}, {"credit": 100}] for n in range(1, 41)]
        sock = await anyio.to_thread.run_sync(silent)
        sock.sendall(frame([0, {"v": [1]}]) + b"".join(map(frame, follow)))
        await eventually(lambda: served.door.counters.slow_consumers == 1)
        [line] = served.accesses()
        assert (line["code"], line["by"]) == ("slow_consumer", "operator")
        assert "bytes were not read" in line["reason"]


# -- the file itself


def read(path: str) -> list[dict[str, Any]]:
    with open(path) as file:
        return [json.loads(line) for line in file]


def test_no_text_of_a_caller_can_forge_a_line(tmp_path):
    path = str(tmp_path / "access.jsonl")
    with AccessLog.open(path, lambda *_a, **_k: None, None) as access:
        access.refused(Caller(Role.AGENT, "a1", FORGED), FORGED * 100, Denied(FORGED))
        access.closed(Peer(1, 2), None, "invalid", FORGED)
        params = type("Params", (), {"target": FORGED, "targets": [FORGED] * 1000})()
        access.done(Caller(Role.OPERATOR), "agents.stop", params, None)
    found = read(path)
    assert [line["what"] for line in found] == ["refused", "closed", "done"]
    assert len(found[2]["targets"]) == 20
    assert os.path.getsize(path) < 10_000


def test_who_asks_all_the_time_costs_a_line_a_second_and_none_is_uncounted(tmp_path):
    path, now, emitted = str(tmp_path / "access.jsonl"), [100.0], []
    access = AccessLog(path, lambda type_, **data: emitted.append(data["count"]), None, lambda: now[0])
    for _ in range(5000):
        access.refused(ANN, "agents.stop", Denied("no"))
        now[0] += 0.001
    access.refused(Caller(Role.AGENT, "b2", "bob"), "agents.stop", Denied("no"))
    access.close()
    counts = [(line["by"], line["count"]) for line in read(path)]
    assert len(counts) <= 8
    assert sum(count for by, count in counts if by == "a1") == 5000
    assert ("b2", 1) in counts
    assert len(emitted) <= 7


def test_other_errors_are_nobodys_business(tmp_path):
    path = str(tmp_path / "access.jsonl")
    with AccessLog.open(path, lambda *_a, **_k: None, None) as access:
        access.refused(ANN, "messages.get", NotFound("no such message"))
    assert not read(path)


def test_the_file_is_private_and_bounded(tmp_path):
    path = str(tmp_path / "access.jsonl")
    with AccessLog.open(path, lambda *_a, **_k: None, None) as access:
        os.truncate(path, FILE_BYTES - 10)
        access.done(ANN, "agents.stop", None, None)
        access.done(ANN, "agents.keys", None, None)
    assert [line["method"] for line in read(path)] == ["agents.stop", "agents.keys"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.path.getsize(path + ".1") == FILE_BYTES - 10


# -- rates


def test_calls_beyond_the_rate_are_refused_with_the_time_to_wait():
    now = [50.0]
    rates = Rates(RpcConfig(agent_calls_per_s=10), lambda: now[0])
    for _ in range(int(10 * BURST_S)):
        rates.spend(ANN)
    with pytest.raises(RateLimit) as caught:
        rates.spend(ANN)
    assert caught.value.retry_after_ms == 100
    rates.spend(Caller(Role.AGENT, "b2", "bob"))  # another identity has its own
    rates.spend(Caller(Role.OPERATOR))  # and the operator no limit
    now[0] += 0.1
    rates.spend(ANN)
    with pytest.raises(RateLimit):
        rates.spend(ANN)
    now[0] += 3600
    for _ in range(10):
        rates.spend(ANN)
    with pytest.raises(RateLimit):
        rates.spend(ANN)


def test_the_slowest_rate_lets_one_call_through():
    now = [0.0]
    rates = Rates(RpcConfig(operator_calls_per_s=0.1), lambda: now[0])
    rates.spend(Caller(Role.OPERATOR))
    with pytest.raises(RateLimit) as caught:
        rates.spend(Caller(Role.OPERATOR))
    assert caught.value.retry_after_ms == 10_000


async def test_an_agents_flood_is_refused_typed_on_all_its_connections_and_others_are_quick(path, connect_raw, frame):
    """R15."""

    def by_token(peer: Peer, token: str | None) -> Caller:
        return as_ann(peer, None) if token else Caller(Role.OPERATOR, pid=peer.pid, uid=peer.uid)

    count = 20_000
    async with serving(path, by_token, agent_calls_per_s=100) as served, connect_raw(path) as other:
        async with connect_raw(path, hello=False) as flood, connect_raw(path, hello=False) as second:
            await flood.hello(token="t")
            await second.hello(token="t")
            data = b"".join(frame([1, n, "daemon.status", {}]) for n in range(1, count + 1))
            seen: list[Any] = []

            async def drink() -> None:
                while len(seen) < count:
                    seen.append(await flood.read())

            slowest_s = 0.0
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(flood.stream.send, data)
                tasks.start_soon(drink)
                while len(seen) < count:
                    began = time.perf_counter()
                    assert (await other.call(1, "daemon.status"))[0] == 2
                    slowest_s = max(slowest_s, time.perf_counter() - began)
            refused = [reply for reply in seen if reply[0] == 3]
            assert {reply[2] for reply in refused} == {"rate_limit"}
            assert all(reply[4]["retryable"] and reply[4]["retry_after_ms"] > 0 for reply in refused)
            assert 100 <= count - len(refused) < count / 10
            await second.send(*([1, n, "daemon.status", {}] for n in range(1, 51)))
            kinds = [(await second.read())[0] for _ in range(50)]
            assert 3 in kinds  # the identity is counted, not the connection: a new one would have a hundred
            assert slowest_s < 2.0  # 100 ms on an idle machine
        assert sum(line["count"] for line in lines(served, "refused")) > 0
