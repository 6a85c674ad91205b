"""How the machine stands: what the pool may take of it without being felt."""

from __future__ import annotations

import os
import re
from pathlib import Path

MEMINFO = "/proc/meminfo"  # Linux; elsewhere memory is not known, and nothing is paused for it
PLENTY_BYTES = 1 << 50  # where it is not known


def free_bytes() -> int | None:
    """Return the memory that programs can still get without swapping; None where the system does not tell."""
    return _told(rb"^MemAvailable:\s+(\d+) kB")


def total_bytes() -> int | None:
    """Return the machine's memory; None where the system does not tell."""
    return _told(rb"^MemTotal:\s+(\d+) kB")


def cores() -> int:
    """Return how many cores we and what we start may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_per_core() -> float:
    """Return how many programs want to run on each core, over the last minute."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def _told(pattern: bytes) -> int | None:
    try:
        found = re.search(pattern, Path(MEMINFO).read_bytes(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
