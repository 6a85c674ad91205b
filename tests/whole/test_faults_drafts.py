"""A person's half-typed text: never typed over, never submitted, never changed; messages wait for its end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from faults import back_in_s, rows
from instance import Instance, instance, wait_until

DRAFT = "half a thought about [agentd"
PROMPTS = {"demo": "demo> ", "shell": "$ ", "sh": "$ "}


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Give an instance whose daemon runs; each test has agents with names of its own."""
    with instance() as whole:
        whole.up()
        yield whole


def drafted(whole: Instance, profile: str, name: str, **env: str) -> dict[str, Any]:
    """Spawn an agent into which a person has typed a text, and wait until that is seen."""
    agent = whole.spawn(profile, name=name, env=env)
    whole.tmux("send-keys", "-t", agent["pane"], "-l", DRAFT)
    seen_draft(whole, name)
    return agent


def seen_draft(whole: Instance, name: str) -> dict[str, Any]:
    """Wait until the daemon says that an agent's composer holds a draft; return its explanation."""
    with whole.client() as client:
        return dict(wait_until(lambda: (e := client.call("agents.explain", target=name))["draft"] and e, "the draft"))


def wait_delivered(whole: Instance, id_: str) -> None:
    with whole.client() as client:
        client.call("messages.wait", id=id_, until="delivered", timeout_s=30.0)


def composer(whole: Instance, agent: dict[str, Any]) -> str:
    """Return the last line of an agent's screen."""
    return whole.screen(agent).rstrip("\n").rpartition("\n")[2]


def waits(whole: Instance, id_: str) -> str:
    """Return what a message that was not typed says it waits for."""
    message = whole.message(id_)
    assert (message["state"], message["attempts"]) == ("accepted", 0), message
    return str(message["waits_for"])


@pytest.mark.parametrize("profile", PROMPTS)
def test_a_message_waits_until_a_draft_is_cleared(running: Instance, profile: str):
    name = f"cleared-{profile}"
    mark, log = running.directory / f"{name}.mark", running.directory / f"{name}.log"
    body = f"touch {mark}"
    agent = drafted(running, profile, name, AGENTD_DEMO_LOG=str(log))
    id_ = running.send(name, body)
    running.spawn("sh", name=f"beside-{profile}")
    wait_delivered(running, running.send(f"beside-{profile}", "true"))
    running.tmux("send-keys", "-t", agent["pane"], "-l", "!")  # typing goes on
    wait_until(lambda: composer(running, agent) == PROMPTS[profile] + DRAFT + "!", "the draft to stand as typed")
    explained = seen_draft(running, name)
    assert "half-typed" in explained["reason"]
    assert "half-typed" in explained["would_change"]
    assert "half-typed" in waits(running, id_)
    assert composer(running, agent) == PROMPTS[profile] + DRAFT + "!"
    running.tmux("send-keys", "-t", agent["pane"], "C-u")
    wait_delivered(running, id_)
    if profile == "demo":
        wait_until(lambda: [row["body"] for row in rows(log)] == [body], "it to be read alone")
    else:
        wait_until(mark.exists, "it to be run alone")


def test_a_message_waits_until_a_draft_is_submitted_by_its_writer(running: Instance):
    log = running.directory / "submitted.log"
    agent = drafted(running, "demo", "submitted", AGENTD_DEMO_LOG=str(log))
    id_ = running.send("submitted", "hello")
    assert "half-typed" in waits(running, id_)
    running.tmux("send-keys", "-t", agent["pane"], "Enter")
    wait_until(lambda: [row["id"] for row in rows(log)] == [id_], "the message to be read")
    assert f"echo: {DRAFT}" in running.screen(agent)


def test_a_draft_outlives_the_daemon(running: Instance):
    """The next daemon takes it for a person's, also with a message that the last one was about to type."""
    agents = {profile: drafted(running, profile, f"outlives-{profile}") for profile in PROMPTS}
    ids = {profile: running.send(agent["name"], ": hello") for profile, agent in agents.items()}
    running.kill()
    for agent in agents.values():
        running.tmux("send-keys", "-t", agent["pane"], "-l", " and more")
    back_in_s(running)
    for profile, agent in agents.items():
        seen_draft(running, agent["name"])
        assert "half-typed" in waits(running, ids[profile])
        assert composer(running, agent) == PROMPTS[profile] + DRAFT + " and more"
        running.tmux("send-keys", "-t", agent["pane"], "C-u")
        wait_delivered(running, ids[profile])


def test_a_stop_types_nothing_behind_a_draft(running: Instance):
    """`/exit` behind a draft would be a sentence; the agent is told by a signal instead."""
    agent = drafted(running, "demo", "stopped")
    running.cli("stop", "stopped")
    last = running.cli("read", "stopped").stdout
    assert f"demo> {DRAFT}" in last
    assert "/exit" not in last
    assert agent["pid"]
