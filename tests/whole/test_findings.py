"""What was found out about real agents, each as a promise: with a program that does the same on purpose.

The numbers are those of the findings. 1 is T06 in tests/tmux; 6 and 7 are in test_said_states and test_status_fold.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import rows
from instance import Instance, alive, instance, wait_until

from agentd.agents.profile import Profiles
from agentd.agents.screen import classify

TRAP = Path(__file__).with_name("trap.py")
PROFILE = """
command = "{{python}}"
args = ["-P", "{trap}", "{mode}", "understood"]
[boot]
settle_ms = {settle_ms}
[input]
composer = '^> ?(?P<text>.*)\\Z'
composer_tail = 1
placeholder = '\\[pasted \\d+ lines: [^\\n]*\\]'
interrupt_keys = ["{interrupt}"]
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


FOLDS = '[input.preface]\ntext = "Messages follow: "\nover_lines = 3\nover_chars = 200'
PLAIN: dict[str, Any] = {"interrupt": "x", "settle_ms": 50, "more": ""}
# Profiles: the trap's mode, and what differs from a plain one.
TRAPS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("plain", {}),
    "folds": ("plain", {"more": FOLDS}),
    "asks-on-paste": ("asks-on-paste", {}),
    "asks-late": ("asks-late", {"settle_ms": 700}),
    "acts": ("acts", {"more": "defuse = '(?<![\\w.\\\\])@'"}),
    "slow": ("slow", {}),
    "slow-c-c": ("slow", {"interrupt": "C-c"}),
    "puts-back": ("puts-back", {"more": FOLDS.replace("\nover_chars = 200", "")}),
    "early-enter": ("early-enter", {}),
    "eats-enter": ("eats-enter", {}),
    "completes": ("completes", {}),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance with a profile for each trap, and whose daemon runs."""
    with instance() as one:
        (one.directory / "profiles").mkdir()
        for name, (mode, differs) in TRAPS.items():
            text = PROFILE.format(trap=TRAP, mode=mode, **PLAIN | differs)
            (one.directory / "profiles" / f"{name}.toml").write_text(text)
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents."""
    yield shared
    shared.tidy()


class Caught:
    """An agent that runs the trap, and what it understood."""

    def __init__(self, whole: Instance, profile: str) -> None:
        self.whole = whole
        place = tempfile.mkdtemp(dir=whole.directory)
        self.log = Path(place) / "understood"
        self.agent = whole.spawn(profile, name="a", ready=profile != "asks-late", cwd=place)

    def send(self, body: str, *, wait: bool = True) -> str:
        with self.whole.client() as client:
            id_ = client.send("a", body).id
        if wait:
            wait_until(lambda: self.message(id_)["state"] == "delivered", "the message to be delivered")
        return id_

    def keys(self, *keys: str) -> None:
        with self.whole.client() as client:
            client.call("agents.keys", target="a", keys=list(keys))

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


def test_finding_2_a_question_that_comes_up_at_a_paste_is_not_answered_by_enter(whole: Instance):
    caught = Caught(whole, "asks-on-paste")
    id_ = caught.send("hello", wait=False)
    caught.until("waiting")
    history = wait_until(
        lambda: [h["detail"] for h in caught.message(id_)["history"] if "unconfirmed" in h["detail"]], "an outcome"
    )
    assert "a question came up after the paste" in history[0]
    caught.send("another", wait=False)
    assert caught.understood("approved") == []
    assert caught.message(id_)["state"] == "accepted"


def test_finding_3_and_13_a_dialog_right_after_a_composer_is_no_ready_agent(whole: Instance):
    """Enter would end the program, so it must look ready for longer than that composer stands there."""
    caught = Caught(whole, "asks-late")
    caught.send("hello", wait=False)
    caught.until("waiting")
    wait_until(lambda: "waiting" in caught.message(caught.send("x", wait=False))["waits_for"], "the message to wait")
    assert rows(caught.log) == []
    assert alive(int(caught.agent["pid"]))


def test_finding_4_no_message_is_a_command(whole: Instance):
    caught = Caught(whole, "acts")
    for number, body in enumerate(["!touch S", "/quit", "!a\n!b", "/quit\nnow", "#x", "@S"]):
        id_ = caught.send(body)
        prompt = caught.prompts(number + 1)[number]
        assert prompt.startswith(f"[agentd {id_} from operator")
        assert body.split("\n", maxsplit=1)[0].replace("@", "\\@") in prompt
        assert caught.understood("obeyed") == caught.understood("attached") == []


