"""What hooks say, as the real programs say it and as none should: read as far as it goes, bounded, never trusted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.hook_events import ASKED_CHARS, MESSAGE_CHARS, answer_text, hear
from agentd.agents.profile import read_profile
from agentd.agents.reports import Report

PROFILE = read_profile(
    "p",
    """
command = "x"
[signals.events]
SessionStart = "ready"
UserPromptSubmit = "submitted"
PostToolUse = "tool"
PermissionRequest = "permission"
"PreToolUse:AskUserQuestion" = "question"
Notification = "ignore"
"Notification:ToolPermission" = "permission"
Stop = "done"
SessionEnd = "ended"
StopFailure = "error"
"StopFailure:rate_limit" = "rate_limit"
agent-turn-complete = "done"
[signals.carries]
PostToolUse = "context"
Stop = "block"
""",
    "p.toml",
)
SESSION = "5f0c1c9e-94a8-4a15-8b7b-0f6d6c5a0c11"
COMMON = {"session_id": SESSION, "transcript_path": "/home/u/.p/x.jsonl", "cwd": "/w"}
DANGEROUS = "\x1b[201~\r\x07\x9b\u202e\u2028"


def heard(values: Any, event: str = "", session: str = "") -> Any:
    return hear(PROFILE, event, json.dumps(values), session)


def report(name: str, **values: Any) -> Report:
    found = heard({"hook_event_name": name, **COMMON, **values}).report
    assert found is not None
    return found


def test_the_end_of_a_turn():
    found = heard({**COMMON, "hook_event_name": "Stop", "stop_hook_active": False, "last_assistant_message": "a\nb"})
    told = Report("done", "hook Stop", resume_id=SESSION, log_path="/home/u/.p/x.jsonl", answer="a\nb")
    assert (found.event, found.report, found.shape, found.again) == ("Stop", told, "block", False)
    assert report("Stop", prompt_response="c").answer == "c"
    assert heard({"hook_event_name": "Stop", "stop_hook_active": True}).again


def test_no_text_can_act_on_a_terminal():
    clean = "\ufffd[201~\ufffd\ufffd\ufffd\ufffd\ufffd"
    assert report("Stop", last_assistant_message=DANGEROUS).answer == clean
    assert report("Stop", message=DANGEROUS).message == clean
    failed = report("StopFailure", error="server_error", last_assistant_message=f"API {DANGEROUS}")
    assert (failed.message, failed.answer) == (f"API {clean}", "")


def test_the_event_is_what_the_command_line_says():
    assert heard({"hook_event_name": "Stop"}, "PostToolUse").report.means == "tool"
    assert hear(PROFILE, "Stop", "", "").report == Report("done", "hook Stop")


def test_an_event_is_told_apart_by_its_kind():
    assert report("Notification", notification_type="idle_prompt", message="m").means == "ignore"
    assert report("Notification", notification_type="ToolPermission").means == "permission"
    assert report("PreToolUse", tool_name="AskUserQuestion").means == "question"
    assert report("StopFailure", error="rate_limit").means == "rate_limit"
    assert (report("StopFailure", error="server_error").means, report("StopFailure", error="e").message) == (
        "error",
        "e",
    )
    assert heard({"hook_event_name": "PreToolUse", "tool_name": "Bash"}).report is None
    assert heard({"hook_event_name": "SomethingNew"}).report is None


@pytest.mark.parametrize(
    ("tool", "arguments", "asks"),
    [
        ("Bash", {"command": "touch p1", "description": "Make a file", "timeout": 5}, "Bash: touch p1"),
        ("Bash", {"command": "a\nb"}, "Bash: a\nb"),
        ("Bash", {"command": "ls", "unsafe": True}, 'Bash: {"command":"ls","unsafe":true}'),
        ("Write", {"file_path": "/x", "content": "y"}, 'Write: {"file_path":"/x","content":"y"}'),
        ("Bash", {"command": DANGEROUS}, "Bash: \ufffd[201~\ufffd\ufffd\ufffd\ufffd\ufffd"),
        ("Tool", {}, "Tool: {}"),
        ("Tool", "text", "Tool"),
        ("To\nol", None, "To ol"),
    ],
)
def test_what_a_permission_asks_for(tool: str, arguments: Any, asks: str):
    found = report("PermissionRequest", tool_name=tool, tool_input=arguments)
    assert (found.asks, found.message) == (asks, " ".join(asks.split()))


def test_what_gemini_asks_for():
    details = {"type": "exec", "title": "Confirm", "command": "touch p1"}
    found = report("Notification", notification_type="ToolPermission", message="Tool needs it", details=details)
    assert (found.message, found.asks) == ("Tool needs it", "exec: " + json.dumps(details, separators=(",", ":")))


def test_what_is_asked_is_whole_or_not_there():
    """A pattern must not allow what it did not see the end of."""
    room = ASKED_CHARS - len("Bash: ")
    assert len(report("PermissionRequest", tool_name="Bash", tool_input={"command": "x" * room}).asks) == ASKED_CHARS
    longer = report("PermissionRequest", tool_name="Bash", tool_input={"command": "x" * (room + 1)})
    assert longer.asks == ""
    assert len(longer.message) == MESSAGE_CHARS


@pytest.mark.parametrize(
    "id_", ["-x", "--dangerously-skip-permissions", "", "a b", "a\n", "{private}", "x" * 129, 7, None, []]
)
def test_a_session_that_would_not_be_one_harmless_word(id_: Any):
    assert report("Stop", session_id=id_).resume_id == ""


@pytest.mark.parametrize("path", ["x", "", "/x\n", "/\x1b[2J", "/" + "x" * 5000, 7, None])
def test_a_log_that_is_no_plain_path(path: Any):
    assert report("Stop", transcript_path=path).log_path == ""


def test_a_session_counts_once_it_was_spoken_to():
    assert report("SessionStart", source="startup").resume_id == ""
    assert report("SessionStart", source="resume").resume_id == SESSION
    assert report("SessionEnd", reason="prompt_input_exit").resume_id == ""
    assert report("UserPromptSubmit", prompt="hi").resume_id == SESSION


def test_a_notification_counts_for_the_session_only():
    """Codex titles a session in a hidden thread, whose turn is over long before the session's."""
    turn = {"type": "agent-turn-complete", "thread-id": "t1", "last-assistant-message": "done"}
    assert heard(turn, session="t1").report == Report("done", "hook agent-turn-complete", resume_id="t1", answer="done")
    assert heard(turn, session="t2").report is None
    assert heard(turn).report is None
    assert heard({**turn, "thread-id": None}, session="t1").report is None


