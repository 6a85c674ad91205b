"""A person's half-typed text: never typed over, never submitted, never changed; messages wait for its end."""

from __future__ import annotations

from typing import Any

import pytest
from faults import back_in_s, rows
from instance import Instance, wait_until

DRAFT = "half a thought about [agentd"
PROMPTS = {"demo": "demo> ", "shell": "$ ", "sh": "$ "}


def drafted(whole: Instance, profile: str, name: str, **env: str) -> dict[str, Any]:
    """Spawn an agent into which a person has typed a text, and wait until that is seen."""
    agent = whole.spawn(profile, name=name, env=env)
    whole.tmux("send-keys", "-t", agent["pane"], "-l", DRAFT)
    wait_until(lambda: whole.json("explain", name)["draft"], "the draft to be seen")
    return agent


def composer(whole: Instance, agent: dict[str, Any]) -> str:
    """Return the last line of an agent's screen."""
    return whole.screen(agent).rstrip("\n").rpartition("\n")[2]


def waits(whole: Instance, id_: str) -> str:
    """Return what a message that was not typed says it waits for."""
    message = whole.json("msg", id_)
    assert (message["state"], message["attempts"]) == ("accepted", 0), message
    return str(message["waits_for"])


@pytest.mark.parametrize("profile", PROMPTS)
def test_a_message_waits_until_a_draft_is_cleared(running: Instance, profile: str):
    mark = running.directory / "mark"
    body = f"touch {mark}"
    log = running.directory / "a.log"
    agent = drafted(running, profile, "a", AGENTD_DEMO_LOG=str(log))
    id_ = running.json("send", "a", body)["id"]
    other = running.spawn("sh", name="other")
    running.cli("send", "other", "true", "--wait", "delivered", "--timeout", "20")
    running.tmux("send-keys", "-t", agent["pane"], "-l", "!")  # typing goes on
    wait_until(lambda: composer(running, agent) == PROMPTS[profile] + DRAFT + "!", "the draft to stand as typed")
    explained = wait_until(lambda: (e := running.json("explain", "a"))["draft"] and e, "the draft to be seen")
    assert "half-typed" in explained["reason"]
    assert "half-typed" in explained["would_change"]
    assert "half-typed" in waits(running, id_)
    assert composer(running, agent) == PROMPTS[profile] + DRAFT + "!"
    running.tmux("send-keys", "-t", agent["pane"], "C-u")
    wait_until(lambda: running.json("msg", id_)["state"] in ("delivered", "acked"), "the message to be delivered")
    if profile == "demo":
        wait_until(lambda: [row["body"] for row in rows(log)] == [body], "it to be read alone")
    else:
        wait_until(mark.exists, "it to be run alone")
    assert other["id"] != agent["id"]


def test_a_message_waits_until_a_draft_is_submitted_by_its_writer(running: Instance):
    log = running.directory / "a.log"
    agent = drafted(running, "demo", "a", AGENTD_DEMO_LOG=str(log))
    id_ = running.json("send", "a", "hello")["id"]
    assert "half-typed" in waits(running, id_)
    running.tmux("send-keys", "-t", agent["pane"], "Enter")
    wait_until(lambda: [row["id"] for row in rows(log)] == [id_], "the message to be read")
    assert f"echo: {DRAFT}" in running.screen(agent)


@pytest.mark.parametrize("profile", PROMPTS)
def test_a_draft_outlives_the_daemon(running: Instance, profile: str):
    """The next daemon takes it for a person's, also with a message that the last one was about to type."""
    agent = drafted(running, profile, "a")
    id_ = running.json("send", "a", ": hello")["id"]
    running.kill()
    running.tmux("send-keys", "-t", agent["pane"], "-l", " and more")
    back_in_s(running)
    wait_until(lambda: running.json("explain", "a")["draft"], "the draft to be seen")
    assert "half-typed" in waits(running, id_)
    assert composer(running, agent) == PROMPTS[profile] + DRAFT + " and more"
    running.tmux("send-keys", "-t", agent["pane"], "C-u")
    wait_until(lambda: running.json("msg", id_)["state"] in ("delivered", "acked"), "the message to be delivered")


def test_a_stop_types_nothing_behind_a_draft(running: Instance):
    """`/exit` behind a draft would be a sentence; the agent is told by a signal instead."""
    agent = drafted(running, "demo", "a")
    running.cli("stop", "a")
    last = running.cli("read", "a").stdout
    assert f"demo> {DRAFT}" in last
    assert "/exit" not in last
    assert agent["pid"]
