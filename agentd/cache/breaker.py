"""Leaves alone for a while what has just failed."""

from __future__ import annotations

from collections.abc import Callable

_LONGEST_WAIT_S = 60.0


class Breaker:
    """Opens after some failures in a row; each failed trial doubles the wait until the next."""

    def __init__(self, failures: int, wait_s: float, clock: Callable[[], float]) -> None:
        self._allowed = failures
        self._first_wait_s = wait_s
        self._clock = clock
        self._failures = 0
        self._wait_s = wait_s
        self._again_s = 0.0
        self.open = False

    @property
    def trial_due(self) -> bool:
        """Return whether it is open and time to try once."""
        return self.open and self._clock() >= self._again_s

    def worked(self) -> None:
        """Close: it works."""
        self._failures, self.open, self._wait_s = 0, False, self._first_wait_s

    def failed(self) -> bool:
        """Count a failure; return whether this one opened it."""
        self._failures += 1
        if self._failures < self._allowed:
            return False
        opened = not self.open
        if not opened:
            self._wait_s = min(2 * self._wait_s, _LONGEST_WAIT_S)
        self.open, self._again_s = True, self._clock() + self._wait_s
        return opened
