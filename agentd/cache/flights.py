"""Questions that are out: one for all who ask the same, and none that began before what it asks about changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import anyio

from agentd.cache.entry import Entry
from agentd.cache.generations import Generations
from agentd.cache.query import Query
from agentd.cache.timing import Timing

Ask = Callable[[Query], Awaitable[Any]]  # returns None when there is no such thing
TagsOf = Callable[[Query], Iterable[str]]  # what an answer tells of


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What says when, by whom and about what an answer was given."""

    tags_of: TagsOf
    source: Callable[[], str]  # the identity of who answers at the moment
    clock: Callable[[], float]
    wall: Callable[[], float]
    life: str  # of this Cache
    generations: Generations


@dataclass(slots=True, eq=False)
class Flight:
    """A question that is out; `entry` and `error` stay empty when whoever asked it was cancelled."""

    tags: tuple[str, ...]
    generation: int
    asked_s: float
    guess: bool
    done: anyio.Event = field(default_factory=anyio.Event)
    entry: Entry | None = None
    error: Exception | None = None


class Flights:
    """Asks, in the task of the first who wants to know; should that one be cancelled, another asks again."""

    def __init__(self, ask: Ask, at: Surroundings) -> None:
        self._ask = ask
        self._at = at
        self._out: dict[Query, Flight] = {}
        self.timing = Timing()
        self.asks = 0
        self.joins = 0

    def joinable(self, query: Query, limit_s: float) -> Flight | None:
        """Return the flight that brings an answer good enough for a caller who asks now, and not before."""
        flight = self._out.get(query)
        if flight is None or self._at.clock() - flight.asked_s > limit_s:
            return None
        return flight if self._at.generations.current(flight.tags, flight.generation) else None

    async def join(self, flight: Flight) -> Entry | None:
        """Wait for somebody else's answer or error; None when that one was cancelled."""
        self.joins += 1
        await flight.done.wait()
        if flight.error is not None:
            raise flight.error
        return flight.entry

    async def fly(self, query: Query, bound_s: Callable[[Any], float], *, guess: bool = False) -> Entry:
        """Ask now; whoever joins gets the same."""
        at = self._at
        source, asked_at_s = at.source(), at.wall()
        flight = Flight(tuple(at.tags_of(query)), at.generations.now, at.clock(), guess)
        self._out[query] = flight
        self.asks += 1
        try:
            value = await self._ask(query)
            flight.entry = entry = Entry(
                query=query,
                value=value,
                asked_s=flight.asked_s,
                asked_at_s=asked_at_s,
                source=source,
                life=at.life,
                generation=flight.generation,
                tags=flight.tags,
                bound_s=bound_s(value),
            )
        except Exception as error:
            flight.error = error
            raise
        finally:
            self.timing.add(at.clock() - flight.asked_s)
            if self._out.get(query) is flight:
                del self._out[query]
            flight.done.set()
        return entry

    @property
    def waited_s(self) -> float:
        """Return how long questions take lately, or how long the oldest has been out if that is longer."""
        now_s = self._at.clock()
        oldest_s = min((flight.asked_s for flight in self._out.values()), default=now_s)
        return max(self.timing.lately_s, now_s - oldest_s)
