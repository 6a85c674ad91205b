"""Counters, gauges that are read when somebody asks, and how late the event loop runs."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

import anyio

LAG_PERIOD_S = 0.1
LAG_SAMPLES = 600  # a minute


class Metrics:
    """What the daemon counts; names are noun_verb_total for counters and noun_unit for gauges."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._gauges: dict[str, Callable[[], float]] = {}

    def add(self, name: str, amount: int = 1) -> None:
        """Count something."""
        self._counts[name] += amount

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Register a value that is read on demand."""
        self._gauges[name] = read

    def snapshot(self) -> dict[str, float]:
        """Return every value by name."""
        values: dict[str, float] = dict(self._counts)
        values.update((name, read()) for name, read in self._gauges.items())
        return dict(sorted(values.items()))


class LoopLag:
    """How much later than asked the event loop wakes a task: what every call that waits is late by."""

    def __init__(self) -> None:
        self._late_s: deque[float] = deque(maxlen=LAG_SAMPLES)

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            wanted_s = anyio.current_time() + LAG_PERIOD_S
            await anyio.sleep_until(wanted_s)
            self._late_s.append(anyio.current_time() - wanted_s)

    def quantile_ms(self, share: float) -> float:
        """Return the lateness that this share of the last minute's samples did not pass."""
        return quantile(sorted(self._late_s), share) * 1000


def quantile(ordered: list[float], share: float) -> float:
    """Return the value below which this share of the ordered ones lies; 0 of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
