"""The daemon dies between the paste and Enter: the next one takes its own text away, and only its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from faults import back_in_s
from instance import Instance, wait_until

PROFILES = Path(__file__).parents[2] / "agentd/agents/profiles"
LINES = {"demo": 3, "shell": 3, "sh": 1}  # sent at once; a line reader is given one


def slow_to_enter(whole: Instance, profile: str) -> None:
    """Give the instance a profile that waits between paste and Enter, long enough to be killed in."""
    directory = whole.directory / "profiles"
    directory.mkdir(mode=0o700)
    text = (PROFILES / f"{profile}.toml").read_text()
    (directory / f"{profile}.toml").write_text(text.replace("[input]", "[input]\nenter_delay_ms = 800"))


def pasted(whole: Instance, profile: str) -> tuple[dict[str, Any], str, Path]:
    """Have a text stand in a composer; return the agent, the message and what running it makes."""
    slow_to_enter(whole, profile)
    whole.up("courier.confirm_s=1", "courier.backoff_s=0.1")
    agent = whole.spawn(profile, name="a", env={"AGENTD_DEMO_LOG": str(whole.directory / "ran")})
    ran = whole.directory / "ran"
    body = "\n".join([f"echo ran >> {ran}", *[f": line {n}" for n in range(LINES[profile] - 1)]])
    id_ = whole.json("send", "a", body)["id"]
    shown = "[pasted" if profile == "demo" else body.rpartition("\n")[2]
    wait_until(lambda: shown in whole.screen(agent), "the paste to show")
    return agent, id_, ran


def killed_before_enter(whole: Instance, profile: str) -> tuple[dict[str, Any], str, Path]:
    """Kill the daemon while its text stands in a composer."""
    agent, id_, ran = pasted(whole, profile)
    before = last_line(whole, agent)
    whole.kill()
    assert last_line(whole, agent) == before
    assert not ran.exists()
    return agent, id_, ran


@pytest.mark.parametrize("profile", ["demo", "sh"])
def test_what_a_person_types_between_paste_and_enter_is_not_entered(idle_instance: Instance, profile: str):
    """With a daemon that lives: it sees the words, presses no Enter, and leaves the line to the person."""
    agent, id_, ran = pasted(idle_instance, profile)
    idle_instance.tmux("send-keys", "-t", agent["pane"], "-l", " and I")
    wait_until(lambda: idle_instance.json("msg", id_)["state"] == "accepted", "the attempt to be given up")
    assert "not pressed" in idle_instance.json("msg", id_)["history"][-1]["detail"]
    wait_until(lambda: idle_instance.json("explain", "a")["draft"], "the draft to be seen")
    assert last_line(idle_instance, agent).endswith(" and I")
    assert not ran.exists()
    idle_instance.cli("keys", "a", "C-c")
    wait_until(lambda: delivered(idle_instance, id_), "the message to be delivered")
    wait_until(ran.exists, "it to be run")
    assert len(ran.read_text().splitlines()) == 1


def last_line(whole: Instance, agent: dict[str, Any]) -> str:
    return whole.screen(agent).rstrip().rpartition("\n")[2].rstrip()


def delivered(whole: Instance, id_: str) -> bool:
    return whole.json("msg", id_)["state"] in ("delivered", "acked")


@pytest.mark.parametrize("profile", LINES)
def test_text_that_was_never_entered_is_taken_away_and_typed_again(idle_instance: Instance, profile: str):
    agent, id_, ran = killed_before_enter(idle_instance, profile)
    back_in_s(idle_instance)
    wait_until(lambda: delivered(idle_instance, id_), "the message to be delivered")
    wait_until(ran.exists, "it to be run")
    wait_until(lambda: last_line(idle_instance, agent) in ("$", "demo>"), "an empty composer", 5)
    assert len(ran.read_text().splitlines()) == 1


@pytest.mark.parametrize("profile", ["demo", "shell"])
def test_what_a_person_typed_behind_it_is_left_alone(idle_instance: Instance, profile: str):
    """It is a person's matter now; when the line is empty again the message comes."""
    agent, id_, ran = killed_before_enter(idle_instance, profile)
    idle_instance.tmux("send-keys", "-t", agent["pane"], "-l", " and I")
    wait_until(lambda: idle_instance.screen(agent).rstrip().endswith(" and I"), "the person's words to show")
    before = last_line(idle_instance, agent)
    back_in_s(idle_instance)
    wait_until(lambda: idle_instance.json("explain", "a")["draft"], "the draft to be seen")
    other = idle_instance.spawn("shell" if profile == "sh" else "sh", name="other")
    idle_instance.cli("send", "other", "true", "--wait", "delivered", "--timeout", "20")
    assert last_line(idle_instance, agent) == before
    assert idle_instance.json("msg", id_)["state"] == "accepted"
    idle_instance.cli("keys", "a", "C-c")
    wait_until(lambda: delivered(idle_instance, id_), "the message to be delivered")
    wait_until(ran.exists, "it to be run")
    assert len(ran.read_text().splitlines()) == 1
    assert other["pid"]


def test_a_person_may_type_what_was_once_ours(idle_instance: Instance):
    """Text is ours because of when it was typed, not because of how it reads."""
    agent, id_, ran = killed_before_enter(idle_instance, "sh")
    back_in_s(idle_instance)
    wait_until(lambda: delivered(idle_instance, id_), "the message to be delivered")
    line = f"echo ran >> {ran}"
    idle_instance.tmux("send-keys", "-t", agent["pane"], "-l", line)
    wait_until(lambda: idle_instance.json("explain", "a")["draft"], "the draft to be seen")
    idle_instance.spawn("shell", name="other")
    idle_instance.cli("send", "other", "true", "--wait", "delivered", "--timeout", "20")
    assert last_line(idle_instance, agent) == f"$ {line}"
