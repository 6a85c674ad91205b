"""Which state a screen shows: the rules by themselves, and our shells' rules against the real shells."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from panes import BUILT_IN, Pane, Seen, Tmux, tmux_server

from agentd.agents.profile import read_profile
from agentd.agents.screen import MAX_LINE_CHARS, MAX_LINES, classify
from agentd.records import AgentState

RULES = """
command = "x"
[input]
composer = '^> ?(?P<text>.*)$'
[[rules]]
state = "waiting"
screen = 'Allow'
not = 'Allowed'
composer = false
[[rules]]
state = "working"
title = '^busy'
[[rules]]
state = "working"
command = ["make", "cc"]
screen = '^cc '
tail = 2
reason = "it builds"
[[rules]]
state = "idle"
screen = '^>'
tail = 1
"""
PROFILE = read_profile("x", RULES, "x.toml")
BOXED = read_profile(
    "x",
    """
command = "x"
[input]
composer = '^(?P<text>┃(?:(?!\\n[^┃])[\\s\\S])*)\\n╹▀+(?=[^\\n]*(?:\\n[^\\n]*)?\\Z)'
frame = "┃"
hint = 'Ask anything'
[[rules]]
state = "waiting"
region = "bare"
screen = 'Allow'
[[rules]]
state = "working"
region = "above"
tail = 2
screen = 'spins'
[[rules]]
state = "working"
region = "below"
screen = 'esc'
[[rules]]
state = "idle"
region = "below"
""",
    "x.toml",
)
# What begins a box, a dialog or a spinner somewhere: 200 lines of one of them are the most work for a rule.
BOXES = {
    "rules": "─" * 120 + "\n",
    "claude": "❯ 1. Yes\n",
    "codex": "› 1. Yes · a\n\n  ",
    "opencode": "  ┃  △ \n",
    "gemini": "▄" * 120 + "\n > ",
    "aider": "─" * 120 + "\n> (Y)es/(N)o [Yes]: ",
    "errors": "● API Error 429\n■ usage limit\n✕ quota\nlitellm.RateLimitError",
}


@pytest.mark.parametrize(
    ("seen", "state", "rule"),
    [
        (Seen("Allow?\n>"), "waiting", "rules[1] waiting"),
        (Seen("Allow?\nAllowed\n>"), "idle", "rules[4] idle"),
        (Seen(">", title="busy: 3 s"), "working", "rules[2] working"),
        (Seen("cc a.c\nok\n\n  \n", command="make"), "working", "rules[3] working"),
        (Seen("cc a.c\nok", command="bash"), None, ""),
        (Seen("cc a.c\nok"), "working", "rules[3] working"),  # a saved screen has no command
        (Seen("cc a.c\n1\n2", command="cc"), None, ""),  # too far up
        (Seen(""), None, ""),
        (Seen(">", dead=True, exit_status=0), "stopped", "dead"),
        (Seen("Allow? >", dead=True, exit_status=3), "failed", "dead"),
    ],
)
def test_the_first_rule_that_matches_decides(seen: Seen, state: str | None, rule: str) -> None:
    verdict = classify(PROFILE, seen)
    assert (verdict.state, verdict.rule) == (state, rule)


def test_a_verdict_says_by_which_line() -> None:
    verdict = classify(PROFILE, Seen("first\ncc a.c   \nok"))
    assert (verdict.reason, verdict.evidence) == ("it builds", "cc a.c")
    assert classify(PROFILE, Seen("x", title="busy: 3 s")).evidence == "busy: 3 s"
    unknown = classify(PROFILE, Seen("first\nlast\n\n"))
    assert (unknown.reason, unknown.evidence) == ("no rule of its profile knows this screen", "last")


def test_text_in_the_composer_is_a_draft_whatever_the_rule_says() -> None:
    verdict = classify(PROFILE, Seen("> fix the"))
    assert (verdict.state, verdict.draft, verdict.composer) == (AgentState.IDLE, True, "fix the")
    assert classify(PROFILE, Seen(">")).composer == ""
    assert classify(PROFILE, Seen("Allow\n> x")).composer is None


@pytest.mark.parametrize(
    ("text", "state", "rule", "draft"),
    [
        ("Allow?", "waiting", "rules[1] waiting", False),
        ("Allow?\n┃\n╹▀▀▀", "idle", "rules[4] idle", False),  # said, not asked: the composer is there
        ("┃ Allow\n╹▀▀▀", "idle", "rules[4] idle", True),
        ("spins\n\n\nx\n\n┃\n╹▀▀▀", "working", "rules[2] working", False),  # lines that are not blank are counted
        ("spins\ny\nx\n┃\n╹▀▀▀", "idle", "rules[4] idle", False),
        ("esc\n┃ esc\n╹▀▀▀\nesc", "working", "rules[3] working", True),
        ("esc\n┃ esc\n╹▀▀▀\n", "idle", "rules[4] idle", True),
        ("┃ Ask anything\n╹▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀", "idle", "rules[4] idle", False),
        ("┃ Ask anything else\n╹▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀", "idle", "rules[4] idle", True),
        ("┃      sidebar\n╹▀▀▀  sidebar", "idle", "rules[4] idle", False),
        ("┃ 漢  sidebar\n╹▀▀▀▀  sidebar", "idle", "rules[4] idle", True),
        ("nothing of it", None, "", False),
    ],
)
def test_rules_look_at_the_region_they_name(text: str, state: str | None, rule: str, draft: bool) -> None:
    verdict = classify(BOXED, Seen(text))
    assert (verdict.state, verdict.rule, verdict.composer is not None and bool(verdict.composer.strip())) == (
        state,
        rule,
        draft,
    )


def test_the_frame_of_a_composer_and_what_stands_beside_it_is_not_typed() -> None:
    assert classify(BOXED, Seen("┃ one\n┃\n┃ ┃two\n╹▀▀▀▀▀")).composer == " one\n\n ┃two"
    assert classify(BOXED, Seen("┃ 漢字    side\n╹▀▀▀▀▀▀▀▀ side")).composer == " 漢字   "


def test_what_is_faint_in_a_composer_is_no_draft() -> None:
    shown, solid = "┃ hint\n╹▀▀▀▀▀", "┃     \n╹▀▀▀▀▀"
    assert classify(BOXED, Seen(shown)).draft
    assert not classify(BOXED, Seen(shown), solid).draft
    assert classify(BOXED, Seen(shown), "┃ hi  \n╹▀▀▀▀▀").composer == " hi  "


def test_no_more_is_looked_at_than_any_rule_can_see() -> None:
    assert classify(PROFILE, Seen("Allow\n" + "x\n" * MAX_LINES)).state is None


@given(st.text(st.characters(codec=None)), st.text(max_size=20), st.sampled_from(BUILT_IN.names()))
def test_no_screen_makes_it_fail(text: str, title: str, name: str) -> None:
    verdict = classify(BUILT_IN.get(name), Seen(text, title=title, command="bash"))
    assert len(verdict.evidence) <= MAX_LINE_CHARS


@pytest.mark.parametrize("name", BUILT_IN.names())
@pytest.mark.parametrize("kind", ["noise", "prompts", "blanks", "passwords", *BOXES])
def test_a_hostile_screen_is_read_in_bounded_time(name: str, kind: str) -> None:
    noise = random.Random(1)
    line = {
        "noise": "".join(chr(noise.randrange(32, 0x3000)) for _ in range(5000)),
        "prompts": "$ " * 100_000,
        "blanks": "x" + " " * 200_000 + "x",
        "passwords": "password" * 50_000,
        **{kind: text + "x" * 990 for kind, text in BOXES.items()},
    }[kind]
    screen = "\n".join([line] * 300) if kind in BOXES else "\n".join([line] * 20)
    started = time.thread_time()
    classify(BUILT_IN.get(name), Seen(screen, command="bash", title="⠋ " * 1000))
    assert time.thread_time() - started < 1.0


# -- the shells themselves


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    with tmux_server() as server:
        yield server


@pytest.fixture(params=["shell", "sh", "zsh"])
def shell(request: pytest.FixtureRequest, tmux: Tmux) -> Pane:
    if shutil.which(BUILT_IN.get(request.param).command) is None:
        pytest.skip(f"{request.param}: the program is not installed here")
    pane = tmux.start(request.param)
    pane.until_state("idle")
    return pane


def test_a_running_command_is_work_and_then_the_prompt_is_idle(shell: Pane) -> None:
    shell.type("sleep 0.3", "Enter")
    assert shell.until_state("working").composer is None
    assert shell.until_state("idle").composer == ""


def test_a_half_typed_line_is_a_draft_and_clearing_ends_it(shell: Pane) -> None:
    shell.type("echo $")
    assert shell.until(lambda verdict: verdict.composer == "echo $").draft
    shell.type(*shell.profile.input.clear_keys)
    shell.until_state("idle")


@pytest.mark.parametrize("size", [97, 98, 99, 300, 2500])
def test_a_line_longer_than_the_screen_is_wide_is_one_draft(shell: Pane, size: int) -> None:
    line = ("echo " + " ".join(str(number) for number in range(1000, 1500)))[: size - 1] + "X"
    shell.paste(line)
    verdict = shell.until(lambda verdict: (verdict.composer or "").endswith("X"))
    assert verdict.draft
    assert verdict.composer == line or size > MAX_LINE_CHARS
    shell.type(*shell.profile.input.clear_keys)
    shell.until_state("idle")


def test_a_continuation_line_is_a_draft(shell: Pane) -> None:
    shell.type('echo "a', "Enter")
    shell.until(lambda verdict: verdict.draft and verdict.evidence.startswith(">"))
    shell.type(*shell.profile.input.interrupt_keys)
    shell.until_state("idle")


def test_it_is_idle_after_clear(shell: Pane) -> None:
    shell.type("echo hi", "Enter")
    shell.until_state("idle")
    shell.type("clear", "Enter")
    shell.until(lambda verdict: verdict.state == "idle" and "hi" not in shell.look().text)


def test_output_without_a_newline_does_not_hide_the_prompt(shell: Pane) -> None:
    shell.type("printf 'no%sline\\n' new; printf 'US$'", "Enter")
    shell.until_shown("nonewline")
    shell.until_state("idle")


def test_a_password_prompt_waits_for_a_person(shell: Pane) -> None:
    shell.type("clear; exec cat", "Enter")
    shell.until_state("working")
    shell.type("Password for you:")
    shell.until_state("waiting")


def test_bash_says_itself_whether_it_is_at_its_prompt(tmux: Tmux) -> None:
    """A script, `read` and a builtin's output are all `bash` in the foreground."""
    shell = tmux.start("shell")
    shell.until_state("idle")
    shell.type("clear; echo '$'; read line", "Enter")
    shell.until(lambda verdict: verdict.evidence == "$" and verdict.state == "working")
    shell.type("x", "Enter")
    shell.until_state("idle")


