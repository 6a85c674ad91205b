"""Profiles are taken up while the daemon runs; a bad file changes nothing and says why."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, instance, wait_until

from agentd.errors import EXIT_NOT_FOUND, EXIT_USAGE

DEMO = (Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml").read_text()


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Give an instance whose daemon runs, for all of these tests: each has a profile and an agent of its own."""
    with instance() as whole:
        whole.up()
        yield whole


def answers(whole: Instance, name: str) -> None:
    """Check that an agent reads and acknowledges a message."""
    with whole.client() as client:
        client.call("messages.wait", id=client.send(name, "hello").id, until="acked", timeout_s=20.0)


def put(whole: Instance, name: str, text: str) -> Path:
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    path = directory / f"{name}.toml"
    path.write_text(text)
    return path


def told(whole: Instance, type_: str, **wanted: Any) -> dict[str, Any]:
    """Wait for an event with these values; return its data."""

    def found() -> dict[str, Any] | None:
        with whole.client() as client:
            events = client.call("events.list", types=[type_], limit=10_000)["events"]
        return next((e["data"] for e in events if wanted.items() <= e["data"].items()), None)

    return dict(wait_until(found, f"{type_} with {wanted}"))


def profile(whole: Instance, name: str) -> dict[str, Any]:
    with whole.client() as client:
        return dict(client.call("profiles.get", name=name))


def test_a_new_a_changed_and_a_removed_file(running: Instance):
    path = put(running, "new", DEMO)
    assert told(running, "profile.loaded", profile="new", what="new")["file"] == str(path)
    running.spawn("new", name="reader")
    put(running, "new", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    told(running, "profile.loaded", profile="new", what="changed")
    assert profile(running, "new")["boot"]["settle_ms"] == 60
    assert profile(running, "new")["origin"] == str(path)
    path.unlink()
    told(running, "profile.loaded", profile="new", what="removed")
    assert running.cli("spawn", "new", check=False).returncode == EXIT_NOT_FOUND
    answers(running, "reader")  # who runs goes on with what it said


def test_an_override_gives_way_to_ours_when_it_is_removed(running: Instance):
    path = put(running, "demo", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    told(running, "profile.loaded", profile="demo", what="changed")
    path.unlink()
    told(running, "profile.loaded", profile="demo", what="removed")
    assert (profile(running, "demo")["boot"]["settle_ms"], profile(running, "demo")["origin"]) == (50, "built-in")


def test_a_bad_file_is_refused_and_the_old_one_stays(running: Instance):
    path = put(running, "broken", DEMO)
    told(running, "profile.loaded", profile="broken")
    put(running, "broken", DEMO.replace(r"'^Allow\? \[y/N\]'", "'('"))
    refused = told(running, "profile.refused", profile="broken")
    assert refused["kept"] is True
    assert refused["file"] == str(path)
    line = DEMO.split("\n").index(r"screen = '^Allow\? \[y/N\]'") + 1
    why = rf"{re.escape(str(path))}, line {line}: rules\[\d+\]\.screen: the pattern '\(' is not valid"
    assert re.match(why, refused["reason"])
    assert refused["reason"] in (running.directory / "agentd.log").read_text()
    listed = running.cli("profile", "ls").stdout
    assert f"not taken: {refused['reason']}; broken is in force as it was before" in listed
    row = next(row for row in running.json("profile", "ls") if row["name"] == "broken")
    assert row["error"] == profile(running, "broken")["error"] == refused["reason"]
    running.spawn("broken", name="kept")
    answers(running, "kept")
    put(running, "broken", DEMO.replace("settle_ms = 50", "settle_ms = 70"))
    told(running, "profile.loaded", profile="broken", what="changed")
    assert profile(running, "broken")["error"] is None


def test_a_bad_file_at_the_start_harms_nobody_else(idle_instance: Instance):
    path = put(idle_instance, "mine", "command = ")
    put(idle_instance, "demo", "nonsense")
    idle_instance.up()
    assert told(idle_instance, "profile.refused", profile="mine")["kept"] is False
    refused = idle_instance.cli("spawn", "mine", check=False)
    assert refused.returncode == EXIT_USAGE
    assert f"{path} is not TOML" in refused.stderr
    assert idle_instance.cli("spawn", "demo", check=False).returncode == EXIT_USAGE  # ours is not what was asked for
    idle_instance.spawn("sh", name="s")
    put(idle_instance, "mine", DEMO)
    told(idle_instance, "profile.loaded", profile="mine", what="new")
    idle_instance.spawn("mine")


def test_an_agent_that_runs_takes_new_rules_and_keeps_its_program(running: Instance):
    """What is idle by the old rules waits by the new ones; its program is not touched."""
    put(running, "ruled", DEMO)
    told(running, "profile.loaded", profile="ruled")
    agent = running.spawn("ruled", name="ruled")
    other = DEMO.replace('state = "idle"', 'state = "waiting"\nwaits_for = "question"')
    put(running, "ruled", other.replace('command = "{python}"', 'command = "/nowhere"'))
    with running.client() as client:
        now = client.call("agents.wait", target="ruled", until="waiting", timeout_s=20.0)["agent"]
        assert (now["pid"], now["waits_for"]) == (agent["pid"], "question")
        put(running, "ruled", DEMO)
        client.call("agents.wait", target="ruled", until="idle", timeout_s=20.0)
    answers(running, "ruled")


def test_a_stricter_policy_counts_at_once(running: Instance):
    """A prompt that stands is dealt with by the policy that comes, without a look that anybody asked for."""
    put(running, "strict", DEMO)
    told(running, "profile.loaded", profile="strict")
    log = running.directory / "log"
    env = {"AGENTD_DEMO_MODE": "asks-permission", "AGENTD_DEMO_LOG": str(log)}
    running.spawn("strict", name="asks", env=env)
    with running.client() as client:
        client.send("asks", "rm -rf build")
        wait_until(lambda: client.call("agents.get", target="asks")["prompt"], "it to ask")
    put(running, "strict", DEMO.replace("[answers]", "[answers]\npolicy = 'never'"))
    assert told(running, "agent.permission", answer="deny")["by"] == "policy"
    assert rows(log) == []


def test_an_agent_whose_profile_comes_back_is_itself_again(running: Instance):
    path = put(running, "back", DEMO)
    told(running, "profile.loaded", profile="back")
    agent = running.spawn("back", name="back")
    running.kill()
    path.write_text("command = ")
    running.up()
    with running.client() as client:
        row = wait_until(
            lambda: (r := client.call("agents.get", target="back"))["state"] == "waiting" and r, "it to be unreadable"
        )
        assert "is not TOML" in row["reason"]
        path.write_text(DEMO)
        now = client.call("agents.wait", target="back", until="idle", timeout_s=20.0)["agent"]
    assert now["pid"] == agent["pid"]


def test_a_file_that_is_being_written_is_not_taken_half(running: Instance):
    """A big file in many writes: one event in the end, and no refusal of what was half there."""
    directory = running.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    with (directory / "slow.toml").open("w") as file:
        for line in DEMO.split("\n"):
            print(line, file=file, flush=True)
    told(running, "profile.loaded", profile="slow")
    with running.client() as client:
        refused = client.call("events.list", types=["profile.refused"])["events"]
    assert not [event for event in refused if event["data"].get("profile") == "slow"]
