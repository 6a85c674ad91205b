"""The daemon dies at a named point of its work: the next one puts right what stood half done there."""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

import pytest
from faults import back_in_s, form, pane_pids, rows
from instance import Instance, alive, wait_until

from agentd.client import connect
from agentd.errors import Unavailable
from agentd.failpoint import VARIABLE

MESSAGES = 12
TURNS = form((2,), tuple(range(1, 11)))
DELIVERY = ("deliver.after_claim", "deliver.after_paste", "deliver.after_commit")
MAILBOX = ("mailbox.before_journal", "mailbox.before_commit", "mailbox.after_commit")
CHECKPOINT = ("mailbox.before_checkpoint", "mailbox.after_checkpoint")
SPAWN = ("spawn.before_db", "spawn.before_tmux", "spawn.after_tmux")


def up_to_die(whole: Instance, point: str, turn: int) -> int:
    """Start a daemon that dies at a point; return its pid."""
    whole.cli("up", **{VARIABLE: f"{point}:kill@{turn}"})
    return whole.pid()


def send_until(whole: Instance, stop: threading.Event, daemon: int, acknowledged: dict[str, str]) -> None:
    """Send one after the other, each until it is acknowledged; MESSAGES, and more as long as the daemon lives."""
    for number in itertools.count():
        if number >= MESSAGES and not alive(daemon):
            return
        body = f": message {number}"
        while True:
            if stop.is_set():
                return
            try:
                with connect(environ=whole.environ, autostart=False) as client:
                    acknowledged[client.send("a", body, key=f"m-{number}").id] = body
                break
            except Unavailable:
                stop.wait(0.02)


def messages(whole: Instance, ids: list[str]) -> list[dict[str, Any]]:
    with whole.client() as client:
        return [client.call("messages.get", id=id_) for id_ in ids]


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("point", [*DELIVERY, *MAILBOX])
def test_killed_while_messages_move(idle_instance: Instance, point: str, turn: int):
    """F02: what was acknowledged is read once, or again with the same id; nothing of ours stays in a composer."""
    log = idle_instance.directory / "a.log"
    idle_instance.up()
    agent = idle_instance.spawn(name="a", env={"AGENTD_DEMO_LOG": str(log)})
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, point, turn)
    acknowledged: dict[str, str] = {}
    stop = threading.Event()
    sender = threading.Thread(target=send_until, args=(idle_instance, stop, daemon, acknowledged))
    sender.start()
    try:
        wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
        back_in_s(idle_instance)
        sender.join(20)
    finally:
        stop.set()
        sender.join()
    assert len(acknowledged) >= MESSAGES
    wait_until(lambda: {row["id"] for row in rows(log)} >= set(acknowledged), "every message to be read")
    assert {row["id"]: row["body"] for row in rows(log)} == acknowledged
    first = list(dict.fromkeys(row["id"] for row in rows(log)))
    assert first == list(acknowledged), "the order of one sender"
    wait_until(
        lambda: {m["state"] for m in messages(idle_instance, first)} == {"acked"}, "every message to be acknowledged"
    )
    wait_until(lambda: last_line(idle_instance, agent) == "demo>", "an empty composer", 5)
    assert pane_pids(idle_instance) == {session(agent): agent["pid"]}


def last_line(whole: Instance, agent: dict[str, Any]) -> str:
    return whole.screen(agent).rstrip().rpartition("\n")[2].rstrip()


def session(agent: dict[str, Any]) -> str:
    return f"{agent['name']}_{agent['id']}"


@pytest.mark.parametrize("profile", ["shell", "sh"])
def test_killed_between_paste_and_commit_with_a_shell(idle_instance: Instance, profile: str):
    """A shell acknowledges nothing, so the line may run twice: never fewer, never a part, and the prompt is free."""
    idle_instance.up()
    ran = idle_instance.directory / "ran"
    agent = idle_instance.spawn(profile, name="a")
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, "deliver.after_paste", 1)
    id_ = idle_instance.json("send", "a", f"echo once >> {ran}")["id"]
    wait_until(lambda: not alive(daemon), "the daemon to die", 20)
    back_in_s(idle_instance)
    wait_until(lambda: messages(idle_instance, [id_])[0]["state"] == "delivered", "it to be delivered")
    idle_instance.cli("send", "a", f"echo after >> {ran}", "--wait", "delivered", "--timeout", "20")
    wait_until(lambda: "after" in ran.read_text(), "the next line to run")
    assert ran.read_text() in ("once\nafter\n", "once\nonce\nafter\n")
    wait_until(lambda: last_line(idle_instance, agent) == "$", "an empty prompt", 5)


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
@pytest.mark.parametrize("turn", form((1,), (1, 2, 3)))
@pytest.mark.parametrize("point", SPAWN)
def test_killed_while_agents_are_started(idle_instance: Instance, point: str, turn: int):
    """F02, G7: every pane is an agent's and every agent that counts as alive has its pane."""
    daemon = up_to_die(idle_instance, point, turn)
    for _ in range(turn):
        idle_instance.cli("spawn", "sh", "-n", "4", check=False, AGENTD_AUTOSTART="0")
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    back_in_s(idle_instance)
    with idle_instance.client() as client:
        agents = client.call("agents.list")["agents"]
    assert agent_panes(idle_instance) == {session(agent): agent["pid"] for agent in agents if agent["pid"]}
    assert {agent["state"] for agent in agents if not agent["pid"]} <= {"failed"}
    assert all(agent["reason"] for agent in agents if agent["state"] == "failed")
    for agent in agents:
        if agent["pid"]:
            idle_instance.cli("wait", agent["id"], "--for", "idle", "--timeout", "10")
            token = idle_instance.directory / "agents" / agent["id"] / "token"
            assert token.exists()
    assert len(idle_instance.json("spawn", "sh", "-n", "2", "--wait", "idle")["agents"]) == 2


def agent_panes(whole: Instance) -> dict[str, int]:
    """Return the panes of agents; with no agent there may be no server at all."""
    if not os.path.exists(whole.directory / "tmux-0.sock"):
        return {}
    return pane_pids(whole)


@pytest.mark.parametrize("point", CHECKPOINT)
def test_killed_while_the_mailbox_tidies_up(running: Instance, point: str):
    """What a checkpoint moves from one file to another is in one of them, whenever it stops."""
    batch = [{"to": "operator", "body": f"{number} " + "x" * 2000} for number in range(100)]
    with running.client() as client:
        ids = [receipt.id for receipt in client.send_batch(batch)]
    running.cli("down")
    started = running.cli("up", check=False, **{VARIABLE: f"{point}:kill@1"})
    if started.returncode == 0:  # else it tidied up before it was ready, and died there
        daemon = running.pid()
        with running.client() as client:
            ids += [receipt.id for receipt in client.send_batch(batch)]
        wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    back_in_s(running)
    if started.returncode:
        with running.client() as client:
            ids += [receipt.id for receipt in client.send_batch(batch)]
    assert [message["body"] for message in messages(running, ids)] == [item["body"] for item in batch] * 2
