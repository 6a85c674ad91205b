"""The demo agent in a real terminal, mode by mode."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from panes import REPOSITORY, Pane, Tmux, tmux_server

from agentd.agents.text import render
from agentd.records import Message, MessageState
from agentd.testing.demo_agent import MODES

READS = sorted(set(MODES) - {"deaf", "never-ready", "garbage", "cooked", "stubborn", "asks-late"})


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    with tmux_server() as server:
        yield server


def prompt(pane: Pane, *bodies: str) -> str:
    messages = [Message(f"m{n}", "1abc", "bob", body, MessageState.DELIVERING) for n, body in enumerate(bodies, 1)]
    return render(pane.profile, messages, lambda name: name).text


def ready(tmux: Tmux, mode: str, *extra: str, log: Path | None = None) -> Pane:
    pane = tmux.start("demo", *extra, env={"AGENTD_DEMO_MODE": mode, "AGENTD_DEMO_LOG": str(log or "")})
    pane.until_state("idle")
    return pane


def submit(pane: Pane, *bodies: str) -> None:
    pane.paste(prompt(pane, *bodies))
    pane.until_state("idle", draft=True)
    pane.type("Enter")


def rows(log: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


@pytest.mark.parametrize("mode", READS)
def test_a_paste_stands_in_the_composer_until_it_is_cleared(tmux: Tmux, mode: str) -> None:
    pane = ready(tmux, mode)
    pane.paste(prompt(pane, "one\ntwo"))
    verdict = pane.until_state("idle", draft=True)
    assert verdict.composer == "[pasted 3 lines: [agentd m1 from bob, 2 lines] | one | tw...]"
    assert pane.profile.input.placeholder is not None
    assert pane.profile.input.placeholder.search(verdict.composer)
    pane.type("C-u")
    pane.until_state("idle")
    pane.tmux.run("kill-session", "-t", pane.name)


def test_it_writes_down_and_echoes_every_message(tmux: Tmux, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pane = ready(tmux, "echo", log=log)
    submit(pane, "hello", "two\nlines", "[agentd m9 from operator] no")
    pane.until_shown("echo: [agentd m9")
    assert [(row["id"], row["from"], row["body"]) for row in rows(log)] == [
        ("m1", "bob", "hello"),
        ("m2", "bob", "two\nlines"),
        ("m3", "bob", "[agentd m9 from operator] no"),
    ]
    assert all(isinstance(row["at"], float) for row in rows(log))


def test_typed_text_is_echoed_and_long_text_wraps(tmux: Tmux) -> None:
    pane = ready(tmux, "echo")
    text = "wörd 日本 " * 20
    pane.type("-l", text)
    assert pane.until(lambda verdict: verdict.composer == text.rstrip()).draft
    pane.type("BSpace", "BSpace", "BSpace", "Enter")
    pane.until_state("idle")
    shown = pane.until_shown("echo: wörd")
    assert shown.count("demo>") == 1


def test_slow_is_seen_to_work_and_can_be_interrupted(tmux: Tmux, tmp_path: Path) -> None:
    pane = ready(tmux, "slow", "--delay", "600", log=tmp_path / "log")
    submit(pane, "hello")
    assert pane.until_state("working").composer == ""
    pane.type("-l", "typed meanwhile")
    pane.until(lambda verdict: verdict.composer == "typed meanwhile" and verdict.state == "working")
    pane.type("C-u", "C-c")
    pane.until_state("idle")
    assert "demo: interrupted" in pane.look().text
    assert not (tmp_path / "log").exists()


def test_slow_answers_after_its_delay(tmux: Tmux, tmp_path: Path) -> None:
    pane = ready(tmux, "slow", "--delay", "0.2", log=tmp_path / "log")
    submit(pane, "hello")
    pane.until_state("working")
    pane.until_state("idle")
    assert len(rows(tmp_path / "log")) == 1


def test_it_asks_for_permission_and_swallows_pastes_meanwhile(tmux: Tmux, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pane = ready(tmux, "asks-permission", log=log)
    submit(pane, "first")
    assert pane.until_state("waiting").composer is None
    pane.paste("yes please\nyes")
    pane.type("Enter")
    pane.until_state("idle")
    assert not log.exists()
    submit(pane, "second")
    pane.until_state("waiting")
    pane.type("y")
    pane.until_shown("echo: second")
    assert [row["body"] for row in rows(log)] == ["second"]
    assert "yes please" not in pane.look().text


def test_deaf_looks_ready_and_takes_nothing(tmux: Tmux) -> None:
    pane = ready(tmux, "deaf")
    pane.paste("hello")
    pane.type("Enter")
    assert pane.until_state("idle").composer == ""
    pane.tmux.run("kill-session", "-t", pane.name)


def test_never_ready_never_is(tmux: Tmux) -> None:
    pane = tmux.start("demo", "--mode", "never-ready")
    pane.until_state("starting")
    pane.paste("hello")
    pane.type("Enter", "C-d", "C-c")
    assert pane.until_state("starting").composer is None


@pytest.mark.parametrize("mode", ["crash", "exit0"])
def test_it_ends_at_the_first_prompt(tmux: Tmux, mode: str) -> None:
    pane = ready(tmux, mode)
    submit(pane, "hello")
    pane.until(lambda verdict: verdict.rule == "dead")


@pytest.mark.parametrize(
    ("mode", "typed", "status"), [("crash", b"hi\r", 1), ("exit0", b"hi\r", 0), ("echo", b"\x04", 0)]
)
def test_its_exit_status(mode: str, typed: bytes, status: int) -> None:
    """In a bare terminal: tmux 3.3 loses a status now and then."""
    master, terminal = os.openpty()
    argv = [sys.executable, "-m", "agentd.testing.demo_agent", "--mode", mode]
    with subprocess.Popen(argv, cwd=REPOSITORY, stdin=terminal, stdout=terminal) as demo:
        os.close(terminal)
        shown = b""
        while b"demo> " not in shown:
            shown += os.read(master, 4096)
        assert b"\x1b[?2004h" in shown
        os.write(master, typed)
        assert demo.wait(20) == status
    os.close(master)


def test_flood_answers_all_the_same(tmux: Tmux, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pane = ready(tmux, "flood", log=log)
    submit(pane, "hello")
    pane.until(lambda _: log.exists() and log.read_text().endswith("\n"))
    assert rows(log)[0]["body"] == "hello"
    assert "flood " in pane.look().text
    pane.tmux.run("kill-session", "-t", pane.name)


def test_garbage_is_a_screen_nobody_knows(tmux: Tmux) -> None:
    pane = tmux.start("demo", "--mode", "garbage")
    pane.until(lambda verdict: verdict.state is None and verdict.evidence != "")
    pane.tmux.run("kill-session", "-t", pane.name)


def test_cooked_takes_each_line_by_itself(tmux: Tmux, tmp_path: Path) -> None:
    log = tmp_path / "log"
    pane = ready(tmux, "cooked", log=log)
    pane.paste(prompt(pane, "one", "two\nlines"))
    pane.type("Enter")
    pane.until_shown("echo: | lines")
    assert [row["body"] for row in rows(log)] == ["one"]


def test_stubborn_ignores_being_told_to_end(tmux: Tmux) -> None:
    pane = ready(tmux, "stubborn")
    pid = pane.tmux.run("display", "-p", "-t", pane.name, "#{pane_pid}").strip()
    subprocess.run(["kill", "-TERM", pid], check=True)
    subprocess.run(["kill", "-HUP", pid], check=True)
    pane.type("-l", "still here")
    pane.until(lambda verdict: verdict.composer == "still here")
    subprocess.run(["kill", "-KILL", pid], check=True)
    pane.until(lambda verdict: verdict.rule == "dead")


@pytest.mark.parametrize("keys", [("C-d",), ("-l", "/exit")])
def test_it_can_be_told_to_exit(tmux: Tmux, keys: tuple[str, ...]) -> None:
    pane = ready(tmux, "echo")
    pane.type(*keys)
    if keys[0] == "-l":
        pane.type("Enter")
    pane.until(lambda verdict: verdict.rule == "dead")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--mode", "polite"], "no mode 'polite'; modes: echo, slow"),
        (["--mode"], "usage: "),
        (["--speed", "1"], "usage: "),
        (["--delay", "soon"], "--delay 'soon' is not a number"),
    ],
)
def test_a_wrong_option_is_said_at_once(words: list[str], said: str) -> None:
    argv = [sys.executable, "-m", "agentd.testing.demo_agent", *words]
    done = subprocess.run(argv, cwd=REPOSITORY, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 1
    assert said in done.stderr
