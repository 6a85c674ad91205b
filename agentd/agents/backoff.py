"""How long to wait before the next attempt."""

from __future__ import annotations

from typing import Final

LONGEST_S: Final = 600.0
JITTER: Final = 0.2  # more or less by this share, so that what failed together does not come back together


def backoff_s(first_s: float, attempt: int, chance: float) -> float:
    """Return the wait after a failed attempt; `chance`, from 0 to 1, chooses within the jitter."""
    return min(first_s * 2.0 ** (attempt - 1), LONGEST_S) * (1 - JITTER + 2 * JITTER * chance)
