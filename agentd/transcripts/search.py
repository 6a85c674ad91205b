"""Search over transcripts: an index that follows what is written, in small steps behind it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskStatus

from agentd.config import SearchConfig, TranscriptsConfig
from agentd.errors import AgentdError, InvalidValue, StorageError
from agentd.failpoint import failpoint
from agentd.index.engine import LAST_SEQ, Entry, Hit, IndexDamaged, Within
from agentd.index.home import IndexHome
from agentd.index.query import Query
from agentd.index.words import words_of
from agentd.private import private_dir
from agentd.transcripts.passages import Passage, Passages
from agentd.transcripts.plain import Plain, text_of
from agentd.transcripts.reading import Page, Reader, extent
from agentd.transcripts.segment import Missing, Piece, Printed

STEP_BYTES: Final = 64 * 1024  # read of one agent before another has its turn
PASSAGE_CHARS: Final = 2000  # of lines that are new; about a screen
RECENT_LINES: Final = 500  # of an agent: a line like one of them was drawn again, and is not taken in again
COMMIT_S: Final = 2.0
_REST: Final = 9  # so many seconds of rest after each of work
PORTION_BYTES: Final = 4096
_RETRY_S: Final = 5.0
_TIDY_S: Final = 600.0
_MOST_RECENT: Final = 300  # agents whose recent lines are remembered
_MOST_GONE: Final = 10_000  # passages in the index that are not kept any more, before it is made again

T = TypeVar("T")


class FoundPassage(NamedTuple):
    """A passage that a query found."""

    passage: Passage
    text: str
    score: float


@dataclass(frozen=True, slots=True)
class FoundPassages:
    """What a search found, best first, and how many bytes the index had not reached."""

    passages: list[FoundPassage]
    behind_bytes: int


class Recent:
    """The lines that an agent printed last, by their words."""

    def __init__(self) -> None:
        self._lines: dict[int, None] = {}

    def is_new(self, words: Sequence[str]) -> bool:
        """Tell whether no recent line has these words, and take it in as the most recent one."""
        line = hash(tuple(words))
        new = self._lines.pop(line, False) is False
        self._lines[line] = None
        if len(self._lines) > RECENT_LINES:
            del self._lines[next(iter(self._lines))]
        return new


class Taken(NamedTuple):
    """A part of a transcript, as the index takes it in."""

    start: int
    end: int
    at_ns: int
    words: list[str]  # of its new lines


def next_step(reader: Reader, recent: Recent) -> list[Taken]:
    """Return the parts of the next step of a transcript; a line that has not ended is left to the one after."""
    page = reader.next(STEP_BYTES)
    is_full = page.next - page.start >= STEP_BYTES
    if not is_full and not _ends_a_line(page):
        return []  # before any line counts as seen
    plain = Plain()
    parts: list[Taken] = []
    position = start = end = page.start
    at_ns, chars, words = 0, 0, list[str]()
    for at, portion in _portions(page.pieces):
        lines = plain.end_line() if isinstance(portion, Missing) else plain.feed(portion)
        position += portion.positions if isinstance(portion, Missing) else len(portion)
        end = position - plain.unsettled_bytes
        at_ns = at_ns or at
        for line in lines:
            found = words_of(line)
            if found and recent.is_new(found):
                words += found
                chars += len(line)
        if chars >= PASSAGE_CHARS and end > start:
            parts.append(Taken(start, end, at_ns, words))
            start, at_ns, chars, words = end, 0, 0, []
    if is_full and end <= page.start:  # one line, longer than the step
        end = position - plain.held_bytes
        words += words_of(plain.line)
    if end > start:
        parts.append(Taken(start, end, at_ns, words))
    return parts


def _ends_a_line(page: Page) -> bool:
    plain = Plain()
    for piece in page.pieces:
        if isinstance(piece, Missing):
            return True
        plain.feed(piece.data)
    return plain.unsettled_bytes < page.next - page.start


def _portions(pieces: Sequence[Piece]) -> Iterator[tuple[int, bytes | Missing]]:
    """Yield pieces in portions small enough to be cut into passages, with their times."""
    for piece in pieces:
        if isinstance(piece, Missing):
            yield piece.at_ns, piece
        else:
            for n in range(0, len(piece.data), PORTION_BYTES):
                yield piece.at_ns, piece.data[n : n + PORTION_BYTES]


class TranscriptSearch:
    """The index of all transcripts and the task that fills it."""

    def __init__(self, directory: Path, home: IndexHome, *, enabled: bool, report: Callable[[str], None]) -> None:
        self.enabled = enabled
        self._directory = directory
        self._home = home
        self._report = report
        self._passages: Passages | None = None
        self._due: set[str] = set()
        self._recent: dict[str, Recent] = {}
        self._uncommitted = False
        self._committed_s = 0.0
        self._woken = anyio.Event()
        self._turn = anyio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, directory: str, config: TranscriptsConfig, search: SearchConfig, report: Callable[[str], None]
    ) -> AsyncIterator[TranscriptSearch]:
        """Open the index, and close it in the end; raises InvalidValue for an engine that is not installed."""
        place = Path(directory)
        home = IndexHome(place / "index", "transcripts", search, range(1), report)
        enabled = config.enabled and config.search and search.enabled
        found = cls(place, home, enabled=enabled, report=report)
        try:
            if enabled:
                await found._open()
            yield found
        finally:
            await _in_thread(found._close_files)

    @property
    def engine(self) -> str:
        """Return the name of the engine in use."""
        return self._home.engine

    async def _open(self) -> None:
        try:
            await _in_thread(self._open_files)
        except (StorageError, IndexDamaged, OSError) as error:  # what agents print is kept without
            self._report(f"transcripts cannot be searched: {error}")
        self._woken.set()

    def _open_files(self) -> None:
        private_dir(str(self._directory))
        self._home.open()
        self._passages = Passages(self._directory / "passages.db")
        in_index = self._home.watermarks.get(0, 0)
        if in_index > self._passages.batch:
            self._home.begin_anew("the file beside it is older")
            in_index = 0
        self._passages.forget_after(in_index)
        self._due = {path.name for path in self._directory.iterdir() if path.name[:1].isdigit()}

    def _close_files(self) -> None:
        self._home.close()
        if self._passages:
            self._passages.close()
            self._passages = None

    # -- asking

    async def find(self, query: Query, within: Within, limit: int) -> FoundPassages:
        """Return the passages that answer a query best; those whose transcript is gone are left out.

        Raises InvalidValue when this is turned off, StorageError when the index has to be made again first.
        """
        self.require()
        async with self._turn:
            try:
                await _in_thread(self._commit)
                found = await _in_thread(partial(self._find, query, within, limit))
                return FoundPassages(found, await _in_thread(self._behind))
            except IndexDamaged as error:
                await _in_thread(partial(self._begin_anew, str(error)))
        raise StorageError(
            "the index of transcripts was damaged and is made again now", hint="search again in a moment"
        )

    def _find(self, query: Query, within: Within, limit: int) -> list[FoundPassage]:
        hits = self._home.search(query, within, limit)
        kept = self._there().get([hit.seq for hit in hits]) if hits else {}
        found = [self._found(kept[hit.seq], hit) for hit in hits if hit.seq in kept]
        return [each for each in found if each.text]

    def _found(self, passage: Passage, hit: Hit) -> FoundPassage:
        page = Reader(self._directory / passage.agent, passage.start, self._report).next(passage.end - passage.start)
        position, printed = passage.start, list[bytes]()
        for piece in page.pieces:
            if isinstance(piece, Printed):
                printed.append(piece.data[: max(0, passage.end - position)])
            position += piece.positions
        return FoundPassage(passage, text_of(b"".join(printed)), hit.score)

    def _behind(self) -> int:
        passages = self._there()
        ends = {agent: extent(self._directory / agent).end for agent in list(self._due)}
        return sum(max(0, end - passages.read_to(agent)) for agent, end in ends.items())

    async def rebuild(self) -> int:
        """Begin the index anew from what is stored; returns how many bytes are to be read."""
        self.require()
        async with self._turn:
            await _in_thread(partial(self._begin_anew, "somebody asked for it"))
            return await _in_thread(self._behind)

    def require(self) -> None:
        """Raise InvalidValue when this is turned off."""
        if not self.enabled:
            raise InvalidValue(
                "search in transcripts is off, as is transcripts.enabled, transcripts.search or search.enabled",
                hint="turn it on in the configuration, then `agentd restart`",
            )

    def _there(self) -> Passages:
        if self._passages is None:
            raise StorageError("the index of transcripts is not open", hint="the daemon's log says why")
        return self._passages

    def _begin_anew(self, why: str) -> None:
        self._home.begin_anew(why)
        self._there().begin_anew()
        self._recent.clear()
        self._uncommitted = False
        self._due = {path.name for path in self._directory.iterdir() if path.name[:1].isdigit()}
        self._woken.set()

    # -- following

    def on_written(self, agent_ids: Collection[str]) -> None:
        """Hear whose transcripts have grown."""
        if self.enabled:
            self._due.update(agent_ids)
            self._woken.set()

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Take in what is written, until cancelled."""
        task_status.started()
        tidied_s = time.monotonic()
        while self.enabled:
            try:
                await self._catch_up()
                if time.monotonic() - tidied_s > _TIDY_S:
                    tidied_s = time.monotonic()
                    async with self._turn:
                        await _in_thread(self._tidy)
            except (IndexDamaged, AgentdError, OSError) as error:
                self._report(f"the index of transcripts could not follow ({error}); trying again")
                await anyio.sleep(_RETRY_S)
                async with self._turn:
                    await _in_thread(self._close_files)
                    await self._open()
            with anyio.move_on_after(COMMIT_S if self._uncommitted else float("inf")):
                await self._woken.wait()

    async def _catch_up(self) -> None:
        """Go round all that have grown, a step each, until none has more; at most a tenth of the time is spent here."""
        while due := sorted(self._due):
            self._woken = anyio.Event()
            went_on = False
            for agent in due:
                began_s = time.monotonic()
                async with self._turn:
                    went_on |= await _in_thread(partial(self._step, agent))
                    if time.monotonic() - self._committed_s > COMMIT_S:
                        await _in_thread(self._commit)
                await anyio.sleep(_REST * (time.monotonic() - began_s))
            if not went_on:
                break
        async with self._turn:
            await _in_thread(self._commit)
        # What waits for its line to end, and what is printed meanwhile, is looked at in a while.
        await anyio.sleep(COMMIT_S / 4)

    def _step(self, agent: str) -> bool:
        """Take in a step of one transcript; tells whether there was anything."""
        passages = self._there()
        self._due.discard(agent)
        reader = Reader(self._directory / agent, passages.read_to(agent), self._report)
        parts = next_step(reader, self._recent_of(agent))
        if not parts:
            return False
        named = [(passages.add(agent, part.start, part.end, part.at_ns), part) for part in parts if part.words]
        self._home.add([Entry(seq, agent, "", part.words) for seq, part in named])
        passages.mark(agent, parts[-1].end)
        self._uncommitted = True
        self._due.add(agent)
        return True

    def _recent_of(self, agent: str) -> Recent:
        recent = self._recent.pop(agent, None) or Recent()
        self._recent[agent] = recent
        if len(self._recent) > _MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        return recent

    def _commit(self) -> None:
        self._committed_s = time.monotonic()
        if not self._uncommitted:
            return
        batch = self._there().commit()
        failpoint("transcripts.between_commits")
        self._home.commit({0: batch})
        self._uncommitted = False

    def _tidy(self) -> None:
        """Forget what is not kept any more; when that is most of the index, it is made again."""
        passages = self._there()
        for agent in passages.agents():
            there = extent(self._directory / agent)
            passages.drop_before(agent, there.first if there.size_bytes else LAST_SEQ)
        self._uncommitted = True
        self._commit()
        if passages.gone > max(_MOST_GONE, passages.count):
            self._begin_anew(f"{passages.gone} passages in it are not kept any more")


async def _in_thread(work: Callable[[], T]) -> T:
    # What a thread has begun is waited for, even by a caller who is gone: no two may work on one index.
    with anyio.CancelScope(shield=True):
        done = await anyio.to_thread.run_sync(work)
    return done  # noqa: RET504  mypy knows that a cancel scope may swallow an exception
