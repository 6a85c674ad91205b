"""Where answers are kept: what every tier can do, and the two that are memory of this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cachetools import LRUCache

from agentd.cache.entry import Entry
from agentd.cache.query import Query


@dataclass(slots=True)
class Counters:
    """What happened in one tier since the start."""

    hits: int = 0
    misses: int = 0
    evicted: int = 0  # for lack of room
    dropped: int = 0  # found overtaken by a change
    faults: int = 0  # answers that were not to be had or not to be understood


class Tier(Protocol):
    """Keeps answers; whether one may be served is the Cache's to say. This one answers at once."""

    name: str
    ttl_s: float
    counters: Counters

    def get(self, query: Query, now_s: float) -> Entry | None:
        """Return what is kept."""

    def put(self, entry: Entry, now_s: float) -> None:
        """Keep an answer, in place of an older one."""

    def drop(self, query: Query) -> None:
        """Forget one answer."""

    def clear(self) -> None:
        """Forget all."""

    def __len__(self) -> int:
        """Return how many answers are kept."""


class Store(Protocol):
    """A tier outside this process: a look may take time, and what is put is written by the next flush.

    It never raises: an answer that is not to be had is not there.
    """

    name: str
    ttl_s: float
    counters: Counters

    async def get(self, query: Query) -> Entry | None:
        """Return what is kept; its tags and bound are not kept with it."""

    def put(self, entry: Entry) -> None:
        """Have an answer written by the next flush."""

    async def flush(self) -> None:
        """Write what was put; look after the tier's health."""

    async def close(self) -> None:
        """Flush and let go."""

    def __len__(self) -> int:
        """Return how many answers are kept, as far as is known."""


class Memory:
    """A tier in this process's memory: so many answers at most, each for so long, the least recently used go first."""

    def __init__(self, name: str, size: int, ttl_s: float) -> None:
        self.name = name
        self.ttl_s = ttl_s
        self.counters = Counters()
        self._kept = _Kept(size, self.counters)

    def get(self, query: Query, now_s: float) -> Entry | None:
        """Return what is kept now; asked about a later time, what will be kept then if nothing happens."""
        kept = self._kept.get(query)
        return kept[1] if kept is not None and now_s <= kept[0] else None

    def put(self, entry: Entry, now_s: float) -> None:
        """Keep an answer, unless a later one is kept."""
        known = self._kept.get(entry.query)
        if known is None or known[1].asked_s <= entry.asked_s:
            self._kept[entry.query] = (min(now_s + self.ttl_s, entry.asked_s + entry.bound_s), entry)

    def drop(self, query: Query) -> None:
        """Forget one answer."""
        self._kept.pop(query, None)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class _Kept(LRUCache[Query, tuple[float, Entry]]):
    """Answers with the time until which each is kept; one that is over stays till its room is needed.

    Measured: the timed caches of the same library take two to three times as long to look.
    """

    def __init__(self, size: int, counters: Counters) -> None:
        super().__init__(size)
        self._counters = counters

    def popitem(self) -> tuple[Query, tuple[float, Entry]]:
        self._counters.evicted += 1
        return super().popitem()
