"""What happened, in one ring that every reader shares."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice

import anyio

from agentd.records import Event

KEPT_EVENTS = 10_000


class Events:
    """A ring of numbered events; readers keep a cursor, so a slow one costs nothing and is told what it missed."""

    def __init__(self, kept: int = KEPT_EVENTS) -> None:
        self._ring: deque[Event] = deque(maxlen=kept)
        self._first_id = time.time_ns() // 1000  # rises across restarts, so that `--since` stays meaningful
        self._next_id = self._first_id
        self._changed = anyio.Event()

    @property
    def last_id(self) -> int:
        """Return the id of the newest event, or the one before the first."""
        return self._next_id - 1

    def emit(self, type_: str, **data: object) -> Event:
        """Add an event and wake every reader."""
        event = Event(self._next_id, type_, time.time_ns(), data)
        self._next_id += 1
        self._ring.append(event)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        return event

    def since(self, after: int, types: Sequence[str] = (), limit: int = 1000) -> list[Event]:
        """Return the kept events with a larger id, oldest first."""
        found = (event for event in self._newer(after) if is_wanted(event.type, types))
        return list(islice(found, limit))

    async def follow(self, after: int | None = None, types: Sequence[str] = ()) -> AsyncIterator[Event]:
        """Yield events as they happen; a `gap` event names the first and last id that were dropped meanwhile."""
        cursor = self.last_id if after is None else after
        while True:
            changed = self._changed
            oldest = self._ring[0].id if self._ring else self._next_id
            if self._first_id <= cursor + 1 < oldest:
                yield Event(oldest - 1, "gap", time.time_ns(), {"first": cursor + 1, "last": oldest - 1})
                cursor = oldest - 1
            batch = self._newer(cursor)
            for event in batch:
                cursor = event.id
                if is_wanted(event.type, types):
                    yield event
            if not batch:
                await changed.wait()

    def _newer(self, after: int) -> list[Event]:
        if not self._ring or after >= self.last_id:
            return []
        skip = max(0, after + 1 - self._ring[0].id)
        return list(islice(self._ring, skip, None))


def is_wanted(type_: str, types: Sequence[str]) -> bool:
    """Tell whether an event of this type is one of those that are asked for; none named are all."""
    return not types or any(
        type_ == wanted or (wanted.endswith(".*") and type_.startswith(wanted[:-1])) for wanted in types
    )
