"""The door's protocol and limits, over real sockets, frame by frame."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import anyio
import pytest
from bombs import REFUSED
from serving import eventually, serving

from agentd.errors import Denied
from agentd.records import Caller, Role
from agentd.wire.calls import CALLS

pytestmark = pytest.mark.anyio


async def test_hello_and_call_in_one_write(path, connect_raw):
    async with serving(path) as served, connect_raw(path, hello=False) as peer:
        await peer.send([0, {"v": [1], "client": "t"}], [1, 7, "daemon.status", {}])
        kind, hello = await peer.read()
        assert (kind, hello["v"], hello["server"]) == (0, 1, "test")
        assert hello["limits"]["max_frame_bytes"] == 1024 * 1024
        assert await peer.read() == [2, 7, {"version": "test", "pid": os.getpid()}]
        assert served.answers.contexts[0].peer_pid == os.getpid()
    assert served.connections[0] == 1


async def test_bytes_one_at_a_time(path, connect_raw, frame):
    async with serving(path), connect_raw(path) as peer:
        for byte in frame([1, 1, "daemon.status", {}]):
            await peer.stream.send(bytes([byte]))
        assert (await peer.read())[:2] == [2, 1]


async def test_a_call_before_hello_is_unauthenticated(path, connect_raw):
    async with serving(path) as served, connect_raw(path, hello=False) as peer:
        await peer.send([1, 7, "daemon.status", {}])
        assert (await peer.read())[:3] == [3, 0, "unauthenticated"]
        assert await peer.is_closed()
        assert not served.answers.callers


async def test_another_version_is_told_both_ranges(path, connect_raw):
    async with serving(path), connect_raw(path, hello=False) as peer:
        await peer.send([0, {"v": [7, 8], "client": "from the future", "unknown": 1}])
        _, call_id, code, message, _ = await peer.read()
        assert (call_id, code) == (0, "version")
        assert "[1]" in message
        assert "[7, 8]" in message
        assert await peer.is_closed()


async def test_records_and_unknown_fields(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        _, _, receipt = await peer.call(1, "messages.send", {"to": "a", "body": "hi"})
        assert receipt == {"id": "m1", "to": "a", "state": "accepted", "duplicate": False, "line": None, "receipts": []}
        _, _, code, message, _ = await peer.call(2, "messages.send", {"to": "a", "body": "hi", "priorty": "low"})
        assert code == "invalid"
        assert "`priorty`" in message


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"to": "a", "body": "x", "priority": "urgent"}, "$.priority"),
        ({"to": "a", "body": 5}, "$.body"),
        ({"to": "a", "body": "x", "headers": {"k": 1}}, "$.headers[...]"),
        ({"to": "a"}, "$"),
        ([], "$"),
        (None, "$"),
    ],
)
async def test_malformed_parameters_keep_the_connection(path, connect_raw, params, field):
    async with serving(path), connect_raw(path) as peer:
        await peer.send([1, 1, "messages.send", params])
        _, call_id, code, _, data = await peer.read()
        assert (call_id, code, data["field"], data["retryable"]) == (1, "invalid", field, False)
        assert (await peer.call(2, "daemon.status"))[0] == 2


@pytest.mark.parametrize("options", [{"deadline_ms": "soon"}, {"credit": -1}, [1]])
async def test_malformed_options_keep_the_connection(path, connect_raw, options):
    async with serving(path), connect_raw(path) as peer:
        assert (await peer.call(1, "daemon.status", {}, options))[:3] == [3, 1, "invalid"]
        assert (await peer.call(2, "daemon.status"))[0] == 2


async def test_unknown_method_our_error_and_our_fault(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        assert (await peer.call(1, "agents.dance"))[:3] == [3, 1, "unknown_method"]
        _, _, code, message, data = await peer.call(2, "teams.get", {"team": "red"})
        assert (code, message, data["hint"]) == ("not_found", "no team red", "`agentd team ls` lists them")
        _, _, code, message, _ = await peer.call(3, "teams.list")
        assert code == "internal"
        assert message == "agentd failed: RuntimeError: no answer for teams.list; see the daemon's log"
        _, _, code, message, _ = await peer.call(4, "agents.wait", {"target": "broken", "until": "idle"})
        assert (code, "ZeroDivisionError" in message) == ("internal", True)
        assert served.log.events() == ["rpc.call_failed"] * 2
        assert (await peer.call(5, "daemon.status"))[0] == 2


async def test_what_an_agent_may_call_is_the_tables_word(path, connect_raw):
    def as_agent(peer, _token):
        return Caller(Role.AGENT, "a1", "ann", peer.pid, peer.uid)

    async with serving(path, as_agent) as served, connect_raw(path) as peer:
        refused = set()
        for call_id, name in enumerate(CALLS, 1):
            _, _, code, *_ = await peer.call(call_id, name, {"nonsense": 1})
            assert code in ("denied", "invalid")
            if code == "denied":
                refused.add(name)
        assert refused == {name for name, call in CALLS.items() if not call.agent_may}
        assert not served.answers.callers


async def test_schema_describes_the_table(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        _, _, table = await peer.call(1, "schema")
        assert table["calls"].keys() == CALLS.keys()


async def test_a_batch_answers_in_order(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        wait = ["agents.wait", {"target": "ready", "until": "idle"}]
        calls = [["daemon.status", {}], wait, ["nope", {}], ["events.follow", {}], ["rpc.batch", []], "?"]
        kind, call_id, outcomes = await peer.call(9, "rpc.batch", calls)
        assert (kind, call_id) == (2, 9)
        assert outcomes[0][1]["version"] == "test"
        assert outcomes[1] == [0, {"agent": {"name": "ready"}}]
        assert [outcome[0] for outcome in outcomes] == [0, 0, "unknown_method", "invalid", "invalid", "invalid"]
        assert (await peer.call(10, "rpc.batch", {"calls": []}))[2] == "invalid"


async def test_ten_thousand_pipelined_calls_keep_their_order(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        count = 10_000
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.send, *([1, n, "daemon.status", {}] for n in range(1, count + 1)))
            assert [(await peer.read())[1] for _ in range(count)] == list(range(1, count + 1))
        assert served.door.counters.calls == count


async def test_ping(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        await peer.send([8, {"any": ["thing"]}])
        assert await peer.read() == [9, {"any": ["thing"]}]


async def test_cancel_ends_a_call_and_is_idempotent(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "agents.wait", {"target": "a", "until": "idle"}])
        await served.answers.until(begun=1)
        await peer.send([6, 1], [6, 1], [6, 99])
        assert (await peer.read())[:3] == [3, 1, "cancelled"]
        await peer.send([6, 1])
        assert (await peer.call(2, "daemon.status"))[:2] == [2, 2]
        assert served.answers.ended == 1
        assert served.door.counters.in_flight == 0


async def test_a_call_cancelled_before_it_began(path, connect_raw):
    async with serving(path), connect_raw(path) as peer:
        await peer.send([1, 1, "agents.wait", {"target": "a", "until": "idle"}], [6, 1])
        assert (await peer.read())[:3] == [3, 1, "cancelled"]


async def test_a_deadline_ends_a_call(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        params = {"target": "a", "until": "idle"}
        _, call_id, code, _, data = await peer.call(1, "agents.wait", params, {"deadline_ms": 30})
        assert (call_id, code, data["retryable"]) == (1, "deadline", True)
        assert served.answers.contexts[-1].deadline_s == pytest.approx(0.03)
        assert (await peer.call(2, "agents.wait", params, {"deadline_ms": 0}))[2] == "deadline"


async def test_a_key_among_the_options_is_a_parameter(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.call(1, "messages.send", {"to": "a", "body": "x"}, {"key": "k1"})
        assert served.answers.sent[0].key == "k1"
        assert (await peer.call(2, "daemon.status", {}, {"key": "k1"}))[2] == "invalid"


async def test_a_client_that_vanishes_cancels_what_it_waits_for(path, connect_raw):
    async with serving(path) as served:
        async with connect_raw(path) as peer:
            await peer.send([1, 1, "agents.wait", {"target": "a", "until": "idle"}], [1, 2, "events.follow", {}])
            await served.answers.until(begun=2)
        await served.answers.until(ended=2)
        assert served.connections[-1] == 0


@pytest.mark.parametrize("together", [0, 1, 2, 4])
async def test_a_stream_sends_as_much_as_it_has_credit(path, connect_raw, together):
    async with serving(path) as served, connect_raw(path) as peer:
        served.answers.together = together
        await peer.send([1, 1, "events.follow", {"types": ["7"]}, {"credit": 3}])
        assert [(await peer.read())[:3] for _ in range(3)] == [[4, 1, 1], [4, 1, 2], [4, 1, 3]]
        assert (await peer.call(2, "daemon.status"))[:2] == [2, 2]
        assert served.answers.produced == {0: 3, 1: 3, 2: 4, 4: 4}[together]
        await peer.send([5, 1, 2])
        assert [(await peer.read())[2] for _ in range(2)] == [4, 5]
        await peer.send([5, 1, 100])
        assert [(await peer.read())[2] for _ in range(2)] == [6, 7]
        assert await peer.read() == [2, 1, {"items": 7}]


async def test_items_that_are_there_at_once_keep_their_order(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer:
        served.answers.together = 200
        await peer.send([1, 1, "events.follow", {"types": ["500"]}, {"credit": 1000}])
        got = [await peer.read() for _ in range(501)]
        assert [(seq, item["id"]) for _, _, seq, item in got[:-1]] == [(n, n) for n in range(1, 501)]
        assert got[-1] == [2, 1, {"items": 500}]


async def test_an_endless_stream_leaves_room_for_others_and_can_be_cancelled(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer, connect_raw(path) as other:
        await peer.send([1, 1, "events.follow", {}, {"credit": 1_000_000}])
        assert (await other.call(1, "daemon.status"))[0] == 2
        await peer.send([6, 1])
        while (await peer.read())[0] == 4:
            pass
        await served.answers.until(ended=1)


async def test_too_many_calls_in_flight_pause_reading(path, connect_raw):
    async with serving(path, max_in_flight=4) as served, connect_raw(path) as peer:
        wait = {"target": "a", "until": "idle"}
        await peer.send(*([1, n, "agents.wait", wait] for n in range(1, 5)), [1, 9, "daemon.status", {}])
        await served.answers.until(begun=4)
        async with connect_raw(path) as other:  # others are served meanwhile
            assert (await other.call(1, "daemon.status"))[0] == 2
        assert len(served.answers.callers) == 5  # four waits and the other's
        next(iter(served.door._shared.connections)).cancel_all(Denied("by the test"))
        assert {(await peer.read())[1] for _ in range(5)} == {1, 2, 3, 4, 9}


async def test_a_peer_that_dies_while_it_is_not_read_is_noticed(path, silent, frame):
    async with serving(path, max_in_flight=2, frame_timeout_s=0.4) as served:
        sock = await anyio.to_thread.run_sync(silent)
        wait = {"target": "a", "until": "idle"}
        sock.sendall(frame([0, {"v": [1]}]) + b"".join(frame([1, n, "agents.wait", wait]) for n in (1, 2)))
        await served.answers.until(begun=2)
        sock.close()
        await served.answers.until(ended=2)


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x02\x91\x63", b"\x00\x00\x00\x03\x92\x08\xc1"],
)
async def test_bad_framing_is_told_and_closed_at_once(path, connect_raw, garbage, frame):
    async with serving(path) as served, connect_raw(path) as peer:
        await peer.stream.send(frame([1, 1, "daemon.status", {}]) + garbage + frame([1, 2, "daemon.status", {}]))
        assert (await peer.read())[:2] == [2, 1]
        assert (await peer.read())[:3] == [3, 0, "invalid"]
        assert await peer.is_closed()
        assert served.door.counters.protocol_errors == 1


async def test_less_than_no_credit_is_no_frame_and_holds_nobody_up(path, connect_raw):
    async with serving(path) as served, connect_raw(path) as peer, connect_raw(path) as other:
        await peer.send([1, 1, "events.follow", {"types": ["7"]}, {"credit": 0}], [5, 1, -1])
        assert (await peer.read())[:3] == [3, 0, "invalid"]
        assert await peer.is_closed()
        await eventually(lambda: served.door.counters.in_flight == 0)
        assert (await other.call(1, "daemon.status"))[0] == 2


async def test_a_bomb_is_gone_with_its_connection(path, connect_raw):
    """R11: also while nothing collects what hangs together in a circle."""
    async with serving(path) as served:
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            for _ in range(4):
                async with connect_raw(path) as peer:
                    await peer.stream.send(REFUSED["1 MB of arrays of one"])
                    assert await peer.is_closed()
            await eventually(lambda: served.door.counters.connections == 0)
            assert tracemalloc.get_traced_memory()[0] < 1_000_000
        finally:
            tracemalloc.stop()
            gc.enable()


@pytest.mark.parametrize("body", [[2, 1, {}], [0, {"v": [1]}], [1, 0, "daemon.status", {}]])
async def test_frames_that_a_client_does_not_send(path, connect_raw, body):
    async with serving(path), connect_raw(path) as peer:
        await peer.send(body)
        assert (await peer.read())[:2] == [3, 0]
        assert await peer.is_closed()


async def test_half_a_frame_is_closed_after_its_time_and_an_idle_connection_is_not(path, connect_raw, frame):
    async with serving(path, frame_timeout_s=0.2) as served, connect_raw(path) as idle, connect_raw(path) as peer:
        await peer.stream.send(frame([1, 1, "daemon.status", {}])[:-1])
        assert (await peer.read())[:3] == [3, 0, "deadline"]
        assert await peer.is_closed()
        assert (await idle.call(1, "daemon.status"))[0] == 2
        assert served.door.counters.timeouts == 1


async def test_a_crowd_that_does_not_say_hello_is_thinned_and_others_are_served(path, silent, connect_raw):
    async with serving(path, frame_timeout_s=0.4) as served:
        for _ in range(60):
            silent()
        await eventually(lambda: served.door.counters.accepted == 60)
        await eventually(lambda: served.door.counters.connections == 32)
        async with connect_raw(path) as peer:
            assert (await peer.call(1, "daemon.status"))[0] == 2


async def test_too_many_connections_are_told(path, connect_raw):
    async with serving(path, max_connections=16) as served, anyio.create_task_group() as tasks:
        held = anyio.Event()

        async def hold():
            async with connect_raw(path):
                await held.wait()

        for _ in range(16):
            tasks.start_soon(hold)
        await eventually(lambda: served.door.counters.connections == 16)
        async with connect_raw(path, hello=False) as late:
            assert (await late.read())[:3] == [3, 0, "busy"]
            assert await late.is_closed()
        held.set()


async def test_a_reader_that_stops_reading_is_cut_and_only_that_one(path, connect_raw, silent, frame):
    async with serving(path, max_output_bytes=262_144) as served, connect_raw(path) as other:
        served.answers.payload = b"x" * 100_000
        sock = silent()
        follow = [[1, n, "events.follow", {}, {"credit": 100}] for n in range(1, 41)]
        sock.sendall(frame([0, {"v": [1]}]) + b"".join(map(frame, follow)))
        with anyio.fail_after(10):
            while not served.door.counters.slow_consumers:
                assert (await other.call(1, "daemon.status"))[0] == 2
        await eventually(lambda: served.door.counters.in_flight == 0)
        assert served.answers.begun == served.answers.ended
        assert served.answers.produced <= 40 * 3  # held by the mark, not by memory
        assert "rpc.slow_consumer" in served.log.events()
        assert (await other.call(2, "daemon.status"))[0] == 2


async def test_drain_says_goaway_lets_calls_end_and_removes_the_socket(path, connect_raw):
    async with serving(path, drain_s=0.3) as served, connect_raw(path) as peer:
        wait = {"target": "a", "until": "idle"}
        await peer.send([1, 1, "agents.wait", wait], [1, 2, "events.follow", {}, {"credit": 0}])
        await served.answers.until(begun=1)
        await served.door.drain("agentd is stopping")
        assert await peer.read() == [7, "goaway", {"reason": "agentd is stopping"}]
        assert (await peer.read())[:3] == [3, 2, "unavailable"]
        assert (await peer.read())[:3] == [3, 1, "unavailable"]
        assert await peer.is_closed()
        assert not os.path.exists(path)


async def test_no_call_begins_while_draining(path, connect_raw):
    async with serving(path, drain_s=5.0) as served, connect_raw(path) as peer:
        await peer.send([1, 1, "agents.wait", {"target": "a", "until": "idle"}])
        await served.answers.until(begun=1)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(served.door.drain)
            assert (await peer.read())[0] == 7
            assert (await peer.call(2, "daemon.status"))[2] == "unavailable"
            await peer.send([6, 1])  # the last call in flight: then the door need not wait longer
            assert (await peer.read())[:3] == [3, 1, "cancelled"]


async def test_an_answer_larger_than_the_client_takes(path, connect_raw):
    async with serving(path), connect_raw(path, hello=False) as peer:
        await peer.hello(max_frame=40)
        assert (await peer.call(1, "schema"))[2] == "over_limit"


@pytest.mark.skipif(
    os.getuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv to be somebody else"
)
async def test_another_uid_is_denied_before_hello_is_read(path, tmp_path):
    script = "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(4096)[4:])"

    def as_nobody(where: str) -> subprocess.CompletedProcess[str]:
        become = ["setpriv", "--reuid=65534", "--clear-groups"]
        argv = [*become, sys.executable, "-IS", "-c", script, where]
        return subprocess.run(argv, capture_output=True, text=True, check=False)

    async with serving(path) as served:
        shut = await anyio.to_thread.run_sync(as_nobody, path)
        assert "PermissionError" in shut.stderr
        assert not served.connections
        os.chmod(path, 0o666)
        for directory in (tmp_path, *tmp_path.parents):
            if directory != Path(tempfile.gettempdir()) and directory.is_relative_to(tempfile.gettempdir()):
                os.chmod(directory, 0o755)
        let_in = await anyio.to_thread.run_sync(as_nobody, path)
        assert "denied" in let_in.stdout, let_in.stderr
        assert served.log.lines[0][0] == "rpc.refused"
        assert served.log.lines[0][1]["uid"] == 65534


async def test_identity_that_is_refused_closes(path, connect_raw):
    def refuse(_peer, _token):
        raise Denied("not with this token")

    async with serving(path, refuse) as served, connect_raw(path, hello=False) as peer:
        await peer.send([0, {"v": [1], "token": "t"}], [1, 1, "daemon.status", {}])
        assert (await peer.read())[:4] == [3, 0, "denied", "not with this token"]
        assert await peer.is_closed()
        assert served.door.counters.denied == 1


async def test_a_flood_on_one_connection_leaves_another_quick(path, connect_raw, frame):
    async with serving(path) as served, connect_raw(path) as flood, connect_raw(path) as other:
        data = b"".join(frame([1, n, "daemon.status", {}]) for n in range(1, 20_001))

        async def drink():
            for _ in range(20_000):
                await flood.read()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flood.stream.send, data)
            tasks.start_soon(drink)
            began, calls = time.perf_counter(), 0
            while served.door.counters.calls < 20_000:
                calls += 1
                assert (await other.call(calls, "daemon.status"))[0] == 2
            assert calls > 20  # it was served all along
            assert (time.perf_counter() - began) / calls < 1.0
