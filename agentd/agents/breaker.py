"""Leaves a profile alone whose boots fail, for longer each time, and tries it again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from agentd.agents.backoff import backoff_s

FAILURES: Final = 3  # in a row: one can be the machine's bad moment
FIRST_S: Final = 1.0
LONGEST_S: Final = 300.0  # whoever repairs a profile does not want to wait longer than that
_DOUBLINGS: Final = 10  # beyond it the wait is the longest anyway


@dataclass(frozen=True, slots=True)
class Breaker:
    """Closed while boots succeed; open after some failures in a row; then half open, for one boot to try.

    A record of what happened: each change gives a new one.
    """

    failures: int = 0  # in a row
    opened: int = 0  # times in a row
    opened_s: float = 0.0
    wait_s: float = 0.0
    why: str = ""

    @property
    def closed(self) -> bool:
        """Tell whether boots succeed as far as is known."""
        return not self.opened

    def left_s(self, now_s: float) -> float:
        """Return for how long no boot may begin; a clock that was set back ends the wait."""
        passed_s = now_s - self.opened_s
        return max(0.0, self.wait_s - passed_s) if passed_s >= 0 else 0.0

    def failed(self, now_s: float, chance: float, why: str) -> Breaker:
        """Return it after a failed boot; `chance`, from 0 to 1, spreads the wait.

        One that failed while it is open began before that, and says nothing new.
        """
        if self.left_s(now_s) > 0:
            return self
        failures = self.failures + 1
        if failures < FAILURES:
            return replace(self, failures=failures, why=why)
        wait_s = min(LONGEST_S, backoff_s(FIRST_S, min(self.opened + 1, _DOUBLINGS), chance))
        return Breaker(failures, self.opened + 1, now_s, wait_s, why)

    def worked(self) -> Breaker:
        """Return it after a boot that succeeded, whoever began it."""
        return Breaker()

    def told(self, now_s: float) -> str:
        """Return what people are told of it; empty while it is closed."""
        if self.closed:
            return ""
        after = f"after {self.failures} boots that failed: {self.why}"
        left_s = self.left_s(now_s)
        return f"quarantined for another {left_s:.0f} s {after}" if left_s else f"tries one boot {after}"


WORKING: Final = Breaker()