def test_finding_4_the_trap_does_obey_a_careless_paste(whole: Instance):
    caught = Caught(whole, "acts")
    socket, pane = caught.agent["socket"], caught.agent["pane"]
    for text in ("!touch S", "see @S"):
        caught.whole._tmux(socket, "set-buffer", "-b", "careless", text)
        caught.whole._tmux(socket, "paste-buffer", "-p", "-r", "-d", "-b", "careless", "-t", pane)
        caught.whole._tmux(socket, "send-keys", "-t", pane, "Enter")
    wait_until(lambda: caught.understood("attached") == ["S"], "the file to be attached")
    assert caught.understood("obeyed") == ["!touch S"]


def test_finding_5_words_of_ours_stand_before_what_is_folded(whole: Instance):
    caught = Caught(whole, "folds")
    caught.send("one\ntwo\nthree\nfour")
    caught.send("x" * 300)
    caught.send("short")
    long, wide, short = caught.prompts(3)
    assert long.startswith("Messages follow: [agentd ")
    assert wide.startswith("Messages follow: [agentd ")
    assert short.startswith("[agentd ")


def test_finding_8_nothing_is_entered_while_it_works(whole: Instance):
    caught = Caught(whole, "slow")
    ids = [caught.send("first")]
    ids += [caught.send(f"later {number}", wait=False) for number in range(3)]
    wait_until(lambda: all(caught.message(id_)["state"] == "delivered" for id_ in ids), "all to be delivered")
    said = "\n".join(caught.prompts(2))
    assert [said.index(id_) for id_ in ids] == sorted(said.index(id_) for id_ in ids)
    assert caught.understood("steered") == []


@pytest.mark.parametrize("body", ["short", "of\nseveral\nlines"])
def test_finding_9_a_prompt_that_was_put_back_does_not_join_the_next(whole: Instance, body: str):
    caught = Caught(whole, "puts-back")
    first = caught.send(body)
    caught.until("working")
    caught.whole.cli("interrupt", "a")
    second = caught.send("next")
    prompts = caught.prompts(2)
    assert first in prompts[0]
    assert first not in prompts[1]
    assert second in prompts[1]


def test_finding_9_a_persons_draft_is_not_taken_for_one_that_was_put_back(whole: Instance):
    caught = Caught(whole, "plain")
    caught.send("said before")
    caught.prompts(1)
    caught.keys(*"said")
    with whole.client() as client:
        wait_until(lambda: client.call("agents.explain", target="a")["draft"], "the draft to be seen")
    waiting = caught.send("next", wait=False)
    assert "half-typed" in caught.message(waiting)["waits_for"]
    assert caught.whole.screen(caught.agent).rstrip().endswith("> said")


def test_finding_10_an_interrupt_never_ends_an_idle_agent(whole: Instance):
    caught = Caught(whole, "slow-c-c")
    assert "idle" in caught.whole.cli("interrupt", "a").stdout
    assert caught.whole.json("interrupt", "a") == {"pressed": 0}
    caught.send("hello")
    caught.until("working")
    assert caught.whole.json("interrupt", "a") == {"pressed": 1}
    caught.until("idle")
    assert caught.understood("ended") == []
    caught.keys("C-c")
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
def test_finding_13_an_enter_that_was_swallowed_is_pressed_once_more(whole: Instance, mode: str):
    caught = Caught(whole, mode)
    id_ = caught.send("hello")
    assert [prompt.strip() for prompt in caught.prompts(1)] == [f"[agentd {id_} from operator] hello"]


def test_a_text_that_enter_changes_in_the_composer_is_not_called_delivered(whole: Instance):
    caught = Caught(whole, "completes")
    id_ = caught.send("see @", wait=False)
    detail = wait_until(
        lambda: [h["detail"] for h in caught.message(id_)["history"] if "unconfirmed" in h["detail"]], "an outcome"
    )[0]
    assert "Enter changed it" in detail
    assert caught.message(id_)["state"] == "accepted"
    assert caught.understood("prompt") == []


def test_finding_14_codex_leaves_no_process_behind():
    assert "--no-daemon" in Profiles.load("/nonexistent").get("codex").args


def test_an_idle_agent_receives_at_once(whole: Instance):
    caught = Caught(whole, "plain")
    begun = time.monotonic()
    caught.send("hello")
    caught.prompts(1)
    assert time.monotonic() - begun < 5.0  # and not only at its next change, which never comes
