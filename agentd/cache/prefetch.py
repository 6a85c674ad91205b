"""Guesses what a caller asks next: first-order transitions, a budget, and a count of what the guesses were worth."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import anyio

from agentd.cache.query import Query
from agentd.config import CacheConfig

AHEAD = 8  # steps; a caller that asks faster than tmux answers is overtaken only from further ahead
_CALLERS, _NODES, _SUCCESSORS = 1_000, 20_000, 8  # remembered at most; the least recently used go first
_POSITIONS = 16  # callers that wait for a decision at most
_ENOUGH = 5  # observations before a guess
_HALVE_AT = 32  # observations of one successor; then all count half, so that old habits fade
_USE_S = 60.0  # a guess nobody asked for by then was wrong
_JUDGE_AT, _FORGET_AT = 20, 200  # resolved guesses before precision counts, and when they count half
_PAUSE_S = 60.0


class Transitions:
    """What each caller asked after what, and how often."""

    def __init__(self, confidence: float) -> None:
        self._confidence = confidence
        self._last: OrderedDict[str, Query] = OrderedDict()
        self._after: OrderedDict[tuple[str, Query], dict[Query, int]] = OrderedDict()

    def observe(self, caller: str, query: Query) -> None:
        """Learn that the caller asked this now."""
        previous = self._last.pop(caller, None)
        self._last[caller] = query
        if len(self._last) > _CALLERS:
            self._last.popitem(last=False)
        if previous is None or previous == query:
            return
        node = (caller, previous)
        counts = self._after.pop(node, None) or {}
        counts[query] = counts.get(query, 0) + 1
        if counts[query] >= _HALVE_AT:
            counts = {after: count // 2 for after, count in counts.items() if count > 1}
        elif len(counts) > _SUCCESSORS:
            del counts[min(counts, key=counts.__getitem__)]
        self._after[node] = counts
        if len(self._after) > _NODES:
            self._after.popitem(last=False)

    def ahead(self, caller: str, query: Query) -> Iterator[Query]:
        """Yield the likely next queries, nearest first, while all of them together are likely enough."""
        likelihood = 1.0
        for _ in range(AHEAD):
            counts = self._after.get((caller, query), {})
            total = sum(counts.values())
            if total < _ENOUGH:
                return
            query = max(counts, key=counts.__getitem__)
            likelihood *= counts[query] / total
            if likelihood < self._confidence:
                return
            yield query


def decide(ahead: Iterable[Query], missing: Callable[[Query], bool], budget: float, *, at_rest: bool) -> Query | None:
    """Return the nearest likely query whose answer will be missing, None when there is none or no time for it."""
    if at_rest or budget < 1:
        return None
    return next((query for query in ahead if missing(query)), None)


class Prefetch:
    """Follows the callers, hands out one guess at a time, and rests while its guesses are not worth their cost."""

    def __init__(self, config: CacheConfig, clock: Callable[[], float]) -> None:
        self._config = config
        self._clock = clock
        self._transitions = Transitions(config.prefetch_confidence)
        self._positions: OrderedDict[str, Query] = OrderedDict()  # where callers stand since the last decision
        self._open: OrderedDict[Query, float] = OrderedDict()  # guesses not resolved yet, and when each was made
        self._budget, self._refilled_s = config.prefetch_per_s, clock()
        self._used = self._wasted = 0  # the recent ones
        self._paused_until_s = 0.0
        self._totals = {"predicted": 0, "used": 0, "wasted": 0, "pauses": 0}
        self.wake = anyio.Event()

    def observe(self, caller: str, query: Query) -> None:
        """Learn that the caller asked this now, and wake whoever makes the guesses."""
        self._transitions.observe(caller, query)
        self._positions[caller] = query
        self._positions.move_to_end(caller)
        if len(self._positions) > _POSITIONS:
            self._positions.popitem(last=False)
        self.wake.set()

    def next(self, missing: Callable[[Query], bool], *, at_rest: bool) -> Query | None:
        """Return what to ask for now, for the caller heard last first; it counts as made."""
        now_s = self._clock()
        self._resolve_old(now_s)
        self._refill(now_s)
        while self._positions:
            caller, query = self._positions.popitem()
            ahead = self._transitions.ahead(caller, query)
            guess = decide(
                (query for query in ahead if query not in self._open),
                missing,
                self._budget,
                at_rest=at_rest or now_s < self._paused_until_s,
            )
            if guess is not None:
                self._positions[caller] = query  # there may be more ahead of it
                self._budget -= 1
                self._open[guess] = now_s
                self._totals["predicted"] += 1
                return guess
        self.wake = anyio.Event()
        return None

    def resolved(self, query: Query, *, used: bool) -> None:
        """Count a guess as used, or as wasted when its answer was no longer there; no guess, no effect."""
        if self._open.pop(query, None) is not None:
            self._count(used=used)

    def stats(self) -> dict[str, Any]:
        """Return what was guessed since the start, and the precision of the recent guesses."""
        precision = round(self._used / known, 3) if (known := self._used + self._wasted) else None
        return {**self._totals, "precision": precision, "paused": self._clock() < self._paused_until_s}

    def _count(self, *, used: bool) -> None:
        self._used, self._wasted = self._used + used, self._wasted + (not used)
        self._totals["used" if used else "wasted"] += 1
        known = self._used + self._wasted
        if known >= _JUDGE_AT and self._used < self._config.prefetch_precision * known:
            self._paused_until_s = self._clock() + _PAUSE_S
            self._totals["pauses"] += 1
            self._used = self._wasted = 0  # afterwards it may prove itself anew
        elif known >= _FORGET_AT:
            self._used, self._wasted = self._used // 2, self._wasted // 2

    def _resolve_old(self, now_s: float) -> None:
        while self._open and now_s - next(iter(self._open.values())) > _USE_S:
            self._open.popitem(last=False)
            self._count(used=False)

    def _refill(self, now_s: float) -> None:
        most = max(1.0, self._config.prefetch_per_s)
        self._budget = min(most, self._budget + (now_s - self._refilled_s) * self._config.prefetch_per_s)
        self._refilled_s = now_s