def test_nothing_is_brought_to_an_agent_within_the_agent():
    assert heard({"hook_event_name": "PostToolUse"}).shape == "context"
    within = heard({"hook_event_name": "PostToolUse", "agent_id": "a1"})
    assert (within.report.means, within.shape) == ("tool", None)


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "[]",
        "null",
        '"x"',
        "7",
        '{"a":' * 200_000,
        "[" * 200_000,
        '{"session_id": "\\ud800"}',
        "\ud800",
        "{}x",
        "\0",
    ],
)
def test_what_cannot_be_read_is_an_event_all_the_same(payload: str):
    assert hear(PROFILE, "Stop", payload, "").report == Report("done", "hook Stop")
    assert hear(PROFILE, "", payload, "").report is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
KNOWN = [
    *("session_id", "transcript_path", "message", "last_assistant_message", "tool_name", "tool_input", "details"),
    *("error", "source", "notification_type", "agent_id", "stop_hook_active", "thread-id", "hook_event_name", "type"),
]


@given(st.dictionaries(st.sampled_from(KNOWN), JSON), st.sampled_from(["", *PROFILE.signals.events]))
def test_any_values_make_one_bounded_harmless_report(values: dict[str, Any], event: str):
    found = heard(values, event.partition(":")[0]).report
    if found is None:
        return
    assert len(found.message) <= MESSAGE_CHARS
    assert len(found.asks) <= ASKED_CHARS
    assert len(found.resume_id) <= 128
    assert len(found.log_path) <= 4096
    assert len(found.source) <= 105
    for text in (found.message, found.asks, found.answer, found.resume_id, found.log_path):
        text.encode()
        assert all(char.isprintable() or char in "\n\t" or ord(char) > 0x9F for char in text)


@given(st.text(), st.sampled_from(["context", "block"]))
def test_an_answer_is_one_line_of_json(text: str, shape: Any):
    written = answer_text("Stop", shape, text.encode(errors="replace").decode())
    assert "\n" not in written
    assert text.encode(errors="replace").decode() in (
        json.loads(written).get("reason"),
        json.loads(written).get("hookSpecificOutput", {}).get("additionalContext"),
    )
