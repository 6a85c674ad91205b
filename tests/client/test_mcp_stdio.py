"""`agentd mcp` as a process, against a real door with scripted answers: what its client sees, what the door does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mcp_client import META, PYTHONPATH, McpClient, command, mcp_client
from serving import Served, in_thread, serving_in_thread

from agentd.doors.listening import bind
from agentd.doors.tools import TOOLS
from agentd.errors import Unauthenticated
from agentd.mcp.lines import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, MOST_LINE_BYTES, PARSE_ERROR
from agentd.mcp.protocol import MOST_WAITING
from agentd.records import Caller, Role

TOKEN = "the-token-of-ann"
ENOUGH_S = 0.3  # for what must not come


def as_ann(peer, token):
    if token != TOKEN:
        raise Unauthenticated("the token is not known here")
    return Caller(Role.AGENT, "a1", "ann", pid=peer.pid, uid=peer.uid)


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    return {"AGENTD_SOCKET": str(tmp_path / "s"), "AGENTD_TOKEN_FILE": str(tmp_path / "token")}


@pytest.fixture
def served(environ) -> Iterator[Served]:
    with serving_in_thread(environ["AGENTD_SOCKET"], as_ann) as served:
        served.answers.agents_whoami = lambda _: {"name": "ann"}
        yield served


@pytest.fixture
def client(served, environ) -> Iterator[McpClient]:
    with mcp_client(environ) as client:
        yield client


def counted(served: Served, **wanted: int) -> None:
    """Wait until the door's counters have these values."""
    end_s = time.monotonic() + 10
    while any(getattr(served.answers, name) != value for name, value in wanted.items()):
        assert time.monotonic() < end_s, vars(served.answers)
        time.sleep(0.005)


def test_it_brings_nothing_heavy(served, environ):
    """What a start costs is what it imports; no SDK, no event loop, none of the daemon."""
    probe = "import sys; from agentd.cli import main; main(['mcp']); print(*sorted(sys.modules), file=sys.stderr)"
    ask = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}})
    environ = {**os.environ, **environ, "PYTHONPATH": PYTHONPATH}
    done = subprocess.run(
        [sys.executable, "-c", probe], input=ask, env=environ, capture_output=True, text=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["result"]["tools"]  # what is in its pipe when stdin ends is answered, newline or not
    brought = set(done.stderr.split())
    heavy = {"asyncio", "anyio", "mcp", "msgspec", "pydantic", "structlog", "threading", "subprocess", "typing"}
    assert not brought & (heavy | {"agentd.daemon", "agentd.api", "agentd.agents", "agentd.doors", "agentd.records"})


def test_nothing_but_the_protocol_is_on_stdout(environ, served):
    """A print of anything that is loaded lands on stderr."""
    probe = (
        "import agentd.mcp.stdio as s, os; s.Stdio.run = lambda _: print('stray', flush=True) or 0; s.serve(os.environ)"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe],
        env={**os.environ, **environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "stray\n")


@pytest.mark.parametrize(
    "token", [None, "", "/nowhere/token", "empty"], ids=["none", "empty name", "no file", "empty file"]
)
def test_without_a_token_it_serves_nobody(served, environ, tmp_path, token):
    (tmp_path / "empty").touch()
    environ = {name: value for name, value in {**os.environ, **environ}.items() if name != "AGENTD_TOKEN_FILE"}
    if token is not None:
        environ["AGENTD_TOKEN_FILE"] = str(tmp_path / token) if token == "empty" else token
    environ["PYTHONPATH"] = PYTHONPATH
    done = subprocess.run(command(), input="", env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (7, "", 1)
    assert done.stderr.startswith("agentd: ")
    assert served.answers.callers == []


def test_a_token_that_is_not_known_is_refused_each_time(served, environ):
    Path(environ["AGENTD_TOKEN_FILE"]).write_text("another")
    with mcp_client(environ) as client:
        assert client.ask("tools/list")["error"]["data"]["code"] == "unauthenticated"
        for _ in range(2):
            assert client.refusal("whoami")["code"] == "unauthenticated"
        assert client.ask("ping")["result"] == {}
    assert served.answers.callers == []


def test_a_made_up_session_is_no_identity(served, environ):
    """H10: stdio has no sessions; whatever names one is not looked at."""
    Path(environ["AGENTD_TOKEN_FILE"]).write_text("another")
    with mcp_client(environ, None) as client:
        claims = {"Mcp-Session-Id": TOKEN, "sessionId": TOKEN, "token": TOKEN, "agent": "ann", "from": "ann"}
        params = {"name": "whoami", "arguments": {}, "_meta": {**META, **claims}, **claims}
        result = client.ask("tools/call", params)["result"]
        assert result["structuredContent"]["error"]["code"] == "unauthenticated"
        client.initialize()
        assert client.ask("tools/list", claims)["error"]["data"]["code"] == "unauthenticated"
    assert served.answers.callers == []


def test_tools_and_their_results(client):
    assert {tool["name"] for tool in client.tools()} < set(TOOLS)
    assert client.use("whoami") == {"name": "ann"}
    answer = client.ask("tools/call", name="nothing", arguments={})
    assert answer["error"]["code"] == INVALID_PARAMS
    assert client.refusal("wait_agent", target="broken", until="idle")["code"] == "internal"
    assert client.refusal("wait_agent", target=7, until="idle")["code"] == "invalid"


def test_others_are_answered_while_one_waits_and_a_cancelled_one_is_given_up(served, client):
    waits = [
        client.begin("tools/call", name="wait_agent", arguments={"target": "a", "until": "idle"}) for _ in range(3)
    ]
    counted(served, begun=3)
    assert client.use("whoami") == {"name": "ann"}
    assert client.ask("ping")["result"] == {}
    for id_ in (waits[1], 999, "nobody's"):
        client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id_}})
    counted(served, ended=1)
    assert client.silent(ENOUGH_S)
    assert client.use("whoami") == {"name": "ann"}


