"""A command's only call is made without the client, and ends as the client's would, whatever the daemon does."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_server import Script, answer_with, break_off
from serving import in_thread

from agentd.cli import one_call
from agentd.wire.frames import MAX_FRAME_BYTES, encode

AGENT = {"id": "a1", "name": "a", "profile": "shell", "team": "", "role": "", "state": "idle", "since_s": 1.5}
LIST = {"agents": [{**AGENT, "inbox": 0, "cwd": "/"}]}
LONG_LIST = {"agents": [{**AGENT, "inbox": n, "cwd": "/x" * 40} for n in range(200)]}
RECEIPT = {"id": "m1", "to": "a", "state": "accepted"}


@pytest.fixture
def scripted(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Give a block in which a daemon at AGENTD_SOCKET does what a script says, once to each connection."""

    @contextmanager
    def run(*steps):
        path = str(tmp_path / "s")
        monkeypatch.setenv("AGENTD_SOCKET", path)
        script = Script(path, *steps)
        with in_thread(script.run):
            yield script

    return run


def refuse(code: str, call_id: int | None = None) -> Callable[[Script, Any], None]:
    def step(script: Script, connection: Any) -> None:
        call = script.next_call(connection)
        frame = [3, call[1] if call_id is None else call_id, code, "the daemon says so", {"hint": "do this"}]
        connection.sendall(encode([0, {"v": 1}]) + encode(frame))

    return step


def say(*frames: bytes) -> Callable[[Script, Any], None]:
    def step(script: Script, connection: Any) -> None:
        script.next_call(connection)
        for frame in frames:
            connection.sendall(frame)
        connection.recv(1)

    return step


@pytest.mark.parametrize("answer", [LIST, LONG_LIST], ids=["short", "long"])
def test_an_answer_is_shown_however_it_comes(agentd, scripted, answer):
    data = encode([0, {"v": 1}]) + encode([7, "goaway", {}]) + encode([8, 5]) + encode([2, 1, answer])
    ways = ([data], [data[:100], data[100:]], [data[n : n + 1] for n in range(min(600, len(data)))] + [data[600:]])
    for pieces in ways:
        with scripted(say(*pieces)) as script:
            ran = agentd("ls", "--json")
        assert (ran.code, json.loads(ran.out), ran.err) == (0, answer["agents"], "")
        assert len(script.calls) == 1


@pytest.mark.parametrize("words", [["ls"], ["status"], ["msg", "m1"], ["send", "a", "hello", "--key", "k"]])
def test_what_may_be_made_twice_is_made_again_by_the_client(agentd, scripted, words):
    for first in (break_off, refuse("unavailable")):
        with scripted(first, refuse("not_found")) as script:
            ran = agentd(*words)
        assert (ran.code, ran.err) == (5, "agentd: the daemon says so; do this\n")
        assert len(script.calls) == 2
        assert script.calls[0][2:] == script.calls[1][2:4]


def test_a_message_without_a_key_is_not_sent_twice(agentd, scripted):
    with scripted(break_off) as script:
        ran = agentd("send", "a", "hello")
    assert ran.code == 3
    assert "whether the call was done is not known" in ran.err
    with scripted(refuse("unavailable")) as script:
        ran = agentd("send", "a", "hello")
    assert (ran.code, ran.err) == (3, "agentd: the daemon says so; do this\n")
    assert len(script.calls) == 1


def test_a_late_answer_is_none(agentd, scripted, monkeypatch):
    monkeypatch.setattr(one_call, "DEFAULT_TIMEOUT_S", 0.2)
    with scripted(say(encode([0, {"v": 1}]))):
        ran = agentd("send", "a", "hello")
    assert ran.code == 6
    assert ran.err.startswith("agentd: no answer to messages.send in the time allowed")


@pytest.mark.parametrize("call_id", [None, 0])
def test_a_refusal_is_the_daemons_word(agentd, scripted, call_id):
    with scripted(refuse("denied", call_id)) as script:
        ran = agentd("send", "a", "hello")
    assert (ran.code, ran.err) == (7, "agentd: the daemon says so; do this\n")
    assert len(script.calls) == 1


def test_another_protocol_is_told_by_the_client(agentd, scripted):
    hello = encode([0, {"v": 2}])
    with scripted(say(hello + encode([2, 1, LIST])), say(hello)):
        ran = agentd("ls")
    assert ran.code == 1
    assert "speaks protocol version 2 and this client [1]" in ran.err


@pytest.mark.parametrize(
    "garbage",
    [
        encode([2]),
        encode({}),
        encode([]),
        encode([[2], 1, {}]),
        encode([{}, 1]),
        encode([0, 5]),
        encode([None, None, None]),
        b"\0\0\0\1\xc1",
        b"\0\0\0\0",
        (1 << 31).to_bytes(4, "big"),
        encode([2, 1]),
        encode([3, 1]),
        encode(["x" * (MAX_FRAME_BYTES - 10)]),
    ],
)
def test_garbage_is_one_sentence(agentd, scripted, garbage):
    with scripted(say(garbage)):
        ran = agentd("send", "a", "hello")
    assert ran.code == 2
    assert ran.err.startswith("agentd: ")
    assert ran.err.count("\n") == 1
    assert "internal error" not in ran.err


def test_parameters_go_out_as_they_were_given(agentd, scripted):
    with scripted(answer_with(RECEIPT)) as script:
        ran = agentd("send", "a", "hello", "--ttl", "5")
    assert (ran.code, ran.out) == (0, "m1 to a: accepted\n")
    assert script.calls[0][3] == {"to": "a", "body": "hello", "ttl_s": 5.0}
