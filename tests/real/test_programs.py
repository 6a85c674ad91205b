"""The real programs, each by its built-in profile: booted, sent to, asked for permission, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import programs
import pytest
import results
from instance import alive, wait_until
from model import Asked
from programs import PROGRAMS
from stage import Stage, holds, marks

from agentd.agents.shimmed import program_behind

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not programs.MAY_INSTALL, reason="the long form: ./dev real"),
]
EACH = pytest.mark.parametrize("program", list(PROGRAMS), indirect=True)

ONE_LINE = "please say what you got"
FORTY_LINES = "\n".join(f"{number}: a line of forty, with 'quotes', $VARS and ünïcode ✓" for number in range(40))
TEN_KILOBYTES = ("0123456789abcdef " * 700)[:10_240].rstrip()
SIGNS = (
    "/help me",
    "!touch {marker}",
    "@README.md is a file",
    "#remember this",
    "/etc/hosts\nis a path",
    "!touch {marker}\n!id",
)
PERMISSION_S = 1.0


def bodies(marker: Path) -> list[str]:
    """Return fifty prompts of every kind."""
    kinds = [ONE_LINE, FORTY_LINES, TEN_KILOBYTES, *(sign.format(marker=marker) for sign in SIGNS)]
    return [f"{kinds[number % len(kinds)]}" for number in range(50)]


@EACH
def test_fifty_prompts_in_a_row_each_once_and_whole(real: Stage) -> None:
    real.spawn()
    results.note(real.program, boot_s=round(real.boot_s, 2))
    marker = real.cwd / "made"
    sent = [(real.send(body), body) for body in bodies(marker)]
    asked = [real.answered(id_) for id_, _ in sent]
    said = real.conversation()
    once = [id_ for id_, _ in sent if marks(said, id_) == 1]
    whole = [id_ for (id_, body), each in zip(sent, asked, strict=True) if holds(each, body, real.program)]
    results.note(real.program, delivered=len(once), answered=sum(bool(each.answered_s) for each in asked))
    assert len(once) == len(whole) == 50
    assert not marker.exists()
    real.until("idle")


def wait_for_permission(real: Stage, marker: Path) -> tuple[str, Asked]:
    """Have the program ask whether it may run something; return the message's id and the model's question."""
    id_ = real.send(f"((tool touch {marker})) please")
    real.until("waiting")
    return id_, real.asked(id_)


@EACH
def test_a_permission_prompt_is_seen_at_once_and_answered_by_a_person_alone(real: Stage) -> None:
    real.spawn()
    marker = real.cwd / "made"
    _, asked = wait_for_permission(real, marker)
    seen = next(row for row in real.states() if row["state"] == "waiting")
    took_s = seen["at"] - asked.answered_s
    results.note(real.program, permission_ms=round(took_s * 1000))
    assert seen["waits_for"] == "permission"
    later = real.send("a message meanwhile", wait_for="")
    wait_until(lambda: "waiting" in real.message(later)["waits_for"], "the message to wait")
    assert real.message(later)["attempts"] == 0
    assert not marker.exists()
    real.whole.cli("approve", real.agent["id"])
    wait_until(marker.exists, "the command to be run")
    real.delivered(later)
    real.answered(later)
    assert took_s <= PERMISSION_S


@EACH
def test_a_denied_permission_runs_nothing(real: Stage) -> None:
    real.spawn()
    marker = real.cwd / "made"
    wait_for_permission(real, marker)
    real.whole.cli("deny", real.agent["id"])
    later = real.send("go on")
    real.answered(later)
    assert not marker.exists()


@EACH
def test_what_is_sent_while_it_works_comes_after_the_turn_in_order(real: Stage) -> None:
    """Codex would give up the running turn for a text that is entered meanwhile."""
    real.spawn()
    first = real.send("((slow 5)) take your time")
    real.until("working")
    later = [real.send(f"number {number}", wait_for="") for number in range(3)]
    for id_ in later:
        real.delivered(id_)
    turns = [real.answered(id_) for id_ in (first, *later)]
    assert turns[0].answered_s < turns[1].at_s
    told = real.conversation()
    places = [told.index(f"[agentd {id_} from") for id_ in (first, *later)]
    assert places == sorted(places)
    assert [marks(told, id_) for id_ in (first, *later)] == [1, 1, 1, 1]


@EACH
def test_a_killed_program_is_failed_and_goes_on_with_its_session_when_started_again(real: Stage) -> None:
    real.spawn()
    first = real.send("remember the word heliotrope")
    real.answered(first)
    real.until("idle")
    program = program_behind(int(real.agent["pid"]))
    os.kill(program, signal.SIGKILL)
    real.until("failed")
    assert "killed" in real.now()["reason"] or "137" in real.now()["reason"]
    waiting = real.send("what was the word", wait_for="")
    real.whole.cli("respawn", real.agent["id"])
    real.agent = real.now()
    real.until("idle")
    real.delivered(waiting)
    assert any(marks(text, first) for text in real.answered(waiting).said)
    assert not alive(program)


@EACH
def test_a_rate_limit_is_told_as_one(real: Stage) -> None:
    real.spawn()
    real.send("((http 429)) please")
    deadline = time.monotonic() + 60
    while real.now()["waits_for"] != "rate_limit":
        assert time.monotonic() < deadline, f"{real.explained()}\n{real.screen()}"
        time.sleep(0.1)


@EACH
def test_a_long_answer_is_read_whole(real: Stage) -> None:
    """Where the program has the alternate screen, tmux keeps none of what has left it."""
    real.spawn()
    id_ = real.send("((lines 300)) please")
    real.answered(id_)
    real.until("idle")
    wanted = [f"line {number} of the answer" for number in range(1, 301)]
    answer = wait_until(lambda: real.read("--answer"), "the answer")
    assert [line.strip() for line in answer.split("\n") if line.strip()] == wanted


@EACH
def test_an_interrupt_never_ends_an_idle_program(real: Stage) -> None:
    real.spawn()
    real.whole.cli("interrupt", real.agent["id"])
    real.whole.cli("interrupt", real.agent["id"])
    real.answered(real.send("are you there"))


@EACH
def test_an_interrupted_prompt_that_is_put_back_does_not_join_the_next(real: Stage) -> None:
    real.spawn()
    first = real.send("((hang 20)) nothing comes")
    real.asked(first)
    real.until("working")
    real.whole.cli("interrupt", real.agent["id"])
    second = real.send("the next one")
    prompt = real.answered(second).said[-1]
    assert (marks(prompt, second), marks(prompt, first)) == (1, 0)


@EACH
def test_a_file_named_in_a_message_is_not_attached(real: Stage) -> None:
    real.spawn()
    secret = real.home / "secret.txt"
    secret.write_text("a-canary-in-a-file\n")
    for body in (f"look at @{secret}", f"a\nb\nc\nd\n @{secret} \ne"):
        asked = real.answered(real.send(body))
        assert "a-canary-in-a-file" not in asked.raw
    real.send("((slow 3)) take your time")
    real.until("working")
    asked = real.answered(real.send(f"look at @{secret}"))  # by a hook, where it has one that brings messages
    assert "a-canary-in-a-file" not in asked.raw
    assert "secret.txt (" not in real.screen()


@EACH
def test_profile_check_says_what_it_saw(real: Stage) -> None:
    env = [word for pair in real.environment.items() for word in ("--env", "=".join(pair))]
    words = ["profile", "check", real.program.name, "--cwd", str(real.cwd), *env, "--timeout", "60", "--json"]
    done = real.whole.cli(*words, check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == 0, report
    assert "got " in report["answer"]
    assert report["proof"]


@pytest.mark.parametrize("program", ["claude", "gemini"], indirect=True)
def test_a_directory_nobody_trusted_is_asked_about_unless_it_is_said_at_the_start(real: Stage) -> None:
    real.trust_elsewhere()
    with real.whole.client() as client:
        params = {"profile": real.program.name, "name": "asks", "cwd": str(real.cwd), "env": real.environment}
        (real.agent,) = client.call("agents.spawn", params)["agents"]
    real.until("waiting")
    assert real.now()["waits_for"] == "trust"
    asking, waiting = real.agent, real.send("not yet", wait_for="")
    real.spawn("told", trust=True)
    real.answered(real.send("are you there"))
    real.agent = asking
    assert real.message(waiting)["attempts"] == 0
    assert real.now()["waits_for"] == "trust"


@EACH
def test_one_that_is_told_to_trust_its_directory_works(real: Stage) -> None:
    """Codex asks nothing anyway: its profile says what it may do. opencode has no such question."""
    real.trust_elsewhere()
    real.spawn(trust=True)
    real.answered(real.send("are you there"))
