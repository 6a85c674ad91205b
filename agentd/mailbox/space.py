"""Keeps room on the disk for what must not fail."""

from __future__ import annotations

import os
import time
from pathlib import Path

from agentd.errors import StorageFull

_FRESH_S = 0.1  # statvfs for every send would cost a tenth of it


class Space:
    """Whether the disk is so full that the rest is kept for acknowledgements."""

    def __init__(self, directory: Path, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve_bytes = reserve_bytes
        self._asked_s = 0.0
        self._short = False

    def short(self) -> bool:
        """Tell whether less than the reserve is free, as of the last tenth of a second."""
        now_s = time.monotonic()
        if now_s - self._asked_s >= _FRESH_S:
            free = os.statvfs(self._directory)
            self._short = free.f_bavail * free.f_frsize < self._reserve_bytes
            self._asked_s = now_s
        return self._short


def full(why: str) -> StorageFull:
    """Return the error for sends that find no room."""
    return StorageFull(
        f"{why}; this was not done, and what was accepted before is safe",
        hint="free some space (or lower mailbox.reserve_mb) and do it again",
        retry_after_ms=1000,
    )
