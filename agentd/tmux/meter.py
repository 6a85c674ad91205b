"""What is counted of one way to a tmux server."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from agentd.tmux.breaker import Breaker

_RECENT = 512  # commands whose times are kept


class Meter:
    """Counts the commands of one channel, and tells the breaker which were answered."""

    def __init__(self, role: str, breaker: Breaker) -> None:
        self.role = role
        self._breaker = breaker
        self.commands = 0
        self.errors = 0
        self.timeouts = 0
        self.opened = 0
        self._recent_s: deque[float] = deque(maxlen=_RECENT)
        self._ordered_s: list[float] | None = None  # the same, sorted; kept, for most are idle between two looks
        self._served_s: deque[float] = deque(maxlen=_RECENT)  # without the time behind the command before
        self._heard_s = 0.0

    def sent(self) -> float:
        """Count a command; return the time, to be given back with its outcome."""
        self.commands += 1
        return time.monotonic()

    def answered(self, sent_s: float, heard_s: float, *, ok: bool) -> None:
        """Count an answer."""
        self._recent_s.append(heard_s - sent_s)
        self._served_s.append(heard_s - max(sent_s, self._heard_s))
        self._heard_s = heard_s
        self._ordered_s = None
        self.errors += not ok
        self._breaker.answered(heard_s)

    def timed_out(self, sent_s: float) -> None:
        """Count a command that got none in its time."""
        self.timeouts += 1
        self._breaker.timed_out(sent_s)

    def row(self, *, pid: int = 0, pending: int = 0) -> dict[str, Any]:
        """Return what is told of it."""
        if self._ordered_s is None:
            self._ordered_s = sorted(self._recent_s)
        return {
            "role": self.role,
            "pid": pid,
            "commands": self.commands,
            "pending": pending,
            "errors": self.errors,
            "timeouts": self.timeouts,
            "reconnects": max(0, self.opened - 1),
            "each_ms": _quantile_ms(sorted(self._served_s), 0.5),
            "p50_ms": _quantile_ms(self._ordered_s, 0.5),
            "p99_ms": _quantile_ms(self._ordered_s, 0.99),
        }


def _quantile_ms(ordered: list[float], share: float) -> float:
    return round(ordered[int(share * (len(ordered) - 1))] * 1000, 3) if ordered else 0.0
