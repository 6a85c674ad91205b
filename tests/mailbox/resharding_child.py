"""`python resharding_child.py DIRECTORY N` is a reshard that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from agentd.config import MailboxConfig
from agentd.mailbox import resharding

resharding.BATCH_ROWS = 20  # so that the middle of copying is passed several times


def run(words: list[str]) -> None:
    """Reshard once."""
    resharding.reshard(Path(words[0]), int(words[1]), MailboxConfig(reserve_mb=0), lambda *_: None)


if __name__ == "__main__":
    run(sys.argv[1:])
