"""How long something takes, on the whole and lately."""

from __future__ import annotations

_WEIGHT = 1 / 8  # of the newest measurement in what is called lately


class Timing:
    """A running mean."""

    def __init__(self) -> None:
        self._count = 0
        self._total_s = 0.0
        self.lately_s = 0.0

    def add(self, took_s: float) -> None:
        """Count one measurement."""
        self._count += 1
        self._total_s += took_s
        self.lately_s += _WEIGHT * (took_s - self.lately_s)

    @property
    def mean_us(self) -> float | None:
        """Return the mean of all, None before the first."""
        return round(self._total_s / self._count * 1e6, 3) if self._count else None
