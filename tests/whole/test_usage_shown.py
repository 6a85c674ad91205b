"""What an agent's program shows of its tokens is told of the agent, and stays when it has left the screen."""

from __future__ import annotations

from instance import Instance, wait_until
from scripted import add_scripted

COUNTING = r"""printf 'Used: 7 tokens\nready> '; read -r go; clear; printf 'ready> '; read -r go"""
SHOWN = r"""
[usage]
screen = '^Used: (?P<usage>[^\n]+)$'
"""


def test_usage_is_told_as_it_was_seen_last(idle_instance: Instance) -> None:
    whole = idle_instance
    add_scripted(whole, "counting", COUNTING, SHOWN)
    whole.up()
    whole.cli("spawn", "counting", "--name", "a", "--wait", "idle")
    assert whole.json("show", "a")["usage"] == "7 tokens"
    whole.cli("keys", "a", "Enter")
    wait_until(lambda: "Used" not in whole.cli("read", "a").stdout, "it to leave the screen")
    assert whole.json("show", "a")["usage"] == "7 tokens"
    assert "7 tokens" in whole.cli("show", "a").stdout
