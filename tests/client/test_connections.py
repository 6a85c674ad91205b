"""The connections that the threads of a program share, against a real door and against servers that break."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from socket import AF_UNIX, socket

import pytest
from instance import wait_until
from scripted_server import Script, answer_with, break_off
from serving import LIMIT_S, in_thread, serving_in_thread

from agentd.client import connect
from agentd.connections import connected
from agentd.errors import AgentdError, Busy, Conflict, DeadlineExceeded, Unavailable
from agentd.wire.frames import FrameReader, encode


def until(condition, what: str) -> None:
    wait_until(condition, what, LIMIT_S)


def descriptors() -> int:
    """Return how many files and sockets this process has open."""
    return len(os.listdir("/dev/fd"))


def test_fifty_threads_share_eight_connections_and_nothing_is_mixed_up(served):
    served.answers.teams_get = lambda params: {"name": params.team}
    with connect(served.path, environ={}, connections=8) as client:

        def asks(number: int) -> None:
            for round_ in range(20):
                assert client.teams_get(team=f"t-{number}-{round_}") == {"name": f"t-{number}-{round_}"}

        with ThreadPoolExecutor(50) as threads:
            list(threads.map(asks, range(50)))
    assert served.door.counters.calls == 1000
    assert 1 <= served.door.counters.accepted <= 8


def test_connections_are_made_when_they_are_needed(served):
    with connect(served.path, environ={}) as client:
        for _ in range(20):
            client.daemon_status()
    assert served.door.counters.accepted == 1


def wait_for_ever(client, errors: list[AgentdError]) -> None:
    try:
        client.agents_wait(target="a", until="idle", timeout_s=60)
    except AgentdError as error:
        errors.append(error)


def test_who_gets_no_connection_in_its_time_is_told_and_nothing_is_sent(served):
    errors: list[AgentdError] = []
    client = connect(served.path, environ={}, connections=2)
    waiting = [threading.Thread(target=wait_for_ever, args=(client, errors)) for _ in range(2)]
    for thread in waiting:
        thread.start()
    until(lambda: served.answers.begun == 2, "two calls")
    with pytest.raises(Busy, match=r"all 2 connections of this client were in use") as caught:
        client.call("daemon.status", timeout_s=0.05)
    assert caught.value.retryable
    assert len(served.answers.callers) == 2
    client.close()
    for thread in waiting:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert [error.code for error in errors] == ["conflict"] * 2


def test_whoever_waits_longest_is_next(served):
    order: list[int] = []
    gate = threading.Event()
    served.answers.teams_get = lambda params: (gate.wait(LIMIT_S), order.append(int(params.team[1:])), {})[2]
    with connect(served.path, environ={}, connections=1) as client:
        own = client._connections._own()
        threads = []
        for number in range(6):
            threads.append(threading.Thread(target=client.teams_get, kwargs={"team": f"t{number}"}))
            threads[-1].start()
            until(lambda number=number: len(own._turns) == number if number else own._lent == 1, "its turn")
        gate.set()
        for thread in threads:
            thread.join(LIMIT_S)
    assert order == list(range(6))


def test_streams_are_beside_the_connections_for_calls_and_give_theirs_back(served):
    with connect(served.path, environ={}, connections=1) as client:
        streams = [client.stream("events.follow", credit=4) for _ in range(3)]
        assert [next(stream)["id"] for stream in streams] == [1, 1, 1]
        assert client.daemon_status()["version"] == "test"
        assert served.door.counters.accepted == 4  # one for each stream and one for calls
        for stream in streams:
            stream.close()
        until(lambda: served.answers.ended == 3 and served.door.counters.connections == 1, "the end of all but one")
        for _ in range(3):
            assert [event["id"] for event in client.events_follow(types=["500"])] == list(range(1, 501))
        assert served.door.counters.accepted == 4
    until(lambda: served.door.counters.connections == 0, "the end of all connections")


def test_closing_ends_calls_and_streams_of_other_threads_and_leaves_no_descriptor(served):
    before = descriptors()
    client = connect(served.path, environ={})
    errors: list[AgentdError] = []

    def follow() -> None:
        try:
            for _ in client.stream("messages.follow"):
                pass
        except AgentdError as error:
            errors.append(error)

    async def silence(_params):
        served.answers.begun += 1
        await served.answers.until(begun=-1)
        yield {}

    served.answers.messages_follow = silence
    threads = [threading.Thread(target=wait_for_ever, args=(client, errors)) for _ in range(3)]
    threads.append(threading.Thread(target=follow))
    for thread in threads:
        thread.start()
    until(lambda: served.answers.begun == 4, "four calls")
    client.close()
    for thread in threads:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    assert len(errors) == 4
    with pytest.raises(Conflict, match="this client was closed"):
        client.daemon_status()
    with pytest.raises(Conflict, match="this client was closed"):
        next(client.events_follow())
    until(lambda: served.door.counters.connections == 0, "the end of all connections")
    until(lambda: descriptors() == before, "the end of their descriptors")


def answer_the_first_when_the_second_comes(script, connection):
    """Answer too late, as a daemon does that did not see the cancellation in time."""
    reader, calls = FrameReader(), []
    while len(calls) < 2:
        calls += [frame for frame in reader.feed(connection.recv(65_536)) if frame[0] == 1]
    connection.sendall(b"".join(encode([2, call[1], {"asked": call[3]["target"]}]) for call in calls))
    connection.recv(65_536)


def test_a_late_answer_is_not_the_next_callers(path):
    script = Script(path, answer_the_first_when_the_second_comes)
    with in_thread(script.run), connect(path, environ={}, connections=1) as client:
        with pytest.raises(DeadlineExceeded):
            client.call("agents.get", target="a", timeout_s=0.1)
        assert client.call("agents.get", target="b") == {"asked": "b"}


def test_a_call_that_is_interrupted_is_withdrawn(served):
    class Interrupted(BaseException):
        pass

    def interrupt(*_args):
        raise Interrupted

    with connect(served.path, environ={}) as client:
        connection = client._connections.lend()
        client._connections.give_back(connection)
        connection._read = interrupt
        with pytest.raises(Interrupted):
            client.agents_capture(target="a")
        del connection._read
        until(lambda: served.answers.begun == served.answers.ended == 1, "the call's end")
        assert client.daemon_status()["version"] == "test"
        assert served.door.counters.accepted == 1


def test_dead_connections_are_dropped_before_they_are_used(path):
    """So a call that cannot be repeated is made, although the daemon is another one by now."""
    with serving_in_thread(path) as first:
        client = connect(path, environ={}, connections=4)
        streams = [client.stream("events.follow", credit=4) for _ in range(4)]
        assert [next(stream)["id"] for stream in streams] == [1] * 4
        for stream in streams:
            stream.close()
        assert first.door.counters.accepted == len(client._connections._own().idle) == 4
    with serving_in_thread(path) as second, client:
        assert client.send("a", "b").id == "m1"
        assert len(second.answers.sent) == 1
        assert second.door.counters.accepted == 1
        assert len(client._connections._own().all) == 1


def test_a_daemon_that_is_away_is_waited_for_as_long_as_was_said(path):
    with serving_in_thread(path):
        client = connect(path, environ={}, patience_s=LIMIT_S)
        client.daemon_status()
    answers: list[str] = []
    waiting = threading.Thread(target=lambda: answers.append(client.daemon_status()["version"]))
    waiting.start()
    with serving_in_thread(path), client:
        waiting.join(LIMIT_S)
        assert answers == ["test"]


def test_patience_ends_with_the_time_of_the_call(path):
    with serving_in_thread(path):
        client = connect(path, environ={}, patience_s=3600)
        client.daemon_status()
    with client:
        began_s = time.monotonic()
        with pytest.raises(Unavailable, match="no daemon is running"):
            client.call("daemon.status", timeout_s=0.1)
        assert time.monotonic() - began_s < LIMIT_S


def test_a_stream_that_breaks_says_so_and_the_next_one_has_another_connection(path):
    script = Script(path, break_off, answer_with({}))
    with in_thread(script.run), connect(path, environ={}) as client:
        with pytest.raises(Unavailable, match=r"the connection broke while events\.follow ran"):
            next(client.events_follow())
        assert list(client.events_follow()) == []


def test_a_daemon_that_takes_no_connection_does_not_hold_us_for_ever(path):
    queued = []
    with socket(AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        try:
            with pytest.raises(DeadlineExceeded, match="no answer to the connection"):
                queued.extend(connected(path, 0.1) for _ in range(100))
        finally:
            for each in queued:
                each.close()


FORKS = """
import os, sys
from agentd.client import connect
client = connect(sys.argv[1], environ={}, connections=1)
stream = client.stream("events.follow", credit=4)
assert next(stream)["id"] == 1
client.daemon_status()
before = len(os.listdir("/dev/fd"))
child = os.fork()
if not child:
    stream.close()  # in the child: it is the parent's stream, and goes on there
    client.agents_list()
    assert len(os.listdir("/dev/fd")) == before - 1, "the parent's sockets are still open here"
    client.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert [next(stream)["id"] for _ in range(10)] == list(range(2, 12))
client.daemon_status()
client.close()
print(os.getpid(), child)
"""


def test_a_forked_process_has_connections_of_its_own(served):
    served.answers.agents_list = lambda _: {"agents": []}
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    argv = [sys.executable, "-W", "error", "-c", FORKS, served.path]
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    parent, child = map(int, done.stdout.split())
    assert [caller.pid for caller in served.answers.callers] == [parent, parent, child, parent]
    assert served.door.counters.accepted == 3
