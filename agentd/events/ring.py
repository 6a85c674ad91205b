"""The newest events in memory, and gaps: what is said in the place of events that are not kept."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from agentd.records import Event

GAP = "gap"


class Ring:
    """The newest events, numbered without a hole; the oldest makes room for the newest."""

    def __init__(self, first_id: int, kept: int) -> None:
        self._ring: deque[Event] = deque(maxlen=kept)
        self._next_id = first_id

    @property
    def last_id(self) -> int:
        """Return the id of the newest event, or the one before the first."""
        return self._next_id - 1

    @property
    def begins(self) -> int:
        """Return the first id that the ring knows about; a gap at its start counts with all that is missing there."""
        return begins(self._ring[0]) if self._ring else self._next_id

    def add(self, event: Event) -> None:
        """Add the next event."""
        self._ring.append(event)
        self._next_id = event.id + 1

    def after(self, id_: int) -> list[Event]:
        """Return the events with a larger id, oldest first."""
        newest_first = list(islice(reversed(self._ring), max(0, self.last_id - id_)))
        return newest_first[::-1]


def begins(event: Event) -> int:
    """Return the first id that an event stands for: its own, or the first of a gap."""
    first = event.data.get("first")
    return first if event.type == GAP and isinstance(first, int) else event.id


def gap(first: int, last: int, why: str) -> Event:
    """Return what stands in the place of the events from one id to another, both missing."""
    return Event(last, GAP, time.time_ns(), {"first": first, "last": last, "why": why})


def with_gaps(after: int, events: Iterable[Event], why: str) -> Iterator[Event]:
    """Yield the events that follow an id, with a gap wherever ids are missing between them."""
    for event in events:
        if event.id <= after:
            continue
        first = begins(event)
        if first > after + 1:
            yield gap(after + 1, first - 1, why)
        elif first <= after and event.type == GAP:
            event = replace(event, data={**event.data, "first": after + 1})  # noqa: PLW2901  the rest of it
        yield event
        after = event.id
