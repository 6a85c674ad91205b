"""What was refused of whom: told to the operator as events, and to the inbox that did not get it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from agentd.errors import AgentdError, LoopLimit, QuotaExceeded, RateLimit
from agentd.events import Events
from agentd.metrics import Metrics

EVENT_PERIOD_S: Final = 1.0  # between two events about the same sender and reason
LIMITS: Final = (LoopLimit, RateLimit, QuotaExceeded)  # of these the recipient is told, too


@dataclass(slots=True)
class Told:
    """What was said about one sender and one reason."""

    at_s: float = -EVENT_PERIOD_S
    untold: int = 0


class Refusals:
    """Counts refused messages in memory: since an inbox was last read, and since the last event."""

    def __init__(
        self, events: Events, metrics: Metrics, display: Callable[[str], str], clock_s: Callable[[], float]
    ) -> None:
        self._events = events
        self._metrics = metrics
        self._display = display
        self._clock_s = clock_s
        self._by_inbox: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._told: defaultdict[tuple[str, str], Told] = defaultdict(Told)

    def add(self, sender: str, to: str, error: AgentdError) -> None:
        """Count a message that was refused because of a limit; `to` is an inbox or a group."""
        if not isinstance(error, LIMITS):
            return
        self._metrics.add("messages_refused_total")
        self._metrics.add(f"messages_refused_{error.code}_total")
        self._by_inbox[to][sender] += 1
        self._tell(sender, to, error.code)

    def _tell(self, sender: str, to: str, code: str) -> None:
        told, now_s = self._told[sender, code], self._clock_s()
        told.untold += 1
        if now_s - told.at_s < EVENT_PERIOD_S:
            return
        names = {"from": self._display(sender), "to": self._display(to), "from_id": sender, "to_id": to}
        self._events.emit("message.refused", **names, code=code, count=told.untold)
        told.at_s, told.untold = now_s, 0

    def rows(self, inbox: str) -> list[dict[str, Any]]:
        """Return of whom how many messages to an inbox were refused since it was last read."""
        found = self._by_inbox.get(inbox, Counter())
        return [{"from": self._display(sender), "count": count} for sender, count in found.most_common()]

    def read(self, inbox: str) -> list[dict[str, Any]]:
        """Return the same, and begin anew."""
        rows = self.rows(inbox)
        self._by_inbox.pop(inbox, None)
        return rows
