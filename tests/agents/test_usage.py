"""What programs show of tokens and money is read off their screens as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentd.agents.profile import Profiles, read_profile
from agentd.errors import InvalidValue

SCREENS = Path(__file__).parents[1] / "screens"
PROFILES = Profiles.load("/nowhere")


COST = "Tokens: 4.2k sent, 118 received. Cost: $0.02 message, $0.31 session."
TWICE = "Tokens: 87k sent, 27 received.\n> go\nTokens: 88k sent, 40 received.\n> "


@pytest.mark.parametrize(
    ("profile", "screen", "shown"),
    [
        ("aider", f"{COST}\n────────\n> ", COST),
        ("aider", TWICE, "Tokens: 88k sent, 40 received."),
        ("opencode", "/home/dev/ws    12.3K (6%) · $0.02  ctrl+p commands", "12.3K (6%) · $0.02"),
        ("opencode", "/home/dev/ws           30 (0%)  ctrl+p commands", "30 (0%)"),
        ("opencode", "tab agents  ctrl+p commands", ""),
        ("pi", "/home/dev\n↑60 ↓120 0.0%/128k (auto)      fake-model", "↑60 ↓120 0.0%/128k"),
        ("pi", "/home/dev\n↑1.2k ↓3.4k R10k $0.012 12.5%/200k (auto)", "↑1.2k ↓3.4k R10k $0.012 12.5%/200k"),
        ("claude", "nothing of it\n❯ ", ""),
    ],
)
def test_what_is_shown(profile: str, screen: str, shown: str):
    assert PROFILES.get(profile).usage.shown_on(screen) == shown


@pytest.mark.parametrize("profile", ["aider", "opencode", "pi"])
def test_recorded_screens_show_some_and_nothing_else(profile: str):
    usage = PROFILES.get(profile).usage
    screens = [path.read_text() for path in (SCREENS / profile).glob("*.txt") if ".ansi" not in path.name]
    found = {usage.shown_on(screen) for screen in screens} - {""}
    assert found
    assert all(len(text) < 80 and any(mark in text for mark in ("%", "sent")) for text in found)


def test_a_pattern_without_the_group_is_refused():
    with pytest.raises(InvalidValue, match="usage"):
        read_profile("p", 'command = "sh"\n[usage]\nscreen = "x"\n', "p.toml")
