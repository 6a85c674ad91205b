"""Hooks of agents' programs: what they report, what their answers bring, and that they never disturb."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import form
from hooked import add_hooked, bodies, environ_of, type_in
from instance import Instance, instance, wait_until

from agentd.agents.text import BROUGHT
from agentd.errors import AgentdError, NotFound

BURST = form(40, 60)
SOON_S = 1.5  # a hook's own deadline, and a busy machine's delay, less what would be a hang


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    with instance() as one:
        add_hooked(one)
        add_hooked(one, "puller", delivery="pull")
        add_hooked(one, "talker", delivery="pull", carries={"Stop": "block"})
        add_hooked(one, "typed", delivery="type")
        add_hooked(one, "ending", carries={"Stop": "block"})
        one.up("courier.max_attempts=3")
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents."""
    yield shared
    shared.tidy()


def shown(whole: Instance, name: str) -> dict[str, Any]:
    with whole.client() as client:
        return dict(client.call("agents.get", target=name))


def explained(whole: Instance, name: str) -> dict[str, Any]:
    with whole.client() as client:
        return dict(client.call("agents.explain", target=name))


def spawned(whole: Instance, profile: str, log: Path, delay_s: float = 0.0, **env: str) -> dict[str, Any]:
    wanted = {"AGENTD_DEMO_LOG": str(log), "AGENTD_DEMO_DELAY_S": str(delay_s), **env}
    return whole.spawn(profile, env=wanted)


def details(message: dict[str, Any]) -> list[str]:
    return [entry["detail"] for entry in message["history"]]


