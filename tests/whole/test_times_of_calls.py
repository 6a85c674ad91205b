"""Calls that wait, and calls that would for ever, through a real daemon."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from instance import Instance, instance, wait_until
from serving import in_thread

from agentd.errors import DeadlineExceeded, NotFound

CALL_S, WAIT_S = 2.0, 2.5


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as made:
        made.up(f"rpc.call_s={CALL_S}", f"rpc.wait_s={WAIT_S}")
        yield made


@contextmanager
def waiting(whole: Instance, method: str, **params: Any) -> Iterator[list[Any]]:
    """Give a list that gets the answer of a wait; the block begins when it waits."""
    answers: list[Any] = []
    with in_thread(lambda: answers.append(whole.call(method, **params))):
        wait_until(lambda: whole.call("daemon.metrics")["waiters"] == 1, "somebody to wait")
        yield answers
    wait_until(lambda: whole.call("daemon.metrics")["waiters"] == 0, "nobody to wait")


def test_who_waits_for_a_state_is_told_when_it_comes(whole: Instance):
    id_ = whole.send("operator", "to be acknowledged")
    with waiting(whole, "messages.wait", id=id_, until="acked") as answers:
        with whole.client() as client:
            answer = client.send("operator", "about it", reply_to=id_).id
        whole.call("messages.inbox")
        whole.call("messages.ack", ids=[answer])
        assert answers == []
        whole.call("messages.ack", ids=[id_])
    assert answers[0]["message"]["state"] == "acked"
    assert whole.call("messages.wait", id=id_, until="acked")["message"]["id"] == id_  # it is so already


def test_who_waits_for_an_answer_gets_it_and_no_other(whole: Instance):
    id_ = whole.send("operator", "a question")
    began = time.monotonic()
    with waiting(whole, "messages.wait", id=id_, until="reply") as answers:
        whole.send("operator", "something else")
        with whole.client() as client:
            client.send("operator", "the answer", reply_to=id_)
    assert time.monotonic() - began < WAIT_S  # by the change, not by looking again
    assert answers[0]["message"]["id"] == id_
    assert answers[0]["reply"]["body"] == "the answer"


def test_who_waits_at_an_inbox_gets_what_comes_and_has_read_it(whole: Instance):
    whole.call("messages.inbox")  # nothing is new from here on
    began = time.monotonic()
    with waiting(whole, "messages.inbox", wait_s=60) as answers:
        id_ = whole.send("operator", "at last")
    assert time.monotonic() - began < WAIT_S
    assert [m["state"] for m in answers[0]["messages"] if m["id"] == id_] == ["delivered"]


@pytest.mark.parametrize("until", ["stopped", "exit"])
def test_who_waits_for_an_agent_is_told_when_it_is_so(whole: Instance, until: str):
    agent, other = whole.spawn("sh"), whole.spawn("sh")
    began = time.monotonic()
    with waiting(whole, "agents.wait", target=agent["id"], until=until) as answers:
        whole.call("agents.stop", targets=[other["id"]], force=True)
        assert answers == []
        whole.call("agents.stop", targets=[agent["id"]], force=True)
    assert time.monotonic() - began < WAIT_S  # by what happened, not by looking again
    assert (answers[0]["agent"]["id"], answers[0]["agent"]["state"]) == (agent["id"], "stopped")
    assert whole.call("agents.wait", target=agent["id"], until=until)["agent"]["id"] == agent["id"]  # it is so already


def test_one_call_waits_no_longer_than_it_may(whole: Instance):
    agent = whole.spawn("sh")
    id_ = whole.send("operator", "never read")
    began = time.monotonic()
    with whole.client() as client, client.pipeline() as calls:  # which does not ask again
        whole.call("messages.inbox")  # nothing is new from here on
        inbox = calls.call("messages.inbox", wait_s=60)
        waits = [
            calls.call("messages.wait", id=id_, until="acked", timeout_s=60),
            calls.call("messages.wait", id=id_, until="reply", timeout_s=60),
            calls.call("agents.wait", target=agent["id"], until="exit", timeout_s=60),
            calls.call("agents.wait", target=agent["id"], until="reply", timeout_s=60),
        ]
    assert WAIT_S <= time.monotonic() - began < 3 * WAIT_S
    assert inbox.result()["messages"]
    for wait in waits:
        with pytest.raises(DeadlineExceeded, match=f" in {WAIT_S:g} s"):
            wait.result()


def test_a_wait_that_is_over_says_why_and_one_for_nothing_is_refused(whole: Instance):
    id_ = whole.send("operator", "never read")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"was not acked in 0\.3 s; the operator to read it"):
        whole.call("messages.wait", id=id_, until="acked", timeout_s=0.3)
    with pytest.raises(DeadlineExceeded, match=f"no answer to {id_} in 0.3 s"):
        whole.call("messages.wait", id=id_, until="reply", timeout_s=0.3)
    assert 0.6 <= time.monotonic() - began < 5
    with pytest.raises(NotFound):
        whole.call("messages.wait", id="m000000000000", until="reply")
    assert whole.call("daemon.metrics")["waiters"] == 0


@pytest.mark.parametrize("allowed_s", [1.0, None, 60.0])
def test_a_call_that_asks_a_tmux_that_hangs_ends_at_its_deadline(whole: Instance, allowed_s: float | None):
    agent = whole.spawn("sh")
    tmux = int(whole.tmux("display-message", "-p", "#{pid}"))
    most_s = min(allowed_s or CALL_S, CALL_S)
    os.kill(tmux, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with whole.client() as client, pytest.raises(DeadlineExceeded, match=f"did not end within its {most_s:g} s"):
            _asked(client, agent["id"], allowed_s)
        late_s = 0.5 if allowed_s else 1.0  # where nobody said how long, the door looks twice a second
        assert most_s - 0.1 < time.monotonic() - began < most_s + late_s
        assert whole.call("daemon.status")["pid"] == whole.pid()
    finally:
        os.kill(tmux, signal.SIGCONT)
    assert whole.call("agents.capture", target=agent["id"], no_cache=True)


def _asked(client: Any, target: str, allowed_s: float | None) -> None:
    """Ask for a screen; the client itself is more patient than it tells the daemon."""
    options = {"deadline_ms": allowed_s * 1000} if allowed_s else None
    [connection] = client._connections._own().idle
    request = connection.talk.request
    connection.talk.request = lambda method, params, _options: request(method, params, options)
    client.call("agents.capture", target=target, no_cache=True)
