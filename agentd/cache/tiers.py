"""The first tier: answers in this process's memory, for a short time and with their age."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cachetools import TTLCache

L1_TTL_S = 15.0
L1_SIZE = 2_000


@dataclass(frozen=True, slots=True)
class Answer:
    """A value, which tier it came from and how old it is."""

    value: Any
    tier: str  # "l1", or "tmux" when it was asked just now
    age_ms: int


class Tiers:
    """Looks an answer up, else asks for it and keeps it; an event of tmux drops what it may have changed.

    While tmux's events do not reach us nothing is kept. An answer that was under way when something changed is given to
    its caller and not kept.
    """

    def __init__(
        self, ttl_s: float = L1_TTL_S, size: int = L1_SIZE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._kept: TTLCache[str, tuple[float, Any]] = TTLCache(size, ttl_s, clock)
        self._generation = 0
        self._hearing = True
        self._hits = 0
        self._misses = 0
        self._drops = 0

    async def get(self, key: str, ask: Callable[[], Awaitable[Any]]) -> Answer:
        """Return the kept answer, or ask for a new one."""
        kept = self._kept.get(key)
        if kept is not None:
            self._hits += 1
            asked_s, value = kept
            return Answer(value, "l1", round((self._clock() - asked_s) * 1000))
        self._misses += 1
        generation, asked_s = self._generation, self._clock()
        value = await ask()
        if self._hearing and generation == self._generation:
            self._kept[key] = (asked_s, value)
        return Answer(value, "tmux", 0)

    def drop(self) -> None:
        """Forget every answer: something changed."""
        self._generation += 1
        self._drops += 1
        self._kept.clear()

    def deaf(self) -> None:
        """Keep nothing from now on: changes may go unheard."""
        self.drop()
        self._hearing = False

    def hearing(self) -> None:
        """Keep answers again."""
        self.drop()
        self._hearing = True

    def stats(self) -> dict[str, Any]:
        """Return hits, misses and drops since the start, and how many answers are kept."""
        return {"l1": {"hits": self._hits, "misses": self._misses, "drops": self._drops, "size": len(self._kept)}}
