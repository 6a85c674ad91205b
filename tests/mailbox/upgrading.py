"""Steps to a version that does not exist yet; `python upgrading.py DIRECTORY` is an upgrade that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

import apsw

from agentd.mailbox import layout


def add_column(directory: Path) -> None:
    """Stand in for a step to a next version."""
    _in_each_shard(directory, f"ALTER TABLE m ADD COLUMN colour TEXT; PRAGMA user_version={layout.VERSION + 1}")


def lose_a_message(directory: Path) -> None:
    """Stand in for a step with a mistake in it."""
    _in_each_shard(directory, "DELETE FROM m WHERE seq=(SELECT max(seq) FROM m)")


def _in_each_shard(directory: Path, sql: str) -> None:
    for file in directory.glob("s*.db"):
        connection = apsw.Connection(str(file))
        connection.execute(sql).fetchall()
        connection.close()


def run(words: list[str]) -> None:
    """Upgrade once."""
    layout.prepare(Path(words[0]), 1, version=layout.VERSION + 1, upgrades={layout.VERSION: add_column})


if __name__ == "__main__":
    run(sys.argv[1:])
