"""Directories of tests that are removed although a program that just ended may still write into them."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

DEADLINE_S = 10.0


def remove(directory: Path) -> None:
    """Remove a directory; what a dying program adds meanwhile is removed, too."""
    end = time.monotonic() + DEADLINE_S
    while directory.exists() and time.monotonic() < end:
        shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():
        shutil.rmtree(directory)  # says what is in the way
