"""Opening a store, whatever its format, as a life that can be killed."""

from __future__ import annotations

from pathlib import Path

from agentd.mailbox import layout


def run(words: list[str]) -> None:
    """Prepare a mailbox of two shards."""
    layout.prepare(Path(words[0]), 2)
