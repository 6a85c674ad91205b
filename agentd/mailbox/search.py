"""Search over messages: an index that follows the mailbox behind its commits, and can be made again from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import anyio
from anyio.abc import TaskStatus

from agentd.config import SearchConfig
from agentd.errors import AgentdError, InvalidValue, NotFound, StorageError
from agentd.failpoint import failpoint
from agentd.index.engine import Entry, Hit, IndexDamaged, Within
from agentd.index.home import IndexHome
from agentd.index.query import Query
from agentd.index.words import words_of
from agentd.mailbox.ids import text_of
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.rows import Row, envelope_of, intact
from agentd.records import Change, Message, MessageState

PAGE_MESSAGES: Final = 500
COMMIT_MESSAGES: Final = 20_000
MOST_BEHIND: Final = 10_000  # counting further would take longer than the search
_REST: Final = 9  # while senders wait for the disk: so many seconds of rest after each of reading
_RETRY_S: Final = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found, best first, and how many messages the index had not reached (counted up to a bound)."""

    messages: list[tuple[Message, float]]
    behind: int


class Search:
    """The index of one mailbox and the task that fills it."""

    def __init__(self, home: IndexHome, config: SearchConfig, mailbox: Mailbox, report: Callable[[str], None]) -> None:
        self._home = home
        self._config = config
        self._mailbox = mailbox
        self._report = report
        self._read: dict[int, int] = {}  # how far each shard was read, ahead of what is committed
        self._uncommitted = 0
        self._woken = anyio.Event()
        self._writing = anyio.Lock()
        self._reading = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, mailbox_dir: str | Path, config: SearchConfig, mailbox: Mailbox, report: Callable[[str], None]
    ) -> AsyncIterator[Search]:
        """Open the index of a mailbox, and close it in the end.

        `report` hears in a sentence what went wrong and what was done about it. Raises InvalidValue for an engine
        that is not installed or a directory that is not private.
        """
        home = IndexHome(Path(mailbox_dir, "index"), "messages", config, mailbox.shards, report)
        search = cls(home, config, mailbox, report)
        try:
            if config.enabled:
                await search._open()
            yield search
        finally:
            await _in_thread(home.close)

    async def _open(self) -> None:
        try:
            await _in_thread(self._home.open)
        except StorageError as error:  # the mailbox goes on without
            self._report(error.message)
        self._restart()

    def _restart(self) -> None:
        self._read = dict(self._home.watermarks)
        self._uncommitted = 0
        self._woken.set()

    @property
    def engine(self) -> str:
        """Return the name of the engine in use."""
        return self._home.engine

    # -- asking

    async def find(self, query: Query, within: Within, limit: int) -> Found:
        """Return the messages that answer a query best; those deleted since are left out.

        Raises InvalidValue when search is turned off, StorageError when the index has to be made again first.
        """
        self._require()
        behind = await self.behind()  # before: what is indexed while it is looked for was not found
        hits = await self._hits(query, within, limit)
        messages = await asyncio.gather(*(self._message(hit) for hit in hits))
        found = [(message, hit.score) for hit, message in zip(hits, messages, strict=True) if message]
        return Found(found, behind)

    async def _hits(self, query: Query, within: Within, limit: int) -> list[Hit]:
        async with self._reading:
            try:
                return await _in_thread(lambda: self._home.search(query, within, limit))
            except IndexDamaged as error:
                damage = str(error)
        await self._begin_anew(damage)
        raise StorageError("the index of messages was damaged and is made again now", hint="search again in a moment")

    async def _message(self, hit: Hit) -> Message | None:
        try:
            return await self._mailbox.get(text_of(hit.seq))
        except (NotFound, StorageError):  # deleted since, or damaged, which the mailbox reports itself
            return None

    async def behind(self) -> int:
        """Return how many accepted messages cannot be found yet, counted up to MOST_BEHIND in each shard."""
        marks = self._home.watermarks
        counts = (self._mailbox.count_after(n, marks.get(n, 0), MOST_BEHIND) for n in self._mailbox.shards)
        return sum(await asyncio.gather(*counts))

    async def rebuild(self) -> int:
        """Begin the index anew from what is stored; returns what `behind` does then."""
        self._require()
        await self._begin_anew("somebody asked for it")
        return await self.behind()

    def _require(self) -> None:
        if not self._config.enabled:
            raise InvalidValue(
                "search is turned off", hint="set search.enabled = true in the configuration, then `agentd restart`"
            )

    # -- following

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Hear of a commit of the mailbox."""
        if any(change.state is MessageState.ACCEPTED for change in changes):
            self._woken.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take in what the mailbox accepts, until cancelled."""
        task_status.started()
        while self._config.enabled:
            await self._woken.wait()
            self._woken = anyio.Event()
            try:
                await self._catch_up()
            except (IndexDamaged, AgentdError) as error:
                self._report(f"the index could not follow ({error}); trying again")
                await anyio.sleep(_RETRY_S)
                await self._reopen()
            await anyio.sleep(self._config.pace_s)

    async def _catch_up(self) -> None:
        while await self._take_pages():
            if self._uncommitted >= COMMIT_MESSAGES:
                await self._commit()
        if self._uncommitted:
            await self._commit()

    async def _take_pages(self) -> bool:
        """Read a page of each shard; tells whether there was anything."""
        began_s = time.monotonic()
        async with self._writing:
            rows: list[Row] = []
            read = dict(self._read)
            for shard in self._mailbox.shards:
                page = await self._mailbox.after(shard, read.get(shard, 0), PAGE_MESSAGES)
                rows += page
                read |= {shard: page[-1].seq} if page else {}
            if not rows:
                return False
            await _in_thread(lambda: self._home.add(_entries(rows)))
            self._read = read
            self._uncommitted += len(rows)
        if self._mailbox.busy:
            await anyio.sleep(_REST * (time.monotonic() - began_s))
        return True

    async def _commit(self) -> None:
        async with self._writing:
            marks = {shard: self._read.get(shard, 0) for shard in self._mailbox.shards}
            failpoint("search.before_commit")
            await _in_thread(lambda: self._home.commit(marks))
            failpoint("search.after_commit")
            self._uncommitted = 0

    async def _reopen(self) -> None:
        """Go back to what is on disk."""
        async with self._writing, self._reading:
            await _in_thread(self._home.close)
            await self._open()

    async def _begin_anew(self, why: str) -> None:
        async with self._writing, self._reading:
            try:
                await _in_thread(lambda: self._home.begin_anew(why))
            finally:
                self._restart()


async def _in_thread(work: Callable[[], T]) -> T:
    # What a thread has begun is waited for, even by a caller who is gone: no two may work on one index.
    with anyio.CancelScope(shield=True):
        done = await anyio.to_thread.run_sync(work)
    return done  # noqa: RET504  mypy knows that a cancel scope may swallow an exception


def _entries(rows: Sequence[Row]) -> list[Entry]:
    return [Entry(row.seq, row.agent, row.sender, words_of(envelope_of(row.body).text)) for row in rows if intact(row)]
