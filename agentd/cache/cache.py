"""The one interface to kept answers: look in each tier, else ask once for everybody, and keep what still stands."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import anyio
from anyio.abc import TaskStatus

from agentd.cache.answer import Answer
from agentd.cache.disk import Disk
from agentd.cache.entry import Entry
from agentd.cache.flights import Ask, Flights, Surroundings, TagsOf
from agentd.cache.generations import Generations
from agentd.cache.prefetch import Prefetch
from agentd.cache.query import Query
from agentd.cache.redis import Redis
from agentd.cache.stored import Stored, Valid
from agentd.cache.tiers import Memory, Store, Tier
from agentd.cache.timing import Timing
from agentd.config import CacheConfig
from agentd.errors import InvalidValue

SWITCHES = ("l1", "l2", "l3", "prefetch")
_FLUSH_S = 0.25
_SLOW_S = 0.05  # an ask that takes so long makes it no time for guesses
_SOON_S = 1.0  # what will be gone by then is guessed anew
_SAMPLE = 64  # one look of so many is timed


class Cache:
    """Answers of `ask`, kept in three tiers until one of their tags is dropped or they are too old.

    Values are plain data (dicts, lists, texts, numbers), else the third tier does not take them; None says that there
    is no such thing. `tags_of` says what an answer tells of; `source` names who answers at the moment, differently from
    anybody else who ever answers into the same store.
    """

    def __init__(
        self,
        config: CacheConfig,
        ask: Ask,
        tags_of: TagsOf,
        source: Callable[[], str],
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._config = config
        self._clock = clock
        self._source = source
        self._on = {name: bool(getattr(config, name)) for name in SWITCHES}
        self._deaf = False
        self._generations = Generations()
        at = Surroundings(tags_of, source, clock, wall, secrets.token_hex(8), self._generations)
        self._flights = Flights(ask, at)
        self._l1 = Memory("l1", config.l1_size, config.l1_ttl_s)
        self._l2 = Memory("l2", config.l2_size, config.l2_ttl_s)
        self._l3 = Stored(store, at) if store is not None else None
        self._prefetch = Prefetch(config, clock)
        self._timings = {"l1": Timing(), "l2": Timing()}
        self._negative_hits = 0
        self._invalidations = 0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, config: CacheConfig, ask: Ask, tags_of: TagsOf, source: Callable[[], str], path: str, log: Any
    ) -> AsyncIterator[Cache]:
        """Build the cache with its third tier in that file, or at cache.redis_url when it is set.

        Raises InvalidValue when that address is none or the package for it is missing; what fails later is only logged.
        """
        store: Store
        if config.redis_url:
            store = Redis(config.redis_url, config.l3_ttl_s, source, log)
        else:
            store = Disk(path, config.l3_ttl_s, config.l3_size, log)
        try:
            yield cls(config, ask, tags_of, source, store)
        finally:
            with anyio.CancelScope(shield=True):
                await store.close()

    # -- questions

    def peek(self, query: Query, max_age_s: float | None = None, caller: str = "") -> Answer | None:
        """Return the first tier's answer, None when it has none; it never waits, and a miss is not counted."""
        answer = self._look(self._l1, query, self._limit_s(max_age_s))
        if answer is not None and caller:
            self._observe(caller, query)
        return answer

    async def get(self, query: Query, caller: str = "", max_age_s: float | None = None, fresh: bool = False) -> Answer:
        """Return an answer no older than the tiers allow and than `max_age_s`; with `fresh`, ask whatever is kept.

        Callers of the same question share one ask, unless something the answer tells of was dropped since it began.
        An error of `ask` goes to all of them as it is, and nothing is kept.
        """
        if caller:
            self._observe(caller, query)
        if not fresh:
            answer = self._remembered(query, self._limit_s(max_age_s))
            if answer is None and not self._flights.joinable(query, self._limit_s(max_age_s)):
                self._prefetch.resolved(query, used=False)
                answer = await self._stored(query, max_age_s)
            if answer is not None:
                return answer
        entry = await self._asked(query, max_age_s, fresh=fresh)
        age_ms = math.ceil(1000 * (self._clock() - entry.asked_s))
        return Answer(entry.value, "tmux", age_ms, age_ms)

    def _limit_s(self, max_age_s: float | None) -> float:
        if max_age_s is None and not self._deaf:
            return math.inf
        limit_s = self._config.deaf_ttl_s if self._deaf else math.inf
        return limit_s if max_age_s is None else min(limit_s, max_age_s)

    def _observe(self, caller: str, query: Query) -> None:
        if self._on["prefetch"] and self._on["l2"]:
            self._prefetch.observe(caller, query)

    def _remembered(self, query: Query, limit_s: float) -> Answer | None:
        """Look in this process's memory."""
        answer = self._look(self._l1, query, limit_s)
        if answer is not None:
            return answer
        self._l1.counters.misses += 1
        answer = self._look(self._l2, query, limit_s)
        if answer is None:
            self._l2.counters.misses += 1
            return None
        self._prefetch.resolved(query, used=True)
        now_s = self._clock()
        entry = self._l2.get(query, now_s)
        if entry is not None and self._on["l1"]:
            self._l1.put(entry, now_s)
        return answer

    def _look(self, tier: Tier, query: Query, limit_s: float) -> Answer | None:
        """Look in one tier and time some of the looks; timing each would cost a quarter of it."""
        if tier.counters.hits % _SAMPLE:
            return self._found(tier, query, limit_s)
        began_s = time.perf_counter()
        answer = self._found(tier, query, limit_s)
        if answer is not None:
            self._timings[tier.name].add(time.perf_counter() - began_s)
        return answer

    def _found(self, tier: Tier, query: Query, limit_s: float) -> Answer | None:
        now_s = self._clock()
        entry = tier.get(query, now_s)
        if entry is None:
            return None
        if not self._generations.current(entry.tags, entry.generation):
            tier.drop(query)
            tier.counters.dropped += 1
            return None
        age_s = now_s - entry.asked_s
        bound_s = limit_s if limit_s < entry.bound_s else entry.bound_s  # noqa: FURB136  twice as fast as min()
        if age_s > bound_s:
            return None
        tier.counters.hits += 1
        if entry.value is None:
            self._negative_hits += 1
        return Answer(entry.value, tier.name, math.ceil(1000 * age_s), math.ceil(1000 * bound_s))

    async def _stored(self, query: Query, max_age_s: float | None) -> Answer | None:
        """Look in the third tier."""
        if self._l3 is None or not self._on["l3"]:
            return None
        entry = await self._l3.get(query)
        counters, limit_s = self._l3.store.counters, self._limit_s(max_age_s)
        now_s = self._clock()
        if entry is None or (age_s := now_s - entry.asked_s) > limit_s:
            counters.misses += 1
            return None
        counters.hits += 1
        if self._on["l1"]:
            self._l1.put(entry, now_s)
        return Answer(entry.value, "l3", math.ceil(1000 * age_s), math.ceil(1000 * min(entry.bound_s, limit_s)))

    async def _asked(self, query: Query, max_age_s: float | None, *, fresh: bool) -> Entry:
        """Ask, or wait for somebody who does."""
        while not fresh and (flight := self._flights.joinable(query, self._limit_s(max_age_s))):
            entry = await self._flights.join(flight)
            if entry is not None:
                if flight.guess:
                    self._prefetch.resolved(query, used=True)
                return entry
        entry = await self._flights.fly(query, partial(self._bound_s, self._l1))
        self._keep(entry, self._l1)
        return entry

    def _bound_s(self, tier: Tier, value: Any) -> float:
        return min(tier.ttl_s, self._config.negative_ttl_s) if value is None else tier.ttl_s

    def _keep(self, entry: Entry, tier: Tier) -> None:
        """Keep an answer if nothing changed while it was asked for."""
        if not self._generations.current(entry.tags, entry.generation) or entry.source != self._source():
            return
        if self._on[tier.name]:
            tier.put(entry, self._clock())
        if self._l3 is not None and self._on["l3"] and entry.value is not None:
            self._l3.store.put(entry)

    # -- changes

    def drop(self, *tags: str) -> None:
        """Forget whatever carries one of the tags, also what is under way; who asks from now on gets a new answer."""
        self._invalidations += 1
        self._generations.drop(tags)

    def drop_all(self) -> None:
        """Forget everything, as `drop` does."""
        self._invalidations += 1
        self._generations.drop_all()

    def deaf(self) -> None:
        """Changes may go unheard from now on: serve nothing older than deaf_ttl_s."""
        self._deaf = True

    def hearing(self) -> None:
        """Changes are heard again: forget what was kept, for some may have been missed."""
        self._deaf = False
        self.drop_all()

    def revive(self, valid: Valid) -> None:
        """Serve answers of an earlier life, of the same source, that `valid` vouches for, once changes are heard.

        `valid(query, asked_at_s)` returns True only when nothing the answer tells of changed between that wall time and
        this call; by a clock of whole seconds, a second to spare makes it sure. It is asked when such an answer is
        found, so it must remember what it knew at this call, or look at what holds then.
        """
        if self._l3 is not None:
            self._l3.revive(valid)

    def set(self, name: str, on: bool) -> None:
        """Turn a tier or the guessing on or off."""
        if name not in SWITCHES:
            raise InvalidValue(f"the cache has no switch `{name}`", hint=f"there are {', '.join(SWITCHES)}")
        self._on[name] = on
        for tier in (self._l1, self._l2):
            if not self._on[tier.name]:
                tier.clear()

    # -- work of its own

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Make guesses and write the third tier, until cancelled; without it there are no guesses."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write_behind)
            tasks.start_soon(self._guess)
            task_status.started()

    async def _write_behind(self) -> None:
        while True:
            await anyio.sleep(_FLUSH_S)
            if self._l3 is not None:
                await self._l3.store.flush()

    async def _guess(self) -> None:
        while True:
            at_rest = self._deaf or self._flights.waited_s > _SLOW_S
            query = self._prefetch.next(self._missing, at_rest=at_rest)
            if query is None:
                await self._prefetch.wake.wait()
            else:
                await self._fill(query)

    def _missing(self, query: Query) -> bool:
        """Return whether the memory tiers will not have the answer when its caller comes."""
        until_s = self._clock() + _SOON_S
        for tier in (self._l1, self._l2):
            entry = tier.get(query, until_s)
            if entry is not None and self._generations.current(entry.tags, entry.generation):
                return False
        return self._flights.joinable(query, math.inf) is None

    async def _fill(self, query: Query) -> None:
        """Have the answer in the second tier before its caller comes."""
        entry = await self._l3.get(query) if self._l3 is not None and self._on["l3"] else None
        if entry is not None and self._clock() + _SOON_S < entry.asked_s + entry.bound_s:
            self._l2.put(entry, self._clock())
            return
        try:
            entry = await self._flights.fly(query, partial(self._bound_s, self._l2), guess=True)
        except Exception:  # noqa: BLE001  nobody wanted this yet; whoever does gets the error of his own ask
            return
        self._keep(entry, self._l2)

    # -- figures

    def stats(self) -> dict[str, Any]:
        """Return counts since the start, what is kept, and what a look and an ask cost."""
        tiers = {tier.name: self._tier_stats(tier, self._timings[tier.name]) for tier in (self._l1, self._l2)}
        if self._l3 is not None:
            tiers["l3"] = self._tier_stats(self._l3.store, self._l3.timing)
        return {
            **tiers,
            "asks": self._flights.asks,
            "ask_us": self._flights.timing.mean_us,
            "joins": self._flights.joins,
            "negative_hits": self._negative_hits,
            "invalidations": self._invalidations,
            "deaf": self._deaf,
            "prefetch": {"on": self._on["prefetch"], **self._prefetch.stats()},
        }

    def _tier_stats(self, tier: Tier | Store, timing: Timing) -> dict[str, Any]:
        return {
            "on": self._on[tier.name],
            "size": len(tier),
            **asdict(tier.counters),
            "lookup_us": timing.mean_us,
        }
