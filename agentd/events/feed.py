"""Handing events to those who have read all there is, without a task for each to wake."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from agentd.events.coalescing import coalesced
from agentd.events.ring import Ring
from agentd.records import Event

Wanted = Callable[[Event], bool]
Form = Callable[[list[Event]], Any]
Take = Callable[[Any], bool]
Reading = tuple[int, bool]  # after which id, and whether coalesced: what many readers have in common


class Feed:
    """What one reader follows from where it stands; `form` makes what it gets of events that are there at once."""

    __slots__ = ("_done", "_feeds", "_silent_since_s", "_take", "coalesce", "cursor", "form", "heartbeat_s", "wanted")

    def __init__(
        self, feeds: Feeds, cursor: int, wanted: Wanted | None, heartbeat_s: float | None, *, coalesce: bool
    ) -> None:
        self.cursor = cursor
        self.wanted = wanted
        self.heartbeat_s = heartbeat_s
        self.coalesce = coalesce
        self.form: Form = _as_they_are
        self._feeds = feeds
        self._done = anyio.Event()
        self._silent_since_s = 0.0
        self._take: Take = read_on

    async def into(self, take: Take) -> None:
        """Hand over what happens, those together that are there at once, until they are not taken or none come.

        What is not taken is after `cursor` still. None come for `heartbeat_s`: then a heartbeat is due.
        """
        self._take, self._silent_since_s = take, anyio.current_time()
        with self._feeds.telling(self):
            while not self._done.is_set() and not self.is_silent:
                with anyio.CancelScope(deadline=self._due_s):
                    await self._done.wait()

    @property
    def is_silent(self) -> bool:
        """Tell whether a heartbeat is due."""
        return anyio.current_time() >= self._due_s

    @property
    def _due_s(self) -> float:
        return float("inf") if self.heartbeat_s is None else self._silent_since_s + self.heartbeat_s

    def give(self, items: Any, last_id: int, now_s: float) -> None:
        """Hand over what is made of events of which the last has this id."""
        if not self._take(items):
            self.stop()
            return
        self._silent_since_s = now_s
        self.cursor = last_id

    def stop(self) -> None:
        """Let the reader go on by itself."""
        self._done.set()


class Feeds:
    """All feeds, told once in each turn of the loop that something happened in."""

    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._feeds: dict[Feed, None] = {}
        self._is_due = False

    @contextmanager
    def telling(self, feed: Feed) -> Iterator[None]:
        """Tell a feed of what happens while the block runs."""
        if feed.cursor != self._ring.last_id:
            feed.stop()
        self._feeds[feed] = None
        try:
            yield
        finally:
            del self._feeds[feed]

    def happened(self) -> None:
        """Tell them soon."""
        if self._feeds and not self._is_due:
            self._is_due = True
            asyncio.get_running_loop().call_soon(self._tell)

    def _tell(self) -> None:
        self._is_due = False
        now_s = asyncio.get_running_loop().time()
        events: dict[Reading, list[Event]] = {}
        made: dict[tuple[int, bool, Form], tuple[Any, int]] = {}
        for feed in list(self._feeds):
            form = (feed.cursor, feed.coalesce, feed.form)
            if feed.wanted is None and form in made:
                feed.give(*made[form], now_s)
                continue
            reading = (feed.cursor, feed.coalesce)
            if reading not in events:
                events[reading] = self._after(*reading)
            found = events[reading]
            if not found:  # it is up to date, or the ring does not go back so far
                if feed.cursor != self._ring.last_id:
                    feed.stop()
                continue
            if feed.wanted is not None:
                if wanted := [event for event in found if feed.wanted(event)]:
                    feed.give(feed.form(wanted), found[-1].id, now_s)
                else:
                    feed.cursor = found[-1].id
                continue
            made[form] = feed.form(found), found[-1].id
            feed.give(*made[form], now_s)

    def _after(self, cursor: int, coalesce: bool) -> list[Event]:
        if cursor + 1 < self._ring.begins:
            return []
        found = self._ring.after(cursor)
        return coalesced(found) if coalesce else found


def read_on(_items: Any) -> bool:
    """Take nothing: the reader wakes, and finds what happened."""
    return False


def _as_they_are(events: list[Event]) -> list[Event]:
    return events
