"""Counters, and gauges that are read when somebody asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable


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
