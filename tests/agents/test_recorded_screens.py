"""Screens of the real programs show what a person says they show, and so do screens like them that nobody recorded."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded import COLOURED, PLAIN, RECORDED, Recorded, label_of

# What an answer looks like: it begins behind a bullet or a margin, as each program draws one.
MARGINS = {"claude": "  ", "codex": "  ", "opencode": "     ", "gemini": "  ", "aider": "", "pi": " "}
QUOTES = (
    "press esc to interrupt, or ctrl+p commands",
    "Do you want to proceed?",
    "❯ 1. Yes",
    "› 1. Yes, proceed (y)",
    "2. No, and tell me what to do (esc)",
    "Esc to cancel · Tab to amend",
    "Press enter to confirm or esc to cancel",
    "⠼ Working... (esc to cancel, 1s)",
    "• Working (3s • esc to interrupt)",
    "✻ Pondering… (3s · ↓ 12 tokens)",
    "△ Permission required",
    "┃  Allow once   Allow always   Reject  enter confirm",
    "│ ● 1. Allow once",
    "Create new file? (Y)es/(N)o [Yes]: and more",
    "● API Error: 429 Rate limit reached",
    "■ exceeded retry limit, last status: 429",
    "Do you trust the files in this folder?",
    "1. Yes, I trust this folder",
    "日本語のテキスト ✓ ünï 🙂",
    "",
)
WORDS = st.sampled_from(["Frosting", "Sautéing", "Tomfoolering", "Boondoggling", "Reading files", "考えています"])
TALL = {"opencode/special_slash_help_entered"}  # its dialog stands in the middle of 40 lines
ALIVE = [each for each in RECORDED if not each.dead]
WORKING = [each for each in ALIVE if each.label == "working"]


@pytest.mark.parametrize("ending", [PLAIN, COLOURED])
@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_a_recorded_screen_is_what_its_label_says(recorded: Recorded, ending: str) -> None:
    verdict = recorded.shows(recorded.text(ending))
    assert label_of(verdict) == recorded.label, verdict
    assert verdict.reason
    if recorded.label == "waiting":
        assert verdict.waits_for


@pytest.mark.parametrize("recorded", RECORDED, ids=str)
def test_a_dead_program_is_dead_whatever_it_left_on_its_screen(recorded: Recorded) -> None:
    assert recorded.shows(recorded.text(PLAIN), dead=True).state == "stopped"


@pytest.mark.parametrize("recorded", ALIVE, ids=str)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(
        st.one_of(
            st.sampled_from(QUOTES), st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=90)
        ),
        max_size=60,
    )
)
def test_what_was_said_above_changes_nothing(recorded: Recorded, lines: list[str]) -> None:
    margin = MARGINS[recorded.program]
    above = "\n".join((margin + line).rstrip() for line in lines)
    verdict = recorded.shows(f"{above}\n{recorded.text(PLAIN)}")
    assert label_of(verdict) == recorded.label, verdict


@pytest.mark.parametrize("recorded", ALIVE, ids=str)
def test_blank_lines_below_and_what_scrolled_away_change_nothing(recorded: Recorded) -> None:
    lines = recorded.text(PLAIN).rstrip("\n").split("\n")
    kept = lines if recorded.name in TALL else lines[-22:]
    for shown in ("\n".join([*lines, "", "   ", ""]), "\n".join(kept)):
        assert label_of(recorded.shows(shown)) == recorded.label


@pytest.mark.parametrize("recorded", WORKING, ids=str)
@settings(max_examples=10, deadline=None)
@given(
    word=WORDS,
    seconds=st.integers(0, 59),
    minutes=st.integers(0, 90),
    frame=st.characters(min_codepoint=0x2801, max_codepoint=0x28FF),
)
def test_work_is_work_by_any_verb_and_however_long(
    recorded: Recorded, word: str, seconds: int, minutes: int, frame: str
) -> None:
    took = f"{minutes}m {seconds}s" if minutes else f"{seconds}s"
    text = re.sub(r"(?m)^([·✢✳✶✻✽*] )\S+…", rf"\g<1>{word}…", recorded.text(PLAIN))
    text = re.sub(r"\b\d+s( [•·]|\))", rf"{took}\1", text)
    text = re.sub(r"[⠁-⣿](?= \S+\.\.\.)", frame, text)
    title = re.sub(r"^[⠁-⣿]", frame, recorded.fact("pane_title"))
    verdict = recorded.shows(text, title=title)
    assert label_of(verdict) == "working", verdict


@pytest.mark.parametrize("recorded", ALIVE, ids=str)
def test_other_names_of_models_and_directories_change_nothing(recorded: Recorded) -> None:
    text = recorded.text(PLAIN)
    for old, new in (("fake-model", "gpt-9.1-codex xhigh"), ("Opus 5.5", "Sonnet 9"), ("gemini-2.5-flash", "auto")):
        text = text.replace(old, new)
    text = re.sub(r"/home/dev/ws/\w+|/srv/agents/ws/\w+", "~/src/esc/enter/trust", text)
    assert label_of(recorded.shows(text)) == recorded.label


@pytest.mark.parametrize(
    ("name", "waits_for"),
    [
        ("claude/permission_write", "permission"),
        ("claude/permission_mcp", "permission"),
        ("claude/ask_user_question", "question"),
        ("claude/trust_dialog", "trust"),
        ("claude/api_key_dialog", "login"),
        ("claude/rate_limited_429_retrying", "rate_limit"),
        ("codex/permission_bash", "permission"),
        ("codex/permission_mcp", "permission"),
        ("codex/trust_dialog", "trust"),
        ("codex/hooks_trust_review", "trust"),
        ("opencode/permission_80x24", "permission"),
        ("opencode/ask_question", "question"),
        ("gemini/permission_bash", "permission"),
        ("gemini/permission_mcp", "permission"),
        ("gemini/ask_user", "question"),
        ("aider/permission_after_paste", "permission"),
    ],
)
def test_it_is_told_what_an_agent_waits_for(name: str, waits_for: str) -> None:
    recorded = next(each for each in RECORDED if each.name == name)
    assert recorded.shows(recorded.text(COLOURED)).waits_for == waits_for


def test_a_ready_title_does_not_hide_a_dialog_of_gemini() -> None:
    recorded = next(each for each in RECORDED if each.name == "gemini/first_boot")
    assert recorded.fact("pane_title").startswith("◇  Ready")
    assert recorded.shows(recorded.text(PLAIN)).waits_for == "trust"


@pytest.mark.parametrize("name", ["codex/working_noaltscreen", "codex/working_with_queued_tab"])
def test_the_title_alone_says_that_codex_streams_an_answer(name: str) -> None:
    recorded = next(each for each in RECORDED if each.name == name)
    assert "esc to interrupt" not in recorded.text(PLAIN)
    assert recorded.shows(recorded.text(PLAIN)).state == "working"
    assert recorded.shows(recorded.text(PLAIN), title="codex").state == "idle"  # so the title is what tells


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("claude/overloaded_529_failed", "Resend your message to try again"),
        ("codex/idle_after_answer", "Ask Codex to do anything"),
        ("opencode/ready", "Ask anything…"),
        ("gemini/idle_after_answer", "Type your message or @path/to/file"),
    ],
)
def test_a_hint_is_no_draft_and_the_same_words_drawn_as_text_are(name: str, hint: str) -> None:
    recorded = next(each for each in RECORDED if each.name == name)
    for ending in (PLAIN, COLOURED):
        assert hint.split(maxsplit=1)[0][1:] in recorded.text(ending)
        verdict = recorded.shows(recorded.text(ending))
        assert (verdict.state, verdict.draft) == ("idle", False)
    typed = recorded.text(PLAIN).replace(hint, "x" + hint[1:])
    assert recorded.shows(typed).draft
