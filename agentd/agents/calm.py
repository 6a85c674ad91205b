"""The moment after a claim in which nothing else is begun: a boot takes the cores from the prompt being typed."""

from __future__ import annotations

from typing import Final

CALM_S: Final = 0.15  # after a claim, before a refill
LONGEST_CALM_S: Final = 1.0  # however many claims follow each other


class Calm:
    """No boot of the pool begins until `until_s`."""

    def __init__(self) -> None:
        self.until_s = 0.0
        self._since_s = 0.0

    def keep(self, now_s: float) -> None:
        """Begin no boot for a moment, however many claims follow each other not for long."""
        if now_s >= self.until_s:
            self._since_s = now_s
        self.until_s = min(now_s + CALM_S, self._since_s + LONGEST_CALM_S)
