"""How many of a kind one may still do now, of so many a minute."""

from __future__ import annotations

import math
from typing import NamedTuple


class Bucket(NamedTuple):
    """A token bucket that holds what one minute allows."""

    tokens: float
    at_s: float

    def at(self, now_s: float, per_min: int) -> Bucket:
        """Return it as it has filled up meanwhile."""
        return Bucket(min(per_min, self.tokens + (now_s - self.at_s) * per_min / 60), now_s)

    def take(self, count: int = 1) -> Bucket:
        """Return it with so many fewer."""
        return self._replace(tokens=self.tokens - count)

    def wait_ms(self, per_min: int, count: int = 1) -> int:
        """Return how long it takes until there are so many."""
        return max(0, math.ceil((count - self.tokens) * 60_000 / per_min))
