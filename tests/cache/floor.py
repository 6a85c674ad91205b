"""What lies below the cache, faked: clocks that are set by hand, somebody who is asked, a store that can misbehave."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio

from agentd.cache.cache import Cache
from agentd.cache.entry import Entry, decode, encode
from agentd.cache.query import Query
from agentd.cache.tiers import Counters, Store
from agentd.config import CacheConfig

ONE, OTHER = Query("capture", ("%1",)), Query("capture", ("%2",))


class Clocks:
    """A monotonic clock and a wall clock."""

    def __init__(self) -> None:
        self.now_s = 1_000.0
        self.wall_offset_s = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self.wall_offset_s


class Asked:
    """Answers 1, 2, 3 ... and takes its time when it is told to."""

    def __init__(self) -> None:
        self.count = 0
        self.answers: list[Any] = []  # given first; an exception is raised
        self.gate: anyio.Event | None = None

    async def __call__(self, query: Query) -> Any:
        self.count += 1
        answer = self.answers.pop(0) if self.answers else self.count
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(answer, Exception):
            raise answer
        return answer


class Shelf:
    """A store in memory; `mode` says how it misbehaves: "lost", "slow", "wrong", "old", or not at all: ""."""

    name = "l3"

    def __init__(self, ttl_s: float = 300.0) -> None:
        self.ttl_s = ttl_s
        self.counters = Counters()
        self.mode = ""
        self.written: dict[str, list[bytes]] = defaultdict(list)
        self.gate = anyio.Event()

    async def get(self, query: Query) -> Entry | None:
        if self.mode == "slow":
            await self.gate.wait()
        versions = self.written.get(str(query), [])
        if self.mode == "wrong":
            return decode(next((rows[-1] for key, rows in self.written.items() if key != str(query)), b"junk"), query)
        if self.mode == "lost" or not versions:
            return None
        return decode(versions[0 if self.mode == "old" else -1], query)

    def put(self, entry: Entry) -> None:
        data = encode(entry)
        if self.mode != "lost" and data is not None:
            self.written[str(entry.query)].append(data)

    async def flush(self) -> None:
        pass

    async def close(self) -> None:
        pass

    def __len__(self) -> int:
        return len(self.written)


def tags_of(query: Query) -> tuple[str, ...]:
    return (query.kind, *(str(arg) for arg in query.args))


class Setting:
    """A cache above all that."""

    def __init__(self, store: Store | None = None, **settings: Any) -> None:
        self.clocks = Clocks()
        self.asked = Asked()
        self.source = "server"
        self.config = CacheConfig(**settings)
        self.store = store
        self.cache = self.start()

    def start(self) -> Cache:
        """Return a new cache, as after a restart."""
        at = self.clocks
        self.cache = Cache(self.config, self.asked, tags_of, lambda: self.source, self.store, at.monotonic, at.wall)
        return self.cache
