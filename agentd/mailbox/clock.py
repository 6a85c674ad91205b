"""Time that never jumps."""

from __future__ import annotations

import time
from collections.abc import Callable


def elapsed_ns() -> int:
    """Return nanoseconds of a clock that counts sleep where the system has one, and that nobody can set."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


class SteadyClock:
    """The wall clock as it stood when we started, carried on by a clock that cannot be set.

    Leases, back-off, time to live and ids follow `now_ns`; only what people read follows `wall_ns`.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, elapsed: Callable[[], int] = elapsed_ns) -> None:
        self.wall_ns = wall
        self._elapsed = elapsed
        self._offset_ns = wall() - elapsed()

    def now_ns(self) -> int:
        """Return the time in nanoseconds since 1970, give or take what the wall clock jumped meanwhile."""
        return self._elapsed() + self._offset_ns

    def not_before(self, ns: int) -> None:
        """Go on from a time that was already used, should the wall clock have been set back while we were away."""
        self._offset_ns = max(self._offset_ns, ns - self._elapsed())