def test_a_paste_of_several_lines_is_a_draft_until_it_is_entered(tmux: Tmux) -> None:
    shell = tmux.start("shell")
    shell.until_state("idle")
    shell.paste("echo one\necho two\ufffd")
    shell.until_state("idle", draft=True)
    shell.type("Enter")
    shell.until_shown("one\ntwo\ufffd")
    shell.until_state("idle")


def test_a_pointer_does_nothing_in_a_shell(shell: Pane) -> None:
    shell.paste(": agentd message m0123456789ab waits, read it with agentd msg m0123456789ab")
    shell.until_state("idle", draft=True)
    shell.type("Enter")
    shell.until_state("idle")
    assert "not found" not in shell.look().text


def test_any_program_with_a_prompt_is_read_by_generic(tmux: Tmux) -> None:
    python = tmux.start("generic", env={"AGENTD_GENERIC_COMMAND": "python3 -q -i"})
    python.until_state("idle")
    python.type("x = 1")
    python.until_state("idle", draft=True)
    python.type("C-u", "input('Really? [y/N]')", "Enter")
    python.until_state("waiting")


def test_generic_without_a_command_says_what_is_missing() -> None:
    argv = BUILT_IN.get("generic").argv()
    done = subprocess.run(argv, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "AGENTD_GENERIC_COMMAND: is not set: spawn with --env" in done.stderr
