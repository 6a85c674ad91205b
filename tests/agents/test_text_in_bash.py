"""Hostile bodies pasted into a real bash, as they are typed into agents (T01, T02, T03, T04)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from panes import Pane, Tmux, tmux_server

from agentd.agents.text import render
from agentd.records import Message, MessageState

BREAKOUTS = ["x\x1b[201~\rtouch S\r", "x\x1b[20\x1b[201~1~\rtouch S\r", "x\x9b201~\rtouch S\r"]
CONTROLS = {f"C-{chr(code + 64)}": chr(code) for code in b"\x03\x04\x1a\x1c\x15\x17\x16\x12\x0f\x13\x11"}


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    with tmux_server() as server:
        yield server


def text_of(pane: Pane, body: str) -> str:
    message = Message("m1", "1abc", "eve", body, MessageState.DELIVERING)
    return render(pane.profile, [message], lambda name: name).text


def at_prompt(tmux: Tmux, profile: str, directory: Path) -> Pane:
    pane = tmux.start(profile)
    pane.until_state("idle")
    pane.type(f"cd {directory}; clear", "Enter")
    pane.until_state("idle")
    return pane


@pytest.mark.parametrize("body", BREAKOUTS)
def test_a_paste_cannot_be_broken_out_of(tmux: Tmux, tmp_path: Path, body: str) -> None:
    pane = at_prompt(tmux, "shell", tmp_path)
    pane.paste(text_of(pane, body))
    verdict = pane.until(lambda verdict: "touch S" in (verdict.composer or ""))
    assert verdict.draft
    pane.type("C-u", "ls -a; echo done", "Enter")
    pane.until_shown("\ndone")
    assert not (tmp_path / "S").exists()


@pytest.mark.parametrize("char", CONTROLS.values(), ids=CONTROLS)
def test_a_control_character_does_nothing_to_what_runs(tmux: Tmux, tmp_path: Path, char: str) -> None:
    pane = at_prompt(tmux, "shell", tmp_path)
    pane.type("sleep 600", "Enter")
    pane.until_state("working")
    pane.paste(text_of(pane, f"{char}touch S"))
    pane.until_shown("touch S")
    assert pane.until_state("working").evidence != "$"
    assert pane.look().command == "sleep"
    assert not (tmp_path / "S").exists()
    pane.tmux.run("kill-session", "-t", pane.name)


def test_several_lines_never_reach_a_shell_that_would_run_each(tmux: Tmux, tmp_path: Path) -> None:
    pane = at_prompt(tmux, "sh", tmp_path)
    pane.paste(text_of(pane, "a\ntouch S\n"))
    pane.until(lambda verdict: verdict.composer == ": agentd message m1 waits, read it with agentd msg m1")
    pane.type("Enter")
    pane.until_state("idle")
    assert not (tmp_path / "S").exists()
