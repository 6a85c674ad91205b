"""What was found out about real agents, each as a promise: with a program that does the same on purpose.

The numbers are those of the findings. 1 is T06 in tests/tmux; 6 and 7 are in test_said_states and test_status_fold.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, alive, wait_until

from agentd.agents.profile import Profiles
from agentd.agents.screen import classify

TRAP = Path(__file__).with_name("trap.py")
PROFILE = """
command = "{{python}}"
args = ["-P", "{trap}", "{mode}", "{log}"]
[boot]
settle_ms = {settle_ms}
[input]
composer = '^> ?(?P<text>.*)\\Z'
composer_tail = 1
placeholder = '\\[pasted \\d+ lines: [^\\n]*\\]'
interrupt_keys = ["x"]
{more}
[[rules]]
state = "waiting"
waits_for = "permission"
screen = '^Run it'
tail = 2
composer = false
[[rules]]
state = "working"
screen = '^busy$'
tail = 2
[[rules]]
state = "idle"
screen = '^>'
tail = 1
"""


class Caught:
    """An agent that runs the trap, and what it understood."""

    def __init__(self, whole: Instance, mode: str, *, more: str = "", settle_ms: int = 50) -> None:
        self.whole = whole
        self.log = whole.directory / "understood"
        profiles = whole.directory / "profiles"
        profiles.mkdir()
        text = PROFILE.format(trap=TRAP, mode=mode, log=self.log, more=more, settle_ms=settle_ms)
        (profiles / "trap.toml").write_text(text)
        whole.up()
        self.agent = whole.spawn("trap", name="a", ready=mode != "asks-late")

    def send(self, body: str, *, wait: bool = True) -> str:
        with self.whole.client() as client:
            id_ = client.send("a", body).id
        if wait:
            wait_until(lambda: self.message(id_)["state"] == "delivered", "the message to be delivered")
        return id_

    def message(self, id_: str) -> dict[str, Any]:
        with self.whole.client() as client:
            return dict(client.call("messages.get", id=id_))

    def until(self, state: str) -> None:
        with self.whole.client() as client:
            client.call("agents.wait", target="a", until=state, timeout_s=20.0)

    def understood(self, what: str) -> list[str]:
        return [row[what] for row in rows(self.log) if what in row]

    def prompts(self, count: int) -> list[str]:
        wait_until(lambda: len(self.understood("prompt")) >= count, f"{count} prompts")
        return self.understood("prompt")


def test_finding_2_a_question_that_comes_up_at_a_paste_is_not_answered_by_enter(idle_instance: Instance):
    caught = Caught(idle_instance, "asks-on-paste")
    id_ = caught.send("hello", wait=False)
    caught.until("waiting")
    history = wait_until(
        lambda: [h["detail"] for h in caught.message(id_)["history"] if "unconfirmed" in h["detail"]], "an outcome"
    )
    assert "a question came up after the paste" in history[0]
    caught.whole.cli("send", "a", "another", check=False)
    assert caught.understood("approved") == []
    assert caught.message(id_)["state"] == "accepted"


def test_finding_3_and_13_a_dialog_right_after_a_composer_is_no_ready_agent(idle_instance: Instance):
    """Enter would end the program, so it must look ready for longer than that composer stands there."""
    caught = Caught(idle_instance, "asks-late", settle_ms=700)
    caught.send("hello", wait=False)
    caught.until("waiting")
    wait_until(lambda: "waiting" in caught.message(caught.send("x", wait=False))["waits_for"], "the message to wait")
    assert rows(caught.log) == []
    assert alive(int(caught.agent["pid"]))


@pytest.mark.parametrize("body", ["!touch S", "/quit", "!a\n!b", "/quit\nnow", "#x", "@S"])
def test_finding_4_no_message_is_a_command(idle_instance: Instance, body: str):
    caught = Caught(idle_instance, "acts", more="defuse = '(?<![\\w.\\\\])@'")
    id_ = caught.send(body)
    (prompt,) = caught.prompts(1)
    assert prompt.startswith(f"[agentd {id_} from operator")
    assert body.split("\n", maxsplit=1)[0].replace("@", "\\@") in prompt
    assert caught.understood("obeyed") == caught.understood("attached") == []


def test_finding_4_the_trap_does_obey_a_careless_paste(idle_instance: Instance):
    caught = Caught(idle_instance, "acts")
    socket, pane = caught.agent["socket"], caught.agent["pane"]
    for text in ("!touch S", "see @S"):
        caught.whole._tmux(socket, "set-buffer", "-b", "careless", text)
        caught.whole._tmux(socket, "paste-buffer", "-p", "-r", "-d", "-b", "careless", "-t", pane)
        caught.whole._tmux(socket, "send-keys", "-t", pane, "Enter")
    wait_until(lambda: caught.understood("attached") == ["S"], "the file to be attached")
    assert caught.understood("obeyed") == ["!touch S"]


def test_finding_5_words_of_ours_stand_before_what_is_folded(idle_instance: Instance):
    more = '[input.preface]\ntext = "Messages follow: "\nover_lines = 3\nover_chars = 200'
    caught = Caught(idle_instance, "plain", more=more)
    caught.send("one\ntwo\nthree\nfour")
    caught.send("x" * 300)
    caught.send("short")
    long, wide, short = caught.prompts(3)
    assert long.startswith("Messages follow: [agentd ")
    assert wide.startswith("Messages follow: [agentd ")
    assert short.startswith("[agentd ")


def test_finding_8_nothing_is_entered_while_it_works(idle_instance: Instance):
    caught = Caught(idle_instance, "slow")
    ids = [caught.send("first")]
    ids += [caught.send(f"later {number}", wait=False) for number in range(3)]
    wait_until(lambda: all(caught.message(id_)["state"] == "delivered" for id_ in ids), "all to be delivered")
    said = "\n".join(caught.prompts(2))
    assert [said.index(id_) for id_ in ids] == sorted(said.index(id_) for id_ in ids)
    assert caught.understood("steered") == []


@pytest.mark.parametrize("body", ["short", "of\nseveral\nlines"])
def test_finding_9_a_prompt_that_was_put_back_does_not_join_the_next(idle_instance: Instance, body: str):
    more = '[input.preface]\ntext = "Messages follow: "\nover_lines = 3'
    caught = Caught(idle_instance, "puts-back", more=more)
    first = caught.send(body)
    caught.until("working")
    caught.whole.cli("interrupt", "a")
    second = caught.send("next")
    prompts = caught.prompts(2)
    assert first in prompts[0]
    assert first not in prompts[1]
    assert second in prompts[1]


def test_finding_9_a_persons_draft_is_not_taken_for_one_that_was_put_back(idle_instance: Instance):
    caught = Caught(idle_instance, "plain")
    caught.send("said before")
    caught.prompts(1)
    caught.whole.cli("keys", "a", *"said")
    wait_until(lambda: caught.whole.json("explain", "a")["draft"], "the draft to be seen")
    waiting = caught.send("next", wait=False)
    assert "half-typed" in caught.message(waiting)["waits_for"]
    assert caught.whole.screen(caught.agent).rstrip().endswith("> said")


def test_finding_10_an_interrupt_never_ends_an_idle_agent(idle_instance: Instance):
    caught = Caught(idle_instance, "slow", more="")
    profile = caught.whole.directory / "profiles" / "trap.toml"
    profile.write_text(profile.read_text().replace('["x"]', '["C-c"]'))
    caught.whole.cli("restart")
    caught.until("idle")
    assert "idle" in caught.whole.cli("interrupt", "a").stdout
    assert caught.whole.json("interrupt", "a") == {"pressed": 0}
    caught.send("hello")
    caught.until("working")
    assert caught.whole.json("interrupt", "a") == {"pressed": 1}
    caught.until("idle")
    assert caught.understood("ended") == []
    caught.whole.cli("keys", "a", "C-c")
    wait_until(lambda: caught.understood("ended"), "the trap to end by C-c")


class DeadLook:
    text = "> "
    cursor_x = cursor_y = 0
    dead = True
    exit_status = None
    in_mode = False
    command = title = ""


@pytest.mark.parametrize("name", Profiles.load("/nonexistent").names())
def test_finding_11_a_dead_pane_is_no_ready_agent(name: str):
    assert classify(Profiles.load("/nonexistent").get(name), DeadLook()).state == "stopped"


@pytest.mark.parametrize("mode", ["early-enter", "eats-enter"])
def test_finding_13_an_enter_that_was_swallowed_is_pressed_once_more(idle_instance: Instance, mode: str):
    caught = Caught(idle_instance, mode)
    id_ = caught.send("hello")
    assert [prompt.strip() for prompt in caught.prompts(1)] == [f"[agentd {id_} from operator] hello"]


def test_a_text_that_enter_changes_in_the_composer_is_not_called_delivered(idle_instance: Instance):
    caught = Caught(idle_instance, "completes")
    id_ = caught.send("see @", wait=False)
    detail = wait_until(
        lambda: [h["detail"] for h in caught.message(id_)["history"] if "unconfirmed" in h["detail"]], "an outcome"
    )[0]
    assert "Enter changed it" in detail
    assert caught.message(id_)["state"] == "accepted"
    assert caught.understood("prompt") == []


def test_finding_14_codex_leaves_no_process_behind():
    assert "--no-daemon" in Profiles.load("/nonexistent").get("codex").args


def test_an_idle_agent_receives_at_once(idle_instance: Instance):
    caught = Caught(idle_instance, "plain")
    begun = time.monotonic()
    caught.send("hello")
    caught.prompts(1)
    assert time.monotonic() - begun < 5.0  # and not only at its next change, which never comes
