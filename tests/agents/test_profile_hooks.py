"""What the profiles we ship say of hooks is what the programs take, and what agentd understands."""

from __future__ import annotations

import hashlib
import json
import tomllib
from typing import Any

import pytest
from panes import BUILT_IN

from agentd.agents.places import Places
from agentd.agents.profile import Profile, read_profile
from agentd.errors import InvalidValue
from agentd.paths import Paths
from agentd.records import Agent, AgentState

HOOKED = ["claude", "codex", "gemini"]
# As Codex calls an event in the name of its trust.
LABELS = {
    "SessionStart": "session_start",
    "UserPromptSubmit": "user_prompt_submit",
    "PostToolUse": "post_tool_use",
    "PermissionRequest": "permission_request",
    "Stop": "stop",
    "Interrupt": "interrupt",
    "SessionEnd": "session_end",
}


def settings_of(profile: Profile) -> dict[str, Any]:
    """Return the hooks that a profile gives its program, whichever way."""
    if profile.files:
        (file,) = [file for file in profile.files if '"hooks"' in file.text]
        return dict(json.loads(file.text)["hooks"])
    told: dict[str, Any] = {}
    for word in profile.args:
        if word.startswith("hooks."):
            told |= tomllib.loads(word)["hooks"]
    return told


def commands(profile: Profile) -> dict[str, str]:
    return {
        event: hook["command"]
        for event, groups in settings_of(profile).items()
        if event != "state"
        for group in groups
        for hook in group["hooks"]
    }


@pytest.mark.parametrize("name", HOOKED)
def test_each_hook_names_its_event_and_each_event_is_known(name: str):
    profile = BUILT_IN.get(name)
    known = {event.partition(":")[0] for event in profile.signals.events}
    for event, command in commands(profile).items():
        assert command.endswith(f" hook {event}")
        assert event in known
    assert set(profile.signals.carries) <= set(commands(profile))


@pytest.mark.parametrize("name", HOOKED)
def test_a_program_that_is_handed_messages_is_typed_into_as_well(name: str):
    profile = BUILT_IN.get(name)
    assert profile.delivery == "both"
    assert "{session}" in profile.resume.args


def test_codex_trusts_our_hooks_and_no_others():
    """Its own rule: the hash of the event's name and the hook, written as JSON with its keys in order."""
    hooks = settings_of(BUILT_IN.get("codex"))
    wanted = {}
    for event, groups in hooks.items():
        if event == "state":
            continue
        ((hook,),) = [group["hooks"] for group in groups]
        identity = {"event_name": LABELS[event], "hooks": [{**hook, "async": False}]}
        text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode()).hexdigest()
        wanted[f"/<session-flags>/config.toml:{LABELS[event]}:0:0"] = {"trusted_hash": f"sha256:{digest}"}
    assert hooks["state"] == wanted
    assert "--dangerously-bypass-hook-trust" not in BUILT_IN.get("codex").args


@pytest.mark.parametrize("name", HOOKED)
def test_nothing_is_written_beside_the_private_directory(name: str, tmp_path):
    (tmp_path / "home").mkdir()
    root = tmp_path / "a d"
    root.mkdir(mode=0o700)
    places, profile = Places(Paths(str(root), str(root), str(root)), "i"), BUILT_IN.get(name)
    agent = Agent("1abc", "ann", name, AgentState.STARTING, cwd=str(tmp_path / "home"), resume_id="s-1")
    places.furnish(agent, profile, "t")
    words = [*places.argv(agent, profile), *places.environment(agent, profile).values()]
    assert not any(
        "{" + mark + "}" in word for word in words for mark in ("private", "cwd", "agentd", "python", "session")
    )
    assert list((tmp_path / "home").iterdir()) == []
    assert {path.parts[len(root.parts)] for path in root.rglob("*")} <= {"agents"}
    for file in profile.files:
        written = (root / "agents" / "1abc" / file.name).read_text()
        assert "{agentd}" not in written
        json.loads(written)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[signals.events]\nStop = 'finished'", "finished"),
        ("[signals.events]\n'Stop now' = 'done'", "signals.events"),
        ("[signals.carries]\nStop = 'loud'", "loud"),
        ("[resume]\nscreen = 'id (.*)'", "(?P<session>...)"),
        ("[[files]]\nname = 'token'\ntext = ''", "agentd's own"),
        ("[[files]]\nname = '../x'\ntext = ''", "files"),
    ],
)
def test_a_bad_value_is_named(text: str, why: str):
    with pytest.raises(InvalidValue) as told:
        read_profile("p", f"command = 'x'\n{text}", "p.toml")
    assert why in told.value.message
