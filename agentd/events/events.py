"""What happened, numbered: a ring that every reader shares, and the files behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial

import anyio
import anyio.to_thread

from agentd.errors import AgentdError, InvalidValue
from agentd.events.coalescing import coalesced
from agentd.events.feed import Feed, Feeds, Wanted, read_on
from agentd.events.ring import GAP, Ring, gap, with_gaps
from agentd.events.store import EventStore
from agentd.records import Event

KEPT_EVENTS = 10_000
WRITE_EVERY_S = 0.2
HEARTBEAT = "heartbeat"
UNTOLD_IDS = 1_000_000  # more than a daemon can have told between its last line on disk and its death
OVERFLOW = "more happened than is kept"
RESTART = "the daemon did not end in order; what it had not written down is not known"


class Events:
    """Emits events and lets readers follow them from an id on; a slow reader keeps a cursor and costs nothing.

    An id is never given twice, by the next daemon neither. Without a store ids begin with the time, and what came
    before this daemon is told as a gap.
    """

    def __init__(self, store: EventStore | None = None, kept: int = KEPT_EVENTS) -> None:
        self._store = store
        self._changed = anyio.Event()
        self.on_event: list[Callable[[Event], None]] = []  # told at once of each
        self.trouble = ""  # why nothing is written down at the moment
        before = store.last_id if store else 0
        goes_on = bool(store and before and store.take_end())
        self._ring = Ring(before + 1 if goes_on else max(before + UNTOLD_IDS, time.time_ns() // 1000), kept)
        self._feeds = Feeds(self._ring)
        if store and before and not goes_on:
            self._ring.add(gap(before + 1, self._ring.last_id + 1, RESTART))
            with suppress(OSError):  # at once, so that the ids behind it are given once whatever the clock does
                store.append(self._ring.after(0))

    @property
    def last_id(self) -> int:
        """Return the id of the newest event, or the one before the first."""
        return self._ring.last_id

    def emit(self, type_: str, **data: object) -> Event:
        """Add an event and wake every reader."""
        event = Event(self._ring.last_id + 1, type_, time.time_ns(), data)
        self._ring.add(event)
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
        self._feeds.happened()
        for told in self.on_event:
            told(event)
        return event

    async def since(
        self, after: int, types: Sequence[str] = (), limit: int = 1000, wanted: Wanted | None = None
    ) -> list[Event]:
        """Return the kept events with a larger id, oldest first, gaps among them; 0 is before all that is kept."""
        cursor = await self._cursor(after)
        found: list[Event] = []
        while len(found) < limit and (batch := await self._after(cursor)):
            found += [event for event in batch if _is_wanted(event, types, wanted)]
            cursor = batch[-1].id
        return found[:limit]

    async def follow(
        self,
        after: int | None = None,
        types: Sequence[str] = (),
        *,
        wanted: Wanted | None = None,
        heartbeat_s: float | None = None,
    ) -> AsyncGenerator[Event, None]:
        """Yield events after an id (now, without one) as they happen, one by one; see follow_batches."""
        batches = self.follow_batches(after, types, wanted=wanted, heartbeat_s=heartbeat_s)
        async with aclosing(batches):
            async for batch in batches:
                if isinstance(batch, Feed):
                    await batch.into(read_on)
                    continue
                for event in batch:
                    yield event

    async def follow_batches(
        self,
        after: int | None = None,
        types: Sequence[str] = (),
        *,
        wanted: Wanted | None = None,
        heartbeat_s: float | None = None,
        coalesce: bool = False,
    ) -> AsyncGenerator[list[Event] | Feed, None]:
        """Yield events after an id (now, without one), those together that are there at once, and then a feed.

        The feed tells of what follows while the reader runs it; when it ends, the next ones are yielded. A `gap` names
        the first and last id of what is not kept. With `heartbeat_s` a `heartbeat` follows so long a silence; its id is
        how far the reader has seen. `coalesce`: a reader that is far behind gets the newest state of each agent only.
        """
        cursor = self.last_id if after is None else await self._cursor(after)
        fits = partial(_is_wanted, types=types, wanted=wanted) if types or wanted else None
        while True:
            while batch := await self._after(cursor):
                found = [e for e in (coalesced(batch) if coalesce else batch) if fits is None or fits(e)]
                if found:
                    yield found
                cursor = batch[-1].id
            feed = Feed(self._feeds, cursor, fits, heartbeat_s, coalesce=coalesce)
            yield feed
            cursor = feed.cursor
            if feed.is_silent:
                yield [Event(cursor, HEARTBEAT, time.time_ns(), {})]

    async def run(self) -> None:
        """Write down what happens until cancelled."""
        if self._store is None:
            return
        while True:
            changed = self._changed
            if self._ring.last_id <= self._store.last_id:
                await changed.wait()
            await self._write(self._store)
            await anyio.sleep(WRITE_EVERY_S)

    async def close(self) -> None:
        """Write down the rest, and that it is all."""
        if self._store is None:
            return
        with anyio.CancelScope(shield=True):
            await self._write(self._store)
            if not self.trouble:
                with suppress(OSError, AgentdError):  # the next daemon says then that it does not know the end
                    await anyio.to_thread.run_sync(self._store.end)

    async def _write(self, store: EventStore) -> None:
        batch = self._ring.after(store.last_id)
        if not batch:
            return
        if store.last_id:
            batch = list(with_gaps(store.last_id, batch, OVERFLOW))
        try:
            with anyio.CancelScope(shield=True):  # no two threads may write
                await anyio.to_thread.run_sync(store.append, batch)
            self.trouble = ""
        except (OSError, AgentdError) as error:  # tried again with what happened meanwhile; the ring has it until then
            self.trouble = str(error.strerror if isinstance(error, OSError) else error.message)

    async def _cursor(self, after: int) -> int:
        if after > self.last_id:
            raise InvalidValue(
                f"event {after} has not happened here; the newest is {self.last_id}",
                field="since",
                hint="follow without it: it is from another instance, or its state was removed",
            )
        if after:
            return after
        stored = await anyio.to_thread.run_sync(self._store.first_id) if self._store else 0
        return min(stored or self._ring.begins, self._ring.begins) - 1

    async def _after(self, cursor: int) -> list[Event]:
        """Return the next events after an id, with gaps; none when there is nothing newer."""
        while cursor < self.last_id:
            begins = self._ring.begins
            if cursor + 1 >= begins:
                return list(with_gaps(cursor, self._ring.after(cursor), OVERFLOW))
            stored = await anyio.to_thread.run_sync(partial(self._store.after, cursor)) if self._store else []
            if stored:
                return list(with_gaps(cursor, stored, OVERFLOW))
            if begins == self._ring.begins:
                return [gap(cursor + 1, begins - 1, OVERFLOW)]
        return []


def _is_wanted(event: Event, types: Sequence[str], wanted: Wanted | None) -> bool:
    if event.type == GAP:
        return True
    return (not types or is_named(event.type, types)) and (wanted is None or wanted(event))


def is_named(type_: str, types: Sequence[str]) -> bool:
    """Tell whether a type of events is one of those that are asked for, or of a noun like agent.* among them."""
    return any(type_ == wanted or (wanted.endswith(".*") and type_.startswith(wanted[:-1])) for wanted in types)
