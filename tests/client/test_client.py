"""The blocking client against a real door, and against servers that break."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
from scripted_server import Script, answer_with, break_off
from serving import LIMIT_S, in_thread, serving_in_thread

import agentd
from agentd import CallError
from agentd.calling import READS, arguments
from agentd.client import connect
from agentd.errors import (
    Cancelled,
    DeadlineExceeded,
    Denied,
    InternalError,
    InvalidValue,
    NotFound,
    OverLimit,
    Unauthenticated,
    Unavailable,
    UnknownTarget,
    VersionMismatch,
)
from agentd.records import Caller, Receipt, Role
from agentd.wire.calls import CALLS
from agentd.wire.frames import encode


@pytest.fixture
def client(served):
    with connect(served.path, environ={}) as client:
        yield client


@pytest.mark.parametrize(("wait_s", "allowed_s"), [(0, 3), (60.5, 63.5), (-1, 3), ("x", 3), (1e99, 3)])
def test_a_call_that_may_wait_is_waited_for(wait_s, allowed_s):
    assert arguments("messages.inbox", {"wait_s": wait_s}, None, 3.0) == ({"wait_s": wait_s}, None, allowed_s)


def test_calls_by_name_by_method_and_with_either_kind_of_parameters(client):
    assert client.call("daemon.status") == client.daemon_status() == {"version": "test", "pid": os.getpid()}
    assert client.server["server"] == "test"
    with pytest.raises(NotFound, match="no team red") as caught:
        client.teams_get({"team": "red"})
    assert (caught.value.code, caught.value.retryable, caught.value.hint) == (
        "not_found",
        False,
        "`agentd team ls` lists them",
    )
    with pytest.raises(NotFound):
        client.teams_get(team="red")
    with pytest.raises(AttributeError, match="noun_verb"):
        client.dance()


def test_send_gives_a_receipt(client, served):
    receipt = client.send("a", "hello", priority="high")
    assert receipt == Receipt(id="m1", to="a")
    assert receipt.state == "accepted"
    assert served.answers.sent[0].priority == "high"
    with pytest.raises(InvalidValue) as caught:
        client.send("a", "hello", priority="urgent")
    assert caught.value.field == "$.priority"


def test_a_batch_keeps_its_order_in_frames_of_less_than_a_mebibyte(client, served):
    items = [{"to": "a", "body": f"{n:08}" + "x" * 1000} for n in range(2500)]
    items[7] = {"to": "nobody", "body": "x"}
    items[8] = {"to": "a", "body": "x" * 1_100_000}
    items[9] = "not a message"
    items[10] = {"to": "a", "body": object()}
    results = client.send_batch(items)
    assert [type(result) for result in results[6:12]] == [
        Receipt,
        UnknownTarget,
        OverLimit,
        InvalidValue,
        InvalidValue,
        Receipt,
    ]
    assert all(isinstance(result, CallError) for result in results[7:11])
    assert [r.id for n, r in enumerate(results) if n not in range(7, 11)] == [
        f"m-{n:08}" for n in range(2500) if n not in range(7, 11)
    ]
    assert client.send_batch([]) == []


def test_a_pipeline_of_ten_thousand_calls(client, served):
    with client.pipeline() as pipeline:
        made = [pipeline.call("daemon.status") for _ in range(9_999)]
        failing = pipeline.call("teams.get", team="red")
        with pytest.raises(InternalError, match="has no answer yet"):
            failing.result()
    assert all(call.result()["version"] == "test" for call in made)
    with pytest.raises(NotFound):
        failing.result()
    with client.pipeline():
        pass


def test_much_out_and_much_back_at_the_same_time(client):
    with client.pipeline() as pipeline:
        made = [pipeline.call("schema", None) for _ in range(100)]  # more than the sockets and the marks hold
        sent = [pipeline.call("messages.send", to="a", body="x" * 100_000) for _ in range(20)]
    assert all(call.result()["protocol"] == 1 for call in made)
    assert [call.result()["id"] for call in sent] == [f"m{n}" for n in range(1, 21)]


def test_a_stream_and_calls_between_its_items(client, served):
    seen = []
    for event in client.events_follow(types=["1000"]):
        seen.append(event["id"])
        if event["id"] % 100 == 0:
            assert client.daemon_status()["version"] == "test"
    assert seen == list(range(1, 1001))
    first = next(iter(client.events(follow=True, since=41)))
    assert first["id"] == 42


def test_a_stream_that_is_left_is_ended(client, served):
    stream = client.stream("events.follow", credit=4)
    assert [next(stream)["id"] for _ in range(10)] == list(range(1, 11))
    stream.close()
    deadline_s = time.monotonic() + LIMIT_S
    while not served.answers.ended and time.monotonic() < deadline_s:
        assert client.daemon_status()["version"] == "test"
    assert served.answers.begun == served.answers.ended == 1


def test_a_streams_error_and_its_silence(client):
    with pytest.raises(InvalidValue):
        list(client.events_follow(since=-1))
    stream = client.stream("events.follow", credit=0, timeout_s=0.05)
    with pytest.raises(DeadlineExceeded):
        next(stream)
    assert client.daemon_status()["version"] == "test"


def test_time_runs_out(client, served):
    with pytest.raises(DeadlineExceeded) as caught:
        client.agents_capture(target="a", timeout_s=0.05)
    assert caught.value.exit_code == 6
    assert client.daemon_status()["version"] == "test"


def test_a_timeout_is_told_to_the_daemon(client, served):
    with pytest.raises(InternalError):
        client.call("teams.list", timeout_s=1.5)
    assert served.answers.contexts[-1].deadline_s == 1.5


def test_waits_wait_as_long_as_they_say(client, served):
    assert client.agents_wait(target="ready", until="idle", timeout_s=7)["agent"]["name"] == "ready"


def test_a_larger_request_than_allowed_is_not_sent(client):
    with pytest.raises(OverLimit):
        client.send("a", "x" * 1_100_000)
    assert client.daemon_status()["version"] == "test"


def test_the_reads_of_the_client_are_those_of_the_table():
    assert {name for name, call in CALLS.items() if not call.writes} == READS


def test_no_daemon(path):
    with pytest.raises(Unavailable) as caught:
        connect(path, autostart=False, environ={})
    assert caught.value.message == f"no daemon is running at {path}"
    assert caught.value.hint == "run `agentd up`"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("more", [{"AGENTD_AUTOSTART": "0"}, {"AGENTD_SOCKET": "/nowhere/s"}])
def test_no_daemon_is_started_where_it_must_not_be(tmp_path, more):
    with pytest.raises(Unavailable, match="no daemon is running at"):
        connect(environ={"AGENTD_DIR": str(tmp_path), **more})
    assert os.listdir(tmp_path) == []


def test_inside_a_pane_nothing_is_started_and_the_token_is_used(tmp_path):
    tokens = []

    def identify(peer, token):
        tokens.append(token)
        return Caller(Role.AGENT, "a1", "ann", peer.pid, peer.uid)

    (tmp_path / "token").write_text("secret\n")
    environ = {"AGENTD_DIR": str(tmp_path), "AGENTD_TOKEN_FILE": str(tmp_path / "token")}
    with pytest.raises(Unavailable, match="no daemon is running at"):
        connect(environ=environ)
    path = str(tmp_path / "agentd.sock")
    with serving_in_thread(path, identify), connect(environ=environ) as client, pytest.raises(Denied):
        client.daemon_shutdown()
    assert tokens == ["secret"]
    (tmp_path / "token").unlink()
    with pytest.raises(Unauthenticated, match="cannot be read"):
        connect(environ=environ)


def test_what_up_says_is_passed_on(tmp_path):
    (tmp_path / "config.toml").write_text("[nonsense]\nx = 1\n")
    tmp_path.chmod(0o700)
    with pytest.raises(Unavailable, match="could not be started") as caught:
        connect(environ={**os.environ, "AGENTD_DIR": str(tmp_path), "AGENTD_AUTOSTART": "1", "AGENTD_SOCKET": ""})
    assert caught.value.exit_code == 3


def break_within_the_answer(script, connection):
    script.next_call(connection)
    connection.sendall(encode([2, 1, {}])[:5])


answer = answer_with({"ok": True, "id": "m", "to": "a", "state": "accepted"})


def say_goaway_after_the_answer(script, connection):
    call = script.next_call(connection)
    connection.sendall(encode([2, call[1], {"ok": True}]) + encode([7, "goaway", {}]))
    connection.recv(65_536)


def speak_nonsense(script, connection):
    script.next_call(connection)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("breaking", [break_off, break_within_the_answer])
@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("agents.list", {}),
        ("messages.send", {"to": "a", "body": "b", "key": "k"}),
        ("agents.spawn", {"profile": "shell", "key": "k"}),
    ],
)
def test_what_can_be_repeated_is_after_a_broken_connection(path, breaking, method, params):
    script = Script(path, breaking, answer)
    with in_thread(script.run), connect(path, environ={}) as client:
        assert client.call(method, params)["ok"]
    assert [call[2] for call in script.calls] == [method] * 2


def test_what_may_have_been_done_is_not_repeated(path):
    script = Script(path, break_off, answer)
    with in_thread(script.run), connect(path, environ={}) as client:
        with pytest.raises(Unavailable, match="whether the call was done is not known"):
            client.send("a", "b")
        assert client.call("agents.list")["ok"]  # the next one connects again
    assert [call[2] for call in script.calls] == ["messages.send", "agents.list"]


def test_after_goaway_the_next_call_connects_again(path):
    script = Script(path, say_goaway_after_the_answer, answer)
    with in_thread(script.run), connect(path, environ={}) as client:
        assert client.call("agents.list")["ok"]
        assert client.send("a", "no key is needed: nothing of it was sent").id == "m"


def test_a_daemon_that_was_restarted_meanwhile_is_found_again(path):
    with serving_in_thread(path):
        client = connect(path, environ={})
        client.daemon_status()
    with serving_in_thread(path) as served, client:
        assert client.send("a", "no key is needed: the first daemon cannot have seen it").id == "m1"
        assert len(served.answers.sent) == 1


def test_a_call_to_a_daemon_that_ended_says_so(path):
    with serving_in_thread(path):
        client = connect(path, environ={})
        client.daemon_status()
    with client, pytest.raises(Unavailable, match="no daemon is running"):
        client.send("a", "b")


def test_no_answer_within_the_time(path):
    done = threading.Event()
    script = Script(path, lambda script, connection: (script.next_call(connection), done.wait(10)))
    with in_thread(script.run), connect(path, environ={}, timeout_s=0.1) as client:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match="in the time allowed"):
            client.call("agents.list")
        assert time.monotonic() - began < 5
        done.set()


def test_a_peer_that_is_no_agentd(path):
    script = Script(path, speak_nonsense)
    with (
        in_thread(script.run),
        connect(path, environ={}) as client,
        pytest.raises(InvalidValue, match=r"a frame of \d+ bytes"),
    ):
        client.call("agents.list")


def speak_a_newer_version(script, connection):
    call = script.next_call(connection)
    connection.sendall(encode([0, {"v": 9}]) + encode([2, call[1], {"ok": True}]))


def refuse_our_version(script, connection):
    script.next_call(connection)
    connection.sendall(encode([3, 0, "version", "this agentd speaks protocol versions [9]", {"new": 1}]))


@pytest.mark.parametrize("speak", [speak_a_newer_version, refuse_our_version])
def test_a_daemon_of_another_version_is_told_apart(path, speak):
    script = Script(path, speak)
    with (
        in_thread(script.run),
        connect(path, environ={}) as client,
        pytest.raises(VersionMismatch, match=r"speaks protocol version"),
    ):
        client.call("agents.list")


def test_an_error_of_the_connection_is_raised(path):
    def refuse(_peer, _token):
        raise Denied("not you")

    with serving_in_thread(path, refuse), connect(path, environ={}) as client, pytest.raises(Denied, match="not you"):
        client.call("agents.list")


def test_a_path_that_is_too_long():
    with pytest.raises(InvalidValue, match="the system allows"):
        connect("/" + "x" * 120, environ={})


def test_public_names():
    assert agentd.connect is connect
    assert issubclass(Cancelled, CallError)


HEAVY = (
    "asyncio anyio libtmux structlog msgspec re json socket typing dataclasses enum pathlib subprocess select threading"
)


def test_the_thin_client_stays_thin():
    """What msgpack itself brings (1.2: datetime, math, struct, collections, operator ...) is not ours to avoid."""
    code = f"import agentd.client, sys; print(*[name for name in {HEAVY.split()} if name in sys.modules])"
    argv = [sys.executable, "-S", "-c", f"import sys; sys.path[:] = {sys.path!r}; {code}"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_wait_longer_than_the_daemon_lets_one_be_is_asked_for_again(path):
    with (
        serving_in_thread(path, call_s=0.1, wait_s=0.2, frame_timeout_s=0.2) as served,
        connect(path, environ={}) as client,
    ):
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.agents_wait(target="a", until="idle", timeout_s=0.8)
        assert 0.8 <= time.monotonic() - began < 5
        assert served.answers.begun >= 2  # after 0.3 s
        begun = served.answers.begun
        with pytest.raises(DeadlineExceeded):
            client.agents_wait(target="a", until="idle", timeout_s=0.1)
        assert served.answers.begun == begun + 1
