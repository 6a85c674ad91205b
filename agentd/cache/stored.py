"""Which answers of the third tier still stand: it outlives changes, daemons and tmux servers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from agentd.cache.entry import Entry
from agentd.cache.flights import Surroundings
from agentd.cache.query import Query
from agentd.cache.tiers import Store
from agentd.cache.timing import Timing

_JUMP_S = 1.0  # by which wall and monotonic clock may drift apart within the life of an answer

Valid = Callable[[Query, float], bool]


@dataclass(frozen=True, slots=True)
class _Revival:
    """Since which generation changes are heard, and what is known of the time before."""

    generation: int
    valid: Valid


class Stored:
    """Looks into a store and believes only what it can date: same source, nothing changed since, not too old."""

    def __init__(self, store: Store, at: Surroundings) -> None:
        self.store = store
        self.timing = Timing()
        self._at = at
        self._revival: _Revival | None = None

    def revive(self, valid: Valid) -> None:
        """Believe answers of an earlier life that are valid by this."""
        self._revival = _Revival(self._at.generations.now, valid)

    async def get(self, query: Query) -> Entry | None:
        """Return what is kept if it still stands, fit for the other tiers."""
        began_s = time.perf_counter()
        entry = await self.store.get(query)
        self.timing.add(time.perf_counter() - began_s)
        if entry is None or entry.source != self._at.source():
            return None
        if not 0 <= self._at.clock() - entry.asked_s <= self.store.ttl_s:
            return None
        generation = entry.generation if entry.life == self._at.life else self._since(entry)
        tags = tuple(self._at.tags_of(query))
        if generation is None or not self._at.generations.current(tags, generation):
            self.store.counters.dropped += 1
            return None
        return replace(entry, life=self._at.life, generation=generation, tags=tags, bound_s=self.store.ttl_s)

    def _since(self, entry: Entry) -> int | None:
        """Return the generation since which an answer of an earlier life stands, None when it does not.

        A source is one process, so what it answered is of this boot and its monotonic time counts. When the wall clock
        has another opinion of its age, that clock was set and `valid`, which compares wall times, cannot be trusted.
        """
        revival = self._revival
        if revival is None:
            return None
        drift_s = (entry.asked_at_s - entry.asked_s) - (self._at.wall() - self._at.clock())
        return revival.generation if abs(drift_s) <= _JUMP_S and revival.valid(entry.query, entry.asked_at_s) else None
