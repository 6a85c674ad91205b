"""Programs go on with their session when they are started again, unless that is not wanted or not possible."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hooked import add_hooked, type_in
from instance import Instance, instance, wait_until
from scripted import add_scripted

# It names its session when it ends, refuses one called `gone`, and otherwise says which one it goes on with.
NAMING = r"""
case "$2" in gone) echo "no session gone"; exit 1;; esac
printf "session %s\nready> " "$2"; read -r id; echo "go on with: resume $id"; exit "${id:+0}"
"""
SESSIONS = r"""
[resume]
args = ["--resume", "{session}"]
screen = 'go on with: resume (?P<session>\S+)'
[stop]
text = "s-stop"
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_hooked(one)
        add_hooked(one, "lasting", more='on_lost = "respawn"')
        add_scripted(one, "naming", NAMING, SESSIONS)
        one.up()
        yield one


def ended(whole: Instance, name: str) -> dict[str, Any]:
    with whole.client() as client:
        client.call("agents.wait", target=name, until="exit", timeout_s=20.0)
        return dict(client.call("agents.get", target=name))


def again(whole: Instance, name: str, *words: str) -> dict[str, Any]:
    """Start an ended agent again and wait until it is ready."""
    whole.cli("respawn", name, *words)
    with whole.client() as client:
        client.call("agents.wait", target=name, until="idle", timeout_s=20.0)
    return dict(whole.json("show", name))


def with_a_session(whole: Instance, profile: str, **env: str) -> tuple[dict[str, Any], str]:
    agent = whole.spawn(profile, env=env)
    type_in(whole, agent["name"], "hi")
    session = wait_until(lambda: whole.json("show", agent["name"])["resume_id"], "its session")
    return agent, session


def test_a_killed_program_goes_on_and_a_fresh_one_does_not(whole: Instance):
    agent, session = with_a_session(whole, "hooked")
    name = agent["name"]
    os.kill(agent["pid"], signal.SIGKILL)
    assert ended(whole, name)["resume_id"] == session
    resumed = again(whole, name)
    assert resumed["resume_id"] == session
    assert f"session {session} goes on" in whole.screen(resumed)
    whole.cli("stop", name)
    fresh = again(whole, name, "--fresh")
    assert fresh["resume_id"] == ""
    assert "goes on" not in whole.screen(fresh)


def test_a_program_that_was_never_spoken_to_begins_anew(whole: Instance):
    agent = whole.spawn("hooked")
    os.kill(agent["pid"], signal.SIGKILL)
    ended(whole, agent["name"])
    assert "goes on" not in whole.screen(again(whole, agent["name"]))


def test_a_session_outlives_the_daemon(whole: Instance):
    agent, session = with_a_session(whole, "hooked")
    whole.kill()
    assert whole.json("show", agent["name"])["resume_id"] == session
    os.kill(agent["pid"], signal.SIGKILL)
    ended(whole, agent["name"])
    assert f"session {session} goes on" in whole.screen(again(whole, agent["name"]))


def test_a_session_named_on_the_last_screen(whole: Instance):
    agent = whole.spawn("naming")
    name = agent["name"]
    type_in(whole, name, "s-7")
    assert ended(whole, name)["resume_id"] == "s-7"
    assert "session s-7" in whole.screen(again(whole, name))
    whole.cli("stop", name)  # it names another one then
    assert whole.json("show", name)["resume_id"] == "s-stop"
    assert "session s-stop" in whole.screen(again(whole, name))
    type_in(whole, name, "--yolo")
    assert ended(whole, name)["resume_id"] == "s-stop"  # what would be an option is none


def test_a_session_that_is_gone_is_given_up(whole: Instance):
    agent = whole.spawn("naming")
    name = agent["name"]
    type_in(whole, name, "gone")
    assert ended(whole, name)["resume_id"] == "gone"
    whole.cli("respawn", name)
    told = ended(whole, name)
    assert (told["state"], told["resume_id"]) == ("failed", "")
    assert "its session gone is given up" in told["reason"]
    assert whole.screen(again(whole, name)).startswith("session\nready>")


def test_after_a_crash_of_the_tmux_server(whole: Instance, tmp_path: Path):
    agent, session = with_a_session(whole, "lasting")
    name = agent["name"]
    whole.cli("send", name, "first", "--wait", "delivered", "--timeout", "20")
    os.kill(int(whole.tmux("display", "-p", "#{pid}")), signal.SIGKILL)
    wait_until(lambda: whole.json("show", name)["pid"] not in (agent["pid"], None), "it to be started again")
    with whole.client() as client:
        client.call("agents.wait", target=name, until="idle", timeout_s=20.0)
    assert f"session {session} goes on" in whole.screen(whole.json("show", name))
