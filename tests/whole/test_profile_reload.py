"""Profiles are taken up while the daemon runs; a bad file changes nothing and says why."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from faults import rows
from instance import Instance, wait_until

from agentd.errors import EXIT_NOT_FOUND, EXIT_USAGE

DEMO = (Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml").read_text()


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
    path = put(running, "mine", DEMO)
    assert told(running, "profile.loaded", profile="mine", what="new")["file"] == str(path)
    running.spawn("mine", name="a")
    put(running, "mine", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    told(running, "profile.loaded", profile="mine", what="changed")
    assert profile(running, "mine")["boot"]["settle_ms"] == 60
    assert profile(running, "mine")["origin"] == str(path)
    path.unlink()
    told(running, "profile.loaded", profile="mine", what="removed")
    assert running.cli("spawn", "mine", check=False).returncode == EXIT_NOT_FOUND
    running.cli("send", "a", "hello", "--wait", "acked", "--timeout", "20")  # who runs goes on with what it said


def test_an_override_gives_way_to_ours_when_it_is_removed(running: Instance):
    path = put(running, "demo", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    told(running, "profile.loaded", profile="demo", what="changed")
    path.unlink()
    told(running, "profile.loaded", profile="demo", what="removed")
    assert (profile(running, "demo")["boot"]["settle_ms"], profile(running, "demo")["origin"]) == (50, "built-in")


def test_a_bad_file_is_refused_and_the_old_one_stays(running: Instance):
    path = put(running, "mine", DEMO)
    told(running, "profile.loaded", profile="mine")
    put(running, "mine", DEMO.replace(r"'^Allow\? \[y/N\]'", "'('"))
    refused = told(running, "profile.refused", profile="mine")
    assert refused["kept"] is True
    assert refused["file"] == str(path)
    line = DEMO.split("\n").index(r"screen = '^Allow\? \[y/N\]'") + 1
    why = rf"{re.escape(str(path))}, line {line}: rules\[\d+\]\.screen: the pattern '\(' is not valid"
    assert re.match(why, refused["reason"])
    assert refused["reason"] in (running.directory / "agentd.log").read_text()
    listed = running.cli("profile", "ls").stdout
    assert f"not taken: {refused['reason']}; mine is in force as it was before" in listed
    row = next(row for row in running.json("profile", "ls") if row["name"] == "mine")
    assert row["error"] == profile(running, "mine")["error"] == refused["reason"]
    running.spawn("mine", name="a")
    running.cli("send", "a", "hello", "--wait", "acked", "--timeout", "20")
    put(running, "mine", DEMO.replace("settle_ms = 50", "settle_ms = 70"))
    told(running, "profile.loaded", profile="mine", what="changed")
    assert profile(running, "mine")["error"] is None


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
    put(running, "mine", DEMO)
    told(running, "profile.loaded", profile="mine")
    agent = running.spawn("mine", name="a")
    other = DEMO.replace('state = "idle"', 'state = "waiting"\nwaits_for = "question"')
    put(running, "mine", other.replace('command = "{python}"', 'command = "/nowhere"'))
    with running.client() as client:
        now = client.call("agents.wait", target="a", until="waiting", timeout_s=20.0)["agent"]
        assert (now["pid"], now["waits_for"]) == (agent["pid"], "question")
        put(running, "mine", DEMO)
        client.call("agents.wait", target="a", until="idle", timeout_s=20.0)
    running.cli("send", "a", "hello", "--wait", "acked", "--timeout", "20")


def test_a_stricter_policy_counts_at_once(running: Instance):
    """A prompt that stands is dealt with by the policy that comes, without a look that anybody asked for."""
    put(running, "mine", DEMO)
    told(running, "profile.loaded", profile="mine")
    log = running.directory / "log"
    env = {"AGENTD_DEMO_MODE": "asks-permission", "AGENTD_DEMO_LOG": str(log)}
    running.spawn("mine", name="a", env=env)
    running.cli("send", "a", "rm -rf build")
    wait_until(lambda: running.json("ls", "a")[0]["prompt"], "it to ask")
    put(running, "mine", DEMO.replace("[answers]", "[answers]\npolicy = 'never'"))
    assert told(running, "agent.permission", answer="deny")["by"] == "policy"
    assert rows(log) == []


def test_an_agent_whose_profile_comes_back_is_itself_again(running: Instance):
    path = put(running, "mine", DEMO)
    told(running, "profile.loaded", profile="mine")
    agent = running.spawn("mine", name="a")
    running.kill()
    path.write_text("command = ")
    running.up()
    row = wait_until(lambda: (r := running.json("ls", "a")[0])["state"] == "waiting" and r, "it to be unreadable")
    assert "is not TOML" in row["reason"]
    path.write_text(DEMO)
    with running.client() as client:
        now = client.call("agents.wait", target="a", until="idle", timeout_s=20.0)["agent"]
    assert now["pid"] == agent["pid"]


def test_a_file_that_is_being_written_is_not_taken_half(running: Instance):
    """A big file in many writes: one event in the end, and no refusal of what was half there."""
    directory = running.directory / "profiles"
    directory.mkdir(mode=0o700)
    with (directory / "mine.toml").open("w") as file:
        for line in DEMO.split("\n"):
            print(line, file=file, flush=True)
    told(running, "profile.loaded", profile="mine")
    with running.client() as client:
        assert client.call("events.list", types=["profile.refused"])["events"] == []
