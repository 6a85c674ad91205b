"""Which answers a change has overtaken."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

_TAGS = 20_000  # remembered by name; what was asked before a forgotten one was dropped counts as overtaken


class Generations:
    """Counts changes, and knows for each tag when it changed last.

    An answer that was asked in generation N stands while none of its tags has changed since. That holds wherever the
    answer is kept and whether or not it could be deleted there.
    """

    def __init__(self, tags: int = _TAGS) -> None:
        self.now = 0
        self._most = tags
        self._floor = 0
        self._changed: OrderedDict[str, int] = OrderedDict()

    def drop(self, tags: Iterable[str]) -> None:
        """Overtake whatever carries one of the tags."""
        self.now += 1
        for tag in tags:
            self._changed[tag] = self.now
            self._changed.move_to_end(tag)
        while len(self._changed) > self._most:
            self._floor = self._changed.popitem(last=False)[1]

    def drop_all(self) -> None:
        """Overtake everything."""
        self.now += 1
        self._floor = self.now
        self._changed.clear()

    def current(self, tags: Iterable[str], generation: int) -> bool:
        """Return whether what was asked in that generation still stands."""
        if generation < self._floor:
            return False
        changed = self._changed
        for tag in tags:  # noqa: SIM110  a generator would double the cost of a hit
            if changed.get(tag, 0) > generation:
                return False
        return True