def hook(whole: Instance, *words: str, input_: bytes = b"", **environ: str) -> tuple[bytes, float]:
    """Run `agentd hook` as a program would; it must end well and say nothing on stderr; return its output and time."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "hook", *words],
        env=whole.environ | environ,
        input=input_,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout, time.monotonic() - began


# -- what is reported


def test_a_turn_is_reported_and_its_session_is_known(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "hooked", tmp_path / "log")
    name = agent["name"]
    assert shown(whole, name)["resume_id"] == ""  # its session was not spoken to yet
    id_ = whole.json("send", name, "hello", "--wait", "acked", "--timeout", "20")["id"]
    wait_until(lambda: "hook Stop" in explained(whole, name)["rule"], "its hook's word")
    wait_until(lambda: explained(whole, name)["state"] == "idle", "it to be idle")
    session = shown(whole, name)["resume_id"]
    assert session == f"demo-{agent['pid']}"
    assert f"resume id    {session}" in whole.cli("show", name).stdout
    assert bodies(tmp_path / "log") == ["hello"]
    assert "left the composer" in details(whole.message(id_))[2]  # it was idle: typed at once


def test_a_question_is_known_before_its_screen_is_read(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "hooked", tmp_path / "log", AGENTD_DEMO_MODE="asks-permission")
    type_in(whole, agent["name"], "do")
    with whole.client() as client:
        client.call("agents.wait", target=agent["name"], until="waiting", timeout_s=20.0)
    told = explained(whole, agent["name"])
    assert "Echo: do" in told["reason"]


# -- what is brought


@pytest.mark.parametrize("profile", ["hooked", "puller"])
def test_messages_come_between_the_steps_of_a_turn(whole: Instance, tmp_path: Path, profile: str):
    log = tmp_path / "log"
    agent = spawned(whole, profile, log, delay_s=1.5)
    type_in(whole, agent["name"], "work")
    with whole.client() as client:
        client.call("agents.wait", target=agent["name"], until="working", timeout_s=20.0)
        bodies_sent = ["one", "two\nlines", "x" * 20_000]
        ids = [client.send(agent["name"], body).id for body in bodies_sent]
        for id_ in ids:
            client.call("messages.wait", id=id_, until="acked", timeout_s=20.0)
        sent = [client.call("messages.get", id=id_) for id_ in ids]
    assert bodies(log) == bodies_sent  # each once, in order; the long one was fetched by its pointer
    for message in sent:
        states = [entry["state"] for entry in message["history"]]
        assert states == ["accepted", "delivering", "delivered", "acked"]
        assert details(message)[1:3] == ["attempt 1", "handed over by a hook"]


def test_what_an_ending_turn_cannot_take_whole_is_typed_behind_it(whole: Instance, tmp_path: Path):
    log = tmp_path / "log"
    agent = spawned(whole, "ending", log, delay_s=1.5)
    type_in(whole, agent["name"], "work")
    bodies_sent = ["small", "y" * 10_000, "after"]
    with whole.client() as client:
        client.call("agents.wait", target=agent["name"], until="working", timeout_s=20.0)
        ids = [client.send(agent["name"], body).id for body in bodies_sent]
        for id_ in ids:
            client.call("messages.wait", id=id_, until="acked", timeout_s=30.0)
        small, large = (details(client.call("messages.get", id=id_)) for id_ in ids[:2])
    assert bodies(log) == bodies_sent
    assert small[2] == "handed over by a hook"
    assert large[2] != "handed over by a hook"
    assert large[1] == "attempt 1"  # having been given back is no attempt


def test_a_turn_goes_on_for_messages_and_comes_to_its_end(whole: Instance, tmp_path: Path):
    """Each end of a turn finds a message; after five times the turn may end, and the next one brings the rest."""
    log = tmp_path / "log"
    agent = spawned(whole, "talker", log)
    name = agent["name"]
    with whole.client() as client:
        for n in range(5 * 20 + 5):  # what one answer takes is 20
            client.send(name, f"{n}")
        type_in(whole, name, "go")
        wait_until(lambda: len(bodies(log)) >= 100, "five answers")
        client.call("agents.wait", target=name, until="idle", timeout_s=20.0)
        assert shown(whole, name)["inbox"] == 5
        type_in(whole, name, "go")
        wait_until(lambda: len(bodies(log)) >= 105, "the rest")
        client.call("agents.wait", target=name, until="idle", timeout_s=20.0)
    assert bodies(log) == [f"{n}" for n in range(105)]
    assert shown(whole, name)["inbox"] == 0


def test_nothing_is_typed_into_one_that_pulls_and_all_into_an_idle_one_of_both(whole: Instance, tmp_path: Path):
    puller = spawned(whole, "puller", tmp_path / "p")
    both = spawned(whole, "hooked", tmp_path / "b")
    waits = whole.send(puller["name"], "later")
    whole.cli("send", both["name"], "now", "--wait", "acked", "--timeout", "20")
    assert whole.message(waits)["state"] == "accepted"
    assert bodies(tmp_path / "p") == []
    type_in(whole, puller["name"], "go")
    wait_until(lambda: bodies(tmp_path / "p") == ["later"], "the hook to bring it")


def test_a_burst_reaches_a_busy_agent_once_by_whichever_way(whole: Instance, tmp_path: Path):
    log = tmp_path / "log"
    agent = spawned(whole, "hooked", log, delay_s=0.05)
    with whole.client() as client:
        ids = []
        for n in range(BURST):
            ids.append(client.send(agent["name"], f"{n}").id)
            time.sleep(0.02)  # spread over several turns
        for id_ in ids:
            client.call("messages.wait", id=id_, until="acked", timeout_s=30.0)
        ways = {details(client.call("messages.get", id=id_))[2] for id_ in ids}
    assert bodies(log) == [f"{n}" for n in range(BURST)]
    assert "handed over by a hook" in ways
    assert len(ways) > 1


def test_what_a_hook_did_not_confirm_comes_again_with_its_id(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "puller", tmp_path / "log")
    token = Path(environ_of(whole, agent)["AGENTD_TOKEN_FILE"]).read_text().strip()
    with whole.client() as operator, whole.client(token=token) as client:
        id_ = operator.send(agent["name"], "once more").id
        first = client.call("agents.report", event="PostToolUse")
        assert first["leases"] == [f"{id_}#1"]
        assert client.call("agents.report", event="PostToolUse") == {"output": "", "leases": []}
        second = wait_until(lambda: client.call("agents.report", event="PostToolUse")["leases"], "the next offer")
        assert second == [f"{id_}#2"]
        assert f"[agentd {id_} from operator] once more" in first["output"]
        [late] = client.call("messages.confirm", ids=first["leases"])["failed"]
        assert late["error"]["code"] == "conflict"
        assert client.call("messages.confirm", ids=second)["done"] == second
        assert operator.call("messages.get", id=id_)["state"] == "delivered"
        client.call("messages.ack", ids=[id_])
        client.call("messages.confirm", ids=second)
        assert operator.call("messages.get", id=id_)["state"] == "acked"  # a late word does not bring it back


def test_a_turn_that_is_prolonged_is_work_and_one_that_is_not_is_over(whole: Instance, tmp_path: Path):
    """So that nothing is typed into a turn whose end a hook has just put off."""
    agent = spawned(whole, "puller", tmp_path / "log")
    token = Path(environ_of(whole, agent)["AGENTD_TOKEN_FILE"]).read_text().strip()
    with whole.client() as operator, whole.client(token=token) as client:
        operator.send(agent["name"], "go on")
        assert client.call("agents.report", event="Stop")["leases"]
        told = operator.call("agents.explain", target=agent["name"])
        assert (told["state"], told["rule"]) == ("working", "hook Stop, answered with messages")
        assert not client.call("agents.report", event="Stop")["leases"]
        assert operator.call("agents.explain", target=agent["name"])["rule"] == "hook Stop"
        operator.call("agents.wait", target=agent["name"], until="idle", timeout_s=20.0)


def test_nothing_is_brought_where_messages_are_typed(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "typed", tmp_path / "log", delay_s=1.0)
    type_in(whole, agent["name"], "work")
    with whole.client() as client:
        client.call("agents.wait", target=agent["name"], until="working", timeout_s=20.0)
        id_ = client.send(agent["name"], "typed").id
        client.call("messages.wait", id=id_, until="acked", timeout_s=20.0)
        assert "left the composer" in details(client.call("messages.get", id=id_))[2]


def test_the_command_prints_then_confirms(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "puller", tmp_path / "log")
    id_ = whole.send(agent["name"], "\x1b]52;c;x\x07 hi")
    output, _ = hook(whole, "PostToolUse", **environ_of(whole, agent))
    values = json.loads(output)["hookSpecificOutput"]
    assert values["hookEventName"] == "PostToolUse"
    assert values["additionalContext"] == f"{BROUGHT}\n[agentd {id_} from operator] \ufffd]52;c;x\ufffd hi"
    assert whole.message(id_)["state"] == "delivered"
    assert hook(whole, "PostToolUse", **environ_of(whole, agent))[0] == b""


def test_a_notification_comes_as_the_last_word(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "puller", tmp_path / "log")
    event = json.dumps({"hook_event_name": "UserPromptSubmit", "session_id": "s-1", "transcript_path": "/t"})
    hook(whole, event, **environ_of(whole, agent))
    row = shown(whole, agent["name"])
    assert (row["resume_id"], row["log_path"]) == ("s-1", "/t")


# -- nobody speaks for another


def test_a_report_is_its_callers_whatever_it_says(whole: Instance, tmp_path: Path):
    ann, bob = spawned(whole, "puller", tmp_path / "a"), spawned(whole, "puller", tmp_path / "b")
    waits = whole.send(ann["name"], "for ann only")
    claims = {"agent": ann["id"], "agent_id": "", "name": ann["name"], "session_id": "bobs", "pid": ann["pid"]}
    output, _ = hook(whole, "PostToolUse", input_=json.dumps(claims).encode(), **environ_of(whole, bob))
    assert output == b""
    assert shown(whole, bob["name"])["resume_id"] == "bobs"
    assert shown(whole, ann["name"])["resume_id"] == ""
    assert whole.message(waits)["state"] == "accepted"
    token = Path(environ_of(whole, bob)["AGENTD_TOKEN_FILE"]).read_text().strip()
    with whole.client(token=token) as client:
        [failed] = client.call("messages.confirm", ids=[f"{waits}#1"])["failed"]
        assert failed["error"]["code"] == "not_found"
        for more in ({"agent": ann["id"]}, {"target": ann["name"]}):
            with pytest.raises(AgentdError):
                client.call("agents.report", event="Stop", **more)


def test_anothers_token_does_not_make_one_another(whole: Instance, tmp_path: Path):
    ann = spawned(whole, "puller", tmp_path / "a")
    bob = whole.spawn("shell")
    event = json.dumps({"hook_event_name": "Stop", "session_id": "forged"})
    anns = environ_of(whole, ann)["AGENTD_TOKEN_FILE"]

    def run(words: str, mark: str) -> None:
        whole.cli("send", bob["name"], f"{words} \"$AGENTD_COMMAND\" hook '{event}'; echo $? > {tmp_path / mark}")
        wait_until((tmp_path / mark).exists, "the hook")
        wait_until(lambda: (tmp_path / mark).read_text() == "0\n", "its exit status")

    run(f"AGENTD_TOKEN_FILE={anns}", "forged")
    assert shown(whole, ann["name"])["resume_id"] == ""
    hook(whole, event, **environ_of(whole, ann))  # the same words by ann's own program
    assert shown(whole, ann["name"])["resume_id"] == "forged"


def test_the_operator_has_no_hooks(whole: Instance):
    with whole.client() as client, pytest.raises(NotFound):
        client.call("agents.report", event="Stop")
    assert hook(whole, "Stop", input_=b"{}")[0] == b""


# -- nothing breaks


HOSTILE = {
    "huge": b'{"session_id": "h", "message": "' + b"x" * 3_000_000 + b'"}',
    "deep": b'{"session_id": "h", "tool_input": ' + b'{"a":' * 80_000 + b"1" + b"}" * 80_000 + b"}",
    "types": b'{"session_id": ["h"], "transcript_path": {}, "message": 7, "tool_name": null}',
    "bytes": b"\xff\xfe\x00" * 1000,
    "cut": b'{"session_id": "h", "mess',
    "escapes": json.dumps({"session_id": "\x1b]0;x\x07", "message": "\x1b[201~\r!touch S"}).encode(),
    "option": b'{"session_id": "--dangerously"}',
}


def test_a_hostile_payload_is_one_event_and_no_more(whole: Instance, tmp_path: Path):
    agent = spawned(whole, "puller", tmp_path / "log")
    environ = environ_of(whole, agent)
    with whole.client(token=Path(environ["AGENTD_TOKEN_FILE"]).read_text().strip()) as client:
        for kind, payload in HOSTILE.items():
            client.call("agents.report", event="Stop", payload='{"session_id": "before"}')
            assert shown(whole, agent["name"])["resume_id"] == "before"
            assert hook(whole, "PermissionRequest", input_=payload, **environ)[0] == b"", kind
            check_unharmed(whole, agent["name"], {"before", "h"} if kind == "deep" else {"before"})


def check_unharmed(whole: Instance, name: str, sessions: set[str]) -> None:
    row = shown(whole, name)
    assert row["state"] == "waiting"
    assert row["resume_id"] in sessions
    assert row["log_path"] == ""
    assert len(json.dumps(row)) < 4_000
    assert "\x1b" not in row["reason"]
    assert '"level": "error"' not in (whole.directory / "agentd.log").read_text()


@pytest.mark.parametrize("words", [["--no-such"], ["Stop", "{}", "more"], ["Stop", "{"], ["\x1b[2J"], ["x" * 5000], []])
def test_whatever_its_words_it_ends_well(whole: Instance, words: list[str]):
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "hook", *words], env=whole.environ, input=b"", capture_output=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"Traceback" not in done.stderr


def test_without_a_daemon_it_ends_at_once(idle_instance: Instance):
    for environ in (
        {},
        {"AGENTD_TOKEN_FILE": "/nonexistent"},
        {"AGENTD_SOCKET": "/nonexistent/x"},
        {"AGENTD_SOCKET": "x" * 200},
    ):
        output, took_s = hook(idle_instance, "Stop", input_=b"{}", **environ)
        assert output == b""
        assert took_s < SOON_S
    assert not (idle_instance.directory / "agentd.sock").exists()


def test_a_daemon_that_does_not_answer_is_not_waited_for(whole: Instance, tmp_path: Path):
    path = str(whole.directory / "deaf")
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(path)
        deaf.listen(1)
        output, took_s = hook(whole, "Stop", input_=b"{}", AGENTD_SOCKET=path)
    assert output == b""
    assert took_s < 2.0 + SOON_S


def test_a_program_that_does_not_end_its_payload_is_not_waited_for(whole: Instance):
    began = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "agentd", "hook", "Stop"],
        env=whole.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as running:
        assert running.stdin
        running.stdin.write(b"{")
        running.stdin.flush()
        assert running.wait(10) == 0
        assert running.stdout
        assert running.stdout.read() == b""
    assert time.monotonic() - began < 2.0 + SOON_S