def test_more_requests_than_it_takes_at_once(served, client):
    for _ in range(MOST_WAITING):
        client.begin("tools/call", name="wait_agent", arguments={"target": "a", "until": "idle"})
    answer = client.ask("tools/call", name="whoami", arguments={})
    assert answer["error"]["code"] == INTERNAL_ERROR
    assert client.ask("ping")["result"] == {}
    counted(served, begun=MOST_WAITING)


def test_bad_lines_do_not_end_it(client):
    for line, code in (
        (b"{\n", PARSE_ERROR),
        (b"\xff\n", PARSE_ERROR),
        (b"[" * 10_000 + b"\n", PARSE_ERROR),
        (b"[]\n", INVALID_REQUEST),
        (b'{"jsonrpc": "2.0", "id": {}, "method": "ping"}\n', INVALID_REQUEST),
        (b'{"x": "' + b"x" * MOST_LINE_BYTES + b'"}\n', INVALID_REQUEST),
    ):
        client.write(line)
        answer = client.read()
        assert (answer["id"], answer["error"]["code"]) == (None, code)
    client.write(b"\n  \n\r\n")
    assert client.use("whoami") == {"name": "ann"}


def deep(levels: int) -> object:
    return {"a": deep(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    "body",
    [deep(40), 1 << 70, "x" * 2_000_000, [0] * 200_000, "\ud800"],
    ids=["deep", "large number", "large text", "many", "half a character"],
)
def test_what_the_daemon_would_break_off_for_is_refused_alone(served, client, body):
    waiting = client.begin("tools/call", name="wait_agent", arguments={"target": "a", "until": "idle"})
    counted(served, begun=1)
    error = client.refusal("send_message", to="bob", body=body)
    assert error["code"] in ("invalid", "over_limit")
    client.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": waiting}})
    counted(served, ended=1)  # by that, and not by a connection that broke


def test_a_client_that_writes_before_it_reads_holds_nobody_up(served, client):
    """Both pipes would be full, and each side would wait for the other to read."""
    big = "x" * 50_000  # it comes twice, as a text and as data
    served.answers.agents_whoami = lambda _: {"name": big}
    ping = json.dumps({"jsonrpc": "2.0", "id": "p", "method": "ping"}).encode() + b"\n"
    for _ in range(20):
        client.begin("tools/call", name="whoami", arguments={})
    with in_thread(lambda: client.write(ping * 5000)) as writing:
        writing.join(10)
        stuck = writing.is_alive()
        names = [answer for answer in (client.read()["result"] for _ in range(5020)) if answer]
    assert not stuck
    assert [name["structuredContent"]["name"] == big for name in names] == [True] * 20


def test_the_end_of_stdin_is_the_end(served, environ):
    with mcp_client(environ) as client:
        client.begin("tools/call", name="wait_agent", arguments={"target": "a", "until": "idle"})
        counted(served, begun=1)
        started_s = time.monotonic()
        assert client.end() == (0, "")
        assert time.monotonic() - started_s < 5
    counted(served, ended=1)


def test_a_client_that_stops_reading_is_gone(served, environ):
    with mcp_client(environ) as client:
        assert client.process.stdout is not None
        client.process.stdout.close()
        assert client.process.wait(20) == 0


def test_a_signal_ends_it_without_a_word(served, environ):
    with mcp_client(environ) as client:
        client.process.send_signal(signal.SIGTERM)
        assert client.process.wait(20) == -signal.SIGTERM
        assert client.process.stderr.read() == b""


# -- a daemon that goes away


def test_it_waits_for_a_daemon_that_comes_back_and_asks_again(environ):
    """The use that was under way carries the same name both times, by which the daemon knows it."""
    path = environ["AGENTD_SOCKET"]
    with mcp_client(environ) as client:
        with serving_in_thread(path, as_ann) as served:
            client.begin("tools/call", name="wait_agent", arguments={"target": "ready-later", "until": "idle"})
            counted(served, begun=1)
        with serving_in_thread(path, as_ann) as served:
            served.answers.agents_wait = lambda params: {"agent": {"name": params.target}}
            assert client.read()["result"]["structuredContent"]["agent"]["name"] == "ready-later"
            served.answers.agents_whoami = lambda _: {"name": "ann"}
            assert client.use("whoami") == {"name": "ann"}


def test_a_use_has_the_same_key_over_broken_connections(served, client):
    keys = []

    def send(params):
        keys.append(params.key)
        if len(keys) == 1:
            (connection,) = served.door._shared.connections
            connection.abort()
        return {"id": "m1", "to": params.to, "state": "accepted"}

    served.answers.messages_send = send
    assert client.use("send_message", to="bob", body="x")["id"] == "m1"
    assert len(keys) == 2
    assert len(set(keys)) == 1
    client.use("send_message", to="bob", body="x")  # the same words, another use
    assert len(set(keys)) == 2


def test_a_daemon_that_always_breaks_off_is_given_up(environ):
    listener = bind(environ["AGENTD_SOCKET"])
    listener.listen()
    listener.settimeout(20)

    def hang_up() -> None:
        for _ in range(3):
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.close()

    with mcp_client(environ) as client:
        thread = threading.Thread(target=hang_up)
        thread.start()
        error = client.refusal("whoami")
        thread.join(20)
        assert (error["code"], error["retryable"]) == ("unavailable", True)
    listener.close()
