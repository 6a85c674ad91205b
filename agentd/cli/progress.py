"""How far a long run is, for whoever watches it on a terminal."""

from __future__ import annotations

import sys
import time

AFTER_S = 1.0
EVERY_S = 0.2


class Progress:
    """One line on a terminal's stderr for runs over a second; silent elsewhere."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._started_s = self._shown_s = time.monotonic()
        self._shown = False

    @property
    def elapsed_s(self) -> float:
        """Return how long the run has taken so far; never 0."""
        return max(time.monotonic() - self._started_s, 1e-9)

    def show(self, text: str) -> None:
        """Say how far it is, a few times a second at most."""
        now_s = time.monotonic()
        if self._wanted and now_s - self._started_s > AFTER_S and now_s - self._shown_s > EVERY_S:
            self._shown, self._shown_s = True, now_s
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._shown = False
