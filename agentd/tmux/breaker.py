"""Notices that a tmux server has stopped answering, so that nobody waits for it in vain."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from agentd.tmux.failures import TmuxUnavailable

_TIMEOUTS = 2  # on two connections, or in two processes: a timeout ends its connection, so one of them counts once


class Breaker:
    """Closed while the server answers; open after several timeouts in a row with no answer in between.

    Whoever probes an open one tells it of the answer; that closes it.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._answered_s = now_s()
        self._timeouts = 0
        self._silent_since_s = 0.0
        self.opened = 0

    @property
    def open(self) -> bool:
        """Tell whether calls fail at once."""
        return self._timeouts >= _TIMEOUTS

    def answered(self, heard_s: float) -> None:
        """Take note of any answer of the server, heard then."""
        self._answered_s = heard_s
        self._timeouts = 0

    def timed_out(self, sent_s: float) -> None:
        """Take note of a command, sent then, that got no answer in its time."""
        if self._answered_s > sent_s:
            return  # the server works; it was that command
        self._silent_since_s = min(self._silent_since_s, sent_s) if self._timeouts else sent_s
        self._timeouts += 1
        self.opened += self._timeouts == _TIMEOUTS

    def check(self) -> None:
        """Raise TmuxUnavailable while it is open."""
        if not self.open:
            return
        silent_s = self._now_s() - self._silent_since_s
        since = time.strftime("%H:%M:%S", time.localtime(time.time() - silent_s))
        raise TmuxUnavailable(
            f"the tmux server does not answer since {since} ({silent_s:.0f} s); it was not asked",
            hint="see whether it is stopped; agentd looks for it every second",
            retry_after_ms=1000,
        )

    def row(self) -> dict[str, Any]:
        """Return what is told of it."""
        silent_s = self._now_s() - self._silent_since_s if self._timeouts else 0.0
        return {"state": "open" if self.open else "closed", "opened": self.opened, "silent_s": round(silent_s, 3)}
