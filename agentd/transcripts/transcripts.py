"""What agents print, taken in as it comes and written by one thread behind it, and read again by whoever asks."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from agentd.config import TranscriptsConfig
from agentd.errors import InvalidValue
from agentd.transcripts.folder import Extent
from agentd.transcripts.reading import Page, Reader, extent, position_at
from agentd.transcripts.segment import Why
from agentd.transcripts.store import Decode, Store
from agentd.transcripts.waiting import Waiting

FLUSH_S: Final = 0.25  # from output to its file: what a killed daemon may lose
FOLLOWED_S: Final = 0.03  # likewise while somebody follows
PAGE_BYTES: Final = 256 * 1024
READERS: Final = 4  # at once
_AGAIN_S: Final = 1.0  # between attempts at a disk that takes no more
_FIRST_KEEP_S: Final = 30.0  # a start has other things to do than to look at every file
_KEEP_S: Final = 600.0

Tell = Callable[[str, dict[str, Any]], None]
T = TypeVar("T")


class Transcripts:
    """Every agent's transcript; taking in output only puts it into a bounded queue."""

    def __init__(self, directory: Path, config: TranscriptsConfig, decode: Decode, tell: Tell) -> None:
        """`decode` makes what was heard what was printed; `tell` hears of events."""
        self.config = config
        self.on_written: list[Callable[[Collection[str]], None]] = []
        self._directory = directory
        self._tell = tell
        self._store = Store(directory, config, decode, self._report)
        self._waiting = Waiting()
        self._woken = anyio.Event()
        self._hurried = anyio.Event()
        self._writing = anyio.Lock()
        self._readers = anyio.CapacityLimiter(READERS)
        self._grown: dict[str, anyio.Event] = {}
        self._followers = 0
        self._reported: set[str] = set()
        self._trouble = ""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: str, config: TranscriptsConfig, decode: Decode, tell: Tell
    ) -> AsyncIterator[Transcripts]:
        """Give the transcripts in a directory; what was heard until the end is written."""
        transcripts = cls(Path(directory), config, decode, tell)
        try:
            yield transcripts
        finally:
            if config.enabled:
                await transcripts.settle()

    def stats(self) -> dict[str, Any]:
        """Return what is told of them."""
        return {
            "enabled": self.config.enabled,
            "size_bytes": self._store.size_bytes,
            "waiting_bytes": self._waiting.size_bytes,
            "trouble": self._trouble,
        }

    # -- what happens

    def heard(self, agent_id: str, escaped: bytes) -> None:
        """Take in what an agent's program printed, as tmux sent it."""
        if self.config.enabled:
            self._waiting.heard(agent_id, escaped, time.time_ns())
            self._woken.set()

    def missed(self, agent_id: str, why: Why) -> None:
        """Take in that something may be missing before what the agent prints next."""
        if self.config.enabled:
            self._waiting.missed(agent_id, why)

    def ended(self, agent_id: str) -> None:
        """Take in that an agent's program ended."""
        if self.config.enabled:
            self._waiting.ended(agent_id, time.time_ns())
            self._hurried.set()
            self._woken.set()

    def forget(self, agent_ids: Collection[str]) -> None:
        """Have the transcripts of agents removed that are not listed any more."""
        for agent_id in agent_ids:
            self._waiting.forget(agent_id, time.time_ns())
        self._woken.set()

    # -- writing

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Write what comes, and remove what is old, until cancelled."""
        async with anyio.create_task_group() as tasks:
            if self.config.enabled:
                tasks.start_soon(self._keep_regularly)
            task_status.started()
            while True:
                with anyio.move_on_after(_AGAIN_S if self._trouble else float("inf")):
                    await self._woken.wait()
                with anyio.move_on_after(FOLLOWED_S if self._followers else FLUSH_S):
                    await self._hurried.wait()
                await self.settle()

    async def settle(self) -> None:
        """Write what was heard so far."""
        async with self._writing:
            self._rearm()
            batch = self._waiting.take()
            if not batch and not self._trouble:
                return
            try:
                await _in_thread(partial(self._store.write, batch))
                trouble = self._store.trouble
            except Exception as error:  # noqa: BLE001  a fault of ours here must end neither agents nor messages
                trouble = f"agentd failed: {type(error).__name__}: {error}"
            self._tell_trouble(trouble)
        for agent_id in batch:
            if grown := self._grown.pop(agent_id, None):
                grown.set()
        for listener in self.on_written:
            listener(batch.keys())

    def _rearm(self) -> None:
        """Begin to wait anew; who waited for what is dealt with now, in `run`, is let go."""
        woken, hurried = self._woken, self._hurried
        self._woken, self._hurried = anyio.Event(), anyio.Event()
        woken.set()
        hurried.set()

    def _tell_trouble(self, trouble: str) -> None:
        """Tell once that nothing more is kept, and once that it is kept again."""
        before, self._trouble = self._trouble, trouble
        if trouble and not before:
            self._tell("transcripts.stopped", {"reason": trouble})
        elif before and not trouble:
            self._tell("transcripts.resumed", {"reason": before})

    async def _keep_regularly(self) -> None:
        await anyio.sleep(_FIRST_KEEP_S)
        while True:
            await self.keep()
            await anyio.sleep(_KEEP_S)

    async def keep(self) -> int:
        """Remove what is kept for too long or is too much; returns how many files that were."""
        async with self._writing:
            try:
                return await _in_thread(partial(self._store.keep, time.time_ns()))
            except Exception as error:  # noqa: BLE001  likewise; it is tried again
                self._report(f"old transcripts could not be removed ({type(error).__name__}: {error})")
                return 0

    def _report(self, sentence: str) -> None:
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._tell("transcripts.report", {"report": sentence})

    # -- reading

    async def extent(self, agent_id: str) -> Extent:
        """Return what there is of an agent's transcript, what was heard so far with it."""
        await self._settled(agent_id)
        return await self._read(partial(extent, self._directory / agent_id))

    async def glance(self, agent_id: str) -> Extent:
        """Return what is written of an agent's transcript, from memory if it was written to."""
        known = self._store.known(agent_id)
        if known is not None:
            return known
        return await self._read(partial(extent, self._directory / agent_id))

    async def position_at(self, agent_id: str, at_ns: int) -> int:
        """Return the position of the first thing that was printed at a time or later."""
        await self._settled(agent_id)
        return await self._read(partial(position_at, self._directory / agent_id, at_ns))

    async def page(self, agent_id: str, position: int, most_bytes: int = PAGE_BYTES) -> Page:
        """Return what an agent printed from a position on."""
        await self._settled(agent_id)
        return await self._read(partial(self._reader(agent_id, position).next, most_bytes))

    async def follow(self, agent_id: str, position: int, is_over: Callable[[], bool]) -> AsyncGenerator[Page, None]:
        """Yield what an agent printed from a position on, and what it prints, until its program has ended."""
        self.require()
        reader = self._reader(agent_id, position)
        with self._following():
            while True:
                grown = self._grown.setdefault(agent_id, anyio.Event())
                over = is_over()
                if over:
                    await self._settled(agent_id)
                page = await self._read(partial(reader.next, PAGE_BYTES))
                if page.pieces:
                    yield page
                elif over:
                    return
                else:
                    await grown.wait()

    def require(self) -> None:
        """Raise InvalidValue when transcripts are turned off."""
        if not self.config.enabled:
            raise InvalidValue(
                "transcripts are turned off", hint="set transcripts.enabled = true in the configuration, then restart"
            )

    def _reader(self, agent_id: str, position: int) -> Reader:
        return Reader(self._directory / agent_id, position, self._report)

    @contextmanager
    def _following(self) -> Iterator[None]:
        self._followers += 1
        self._hurried.set()
        try:
            yield
        finally:
            self._followers -= 1

    async def _settled(self, agent_id: str) -> None:
        if agent_id in self._waiting.agents or self._writing.locked():
            await self.settle()

    async def _read(self, work: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(work, limiter=self._readers)


class Recording:
    """One agent's transcript, for whoever watches the agent."""

    def __init__(self, transcripts: Transcripts, agent_id: str) -> None:
        self._transcripts = transcripts
        self._agent_id = agent_id

    def heard(self, escaped: bytes) -> None:
        """Take in what the program printed, as tmux sent it; nothing, when some of it was skipped."""
        if escaped:
            self._transcripts.heard(self._agent_id, escaped)
        else:
            self._transcripts.missed(self._agent_id, Why.PAUSED)

    def missed(self, why: Why) -> None:
        """Take in that something may be missing before what is printed next."""
        self._transcripts.missed(self._agent_id, why)

    def close(self) -> None:
        """Take in that the program ended."""
        self._transcripts.ended(self._agent_id)


async def _in_thread(work: Callable[[], T]) -> T:
    # What the thread has begun is waited for, even by a caller who is gone: no two may write at once.
    with anyio.CancelScope(shield=True):
        done = await anyio.to_thread.run_sync(work)
    return done  # noqa: RET504  mypy knows that a cancel scope may swallow an exception
