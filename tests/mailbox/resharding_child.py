"""`python resharding_child.py DIRECTORY N` is a reshard that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from agentd.config import MailboxConfig
from agentd.mailbox import resharding

resharding.BATCH_ROWS = 20  # so that the middle of copying is passed several times

if __name__ == "__main__":
    resharding.reshard(Path(sys.argv[1]), int(sys.argv[2]), MailboxConfig(reserve_mb=0), lambda *_: None)
