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
PAUSE_S = 0.1
DELIVERY = ("deliver.after_claim", "deliver.after_paste", "deliver.after_commit")
MAILBOX = ("mailbox.before_journal", "mailbox.before_commit", "mailbox.after_commit")
CHECKPOINT = ("mailbox.before_checkpoint", "mailbox.after_checkpoint")
SPAWN = ("spawn.before_db", "spawn.before_tmux", "spawn.after_tmux")


def rows_of(points: tuple[str, ...], turn: int, turns: range) -> list[Any]:
    """Return the deaths of each run: in the short form all after each other, each daemon mending what the last left."""
    chain = pytest.param(points, turn, id="one after the other")
    return form([chain], [pytest.param((point,), n, id=f"{point}-{n}") for point in points for n in turns])


def up_to_die(whole: Instance, point: str, turn: int) -> int:
    """Start a daemon that dies at a point, maybe while it mends what the last one left; return its pid."""
    done = whole.cli("up", check=False, **{VARIABLE: f"{point}:kill@{turn}"})
    pid = whole.pid()
    assert done.returncode == 0 or not alive(pid), done.stderr
    return pid


class Sender(threading.Thread):
    """Sends one after the other, each until it is acknowledged; at least MESSAGES, and until it is told to end."""

    def __init__(self, whole: Instance) -> None:
        super().__init__()
        self.acknowledged: dict[str, str] = {}
        self.enough, self.stop = threading.Event(), threading.Event()
        self._whole = whole

    def run(self) -> None:
        for number in itertools.count():
            if (number >= MESSAGES and self.enough.is_set()) or not self._sent(number):
                return

    def _sent(self, number: int) -> bool:
        body = f": message {number}"
        while not self.stop.wait(PAUSE_S):
            try:
                with connect(environ=self._whole.environ, autostart=False) as client:
                    self.acknowledged[client.send("a", body, key=f"m-{number}").id] = body
            except Unavailable:
                continue
            return True
        return False


def messages(whole: Instance, ids: list[str]) -> list[dict[str, Any]]:
    with whole.client() as client:
        return [client.call("messages.get", id=id_) for id_ in ids]


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
@pytest.mark.parametrize(("points", "turn"), rows_of((*DELIVERY, *MAILBOX), 2, range(1, 11)))
def test_killed_while_messages_move(idle_instance: Instance, points: tuple[str, ...], turn: int):
    """F02: what was acknowledged is read once, or again with the same id; nothing of ours stays in a composer."""
    log = idle_instance.directory / "a.log"
    idle_instance.up()
    agent = idle_instance.spawn(name="a", env={"AGENTD_DEMO_LOG": str(log)})
    idle_instance.kill()
    sender = Sender(idle_instance)
    sender.start()
    try:
        for point in points:
            daemon = up_to_die(idle_instance, point, turn)
            wait_until(lambda daemon=daemon: not alive(daemon), f"the daemon to die at {point}", 20)
        back_in_s(idle_instance)
        sender.enough.set()
        sender.join(20)
    finally:
        sender.stop.set()
        sender.join()
    acknowledged = sender.acknowledged
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
    ran = idle_instance.directory / "ran"
    daemon = up_to_die(idle_instance, "deliver.after_paste", 1)
    agent = idle_instance.spawn(profile, name="a")
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
@pytest.mark.parametrize(("points", "turn"), rows_of(SPAWN, 1, range(1, 4)))
def test_killed_while_agents_are_started(idle_instance: Instance, points: tuple[str, ...], turn: int):
    """F02, G7: every pane is an agent's and every agent that counts as alive has its pane."""
    for point in points:
        daemon = up_to_die(idle_instance, point, turn)
        check_panes(idle_instance)
        for _ in range(turn):
            idle_instance.cli("spawn", "sh", "-n", "4", check=False, AGENTD_AUTOSTART="0")
        wait_until(lambda daemon=daemon: not alive(daemon), f"the daemon to die at {point}", 20)
    back_in_s(idle_instance)
    for agent in check_panes(idle_instance):
        if agent["pid"]:
            with idle_instance.client() as client:
                client.call("agents.wait", target=agent["id"], until="idle", timeout_s=10.0)
            token = idle_instance.directory / "agents" / agent["id"] / "token"
            assert token.exists()
    assert len(idle_instance.json("spawn", "sh", "-n", "2", "--wait", "idle")["agents"]) == 2


def check_panes(whole: Instance) -> list[dict[str, Any]]:
    """Check that panes and agents that count as alive are each other's; return the agents."""
    with whole.client() as client:
        agents = client.call("agents.list")["agents"]
    assert agent_panes(whole) == {session(agent): agent["pid"] for agent in agents if agent["pid"]}
    assert {agent["state"] for agent in agents if not agent["pid"]} <= {"failed"}
    assert all(agent["reason"] for agent in agents if agent["state"] == "failed")
    return list(agents)


def agent_panes(whole: Instance) -> dict[str, int]:
    """Return the panes of agents; with no agent there may be no server at all."""
    if not os.path.exists(whole.directory / "tmux-0.sock"):
        return {}
    return pane_pids(whole)


def test_killed_while_the_mailbox_tidies_up(running: Instance):
    """What a checkpoint moves from one file to another is in one of them, whenever it stops."""
    batch = [{"to": "operator", "body": f"{number} " + "x" * 2000} for number in range(100)]
    ids = sent(running, batch)
    running.cli("down")
    for point in CHECKPOINT:
        daemon = up_to_die(running, point, 1)
        if alive(daemon):  # else it tidied up before it was ready, and died there
            ids += sent(running, batch)
            wait_until(lambda daemon=daemon: not alive(daemon), f"the daemon to die at {point}", 20)
    back_in_s(running)
    ids += sent(running, batch)
    bodies = [message["body"] for message in messages(running, ids)]
    assert bodies == [item["body"] for item in batch] * (len(ids) // len(batch))


def sent(whole: Instance, batch: list[dict[str, str]]) -> list[str]:
    with whole.client() as client:
        return [receipt.id for receipt in client.send_batch(batch)]
