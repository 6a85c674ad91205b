"""Which text in a composer is ours: typed by us, or put back by the program."""

from __future__ import annotations

import pytest
from panes import BUILT_IN

from agentd.agents.composer import put_back
from agentd.agents.screen import Verdict
from agentd.records import AgentState

CLAUDE, SHELL, CODEX = (BUILT_IN.get(name) for name in ("claude", "shell", "codex"))
SHORT = "[agentd m0123456789ab from bob] hello there"
LONG = "[agentd m0123456789ab from bob, 5 lines]\n" + "\n".join(f"| {number}" for number in range(5))
WORDS = CLAUDE.input.preface.text if CLAUDE.input.preface else ""


def shows(composer: str | None) -> Verdict:
    return Verdict(AgentState.IDLE, "", draft=True, composer=composer)


@pytest.mark.parametrize(
    ("composer", "text", "ours"),
    [
        (SHORT, SHORT, True),
        ("[agentd m0123456789ab from bob]\n  hello there", SHORT, True),  # as the program broke the line
        (SHORT + " and more", SHORT, False),
        ("please " + SHORT, SHORT, False),
        ("hello there", SHORT, False),
        ("", SHORT, False),
        (None, SHORT, False),
        (SHORT, "", False),
        (WORDS + "[Pasted text #2 +5 lines]", LONG, True),
        ("[Pasted text #2 +5 lines]", LONG, False),  # a person may have pasted it
        (WORDS + LONG, LONG, True),
        (WORDS + "[Pasted text #2 +5 lines] and more", LONG, False),
        (WORDS, LONG, False),
    ],
)
def test_what_the_program_put_back(composer: str | None, text: str, ours: bool) -> None:
    assert put_back(CLAUDE, shows(composer), text) is ours


def test_the_words_of_a_command_may_be_a_persons() -> None:
    assert not put_back(SHELL, shows("ls"), "ls")


def test_without_words_before_it_a_long_text_is_known_by_itself() -> None:
    assert put_back(CODEX, shows(LONG), LONG)
    assert not put_back(CODEX, shows("[Pasted Content 900 chars]"), LONG)
