"""The index of transcripts: what was printed is found with its place, redraws count once, crashes lose nothing."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from keeping import AGENT, heard, store

from agentd.config import SearchConfig, TranscriptsConfig
from agentd.errors import InvalidValue, StorageError
from agentd.index.engine import Within
from agentd.index.query import parse
from agentd.transcripts import search as searching
from agentd.transcripts import track
from agentd.transcripts.passages import Passages, seq_at
from agentd.transcripts.reading import Reader
from agentd.transcripts.search import Recent, TranscriptSearch, next_step

pytestmark = pytest.mark.anyio
ENGINES = pytest.mark.parametrize("engine", ["tantivy", "fts5"])
OTHER = "2def"
YEAR_NS = 31_536_000 * 10**9
NOW_NS = 56 * YEAR_NS


@asynccontextmanager
async def opened(
    place: Path, engine: str = "fts5", reports: list[str] | None = None, **settings: bool
) -> AsyncIterator[TranscriptSearch]:
    told: list[str] = []
    config = SearchConfig(engine=engine)
    async with (
        TranscriptSearch.open(
            str(place), TranscriptsConfig(**settings), config, (told if reports is None else reports).append
        ) as search,
        anyio.create_task_group() as tasks,
    ):
        await tasks.start(search.run)
        yield search
        tasks.cancel_scope.cancel()
    assert reports is not None or told == []


async def found(search: TranscriptSearch, query: str, limit: int = 100, **within: object) -> list[tuple[str, str]]:
    """Return agents and texts once the index has caught up."""
    with anyio.fail_after(60):
        while (answer := await search.find(parse(query), Within(**within), limit)).behind_bytes:  # type: ignore[arg-type]
            await anyio.sleep(0.02)
    return [(each.passage.agent, each.text) for each in answer.passages]


def numbered(count: int) -> bytes:
    return b"".join(b"line number%d of the output\r\n" % n for n in range(count))


@ENGINES
async def test_what_was_printed_is_found_with_its_place(tmp_path: Path, engine: str):
    keeper = store(tmp_path)
    keeper.write(
        {AGENT: heard(numbered(3000), at_ns=NOW_NS), OTHER: heard(b"\x1b[31mnee\x1b[0mdle\r\n", at_ns=NOW_NS + 9**9)}
    )
    async with opened(tmp_path, engine) as search:
        [(agent, text)] = await found(search, "number1234")
        assert agent == AGENT
        assert "line number1234 of the output\nline number1235 " in text
        assert await found(search, "needle") == [(OTHER, "needle")]
        assert await found(search, "needle OR number7", to=[AGENT]) != []
        assert await found(search, "needle", to=[AGENT]) == []
        assert await found(search, "needle", until_seq=seq_at(NOW_NS + 1000)) == []
        assert len(await found(search, "needle", since_seq=seq_at(NOW_NS + 1000))) == 1
        assert len(await found(search, "output", limit=5)) == 5
        [passage] = (await search.find(parse("number1234"), Within(), 5)).passages
        assert passage.passage.at_ns == NOW_NS
        page = Reader(tmp_path / AGENT, passage.passage.start, print).next(passage.passage.end - passage.passage.start)
        assert b"number1234 " in page.pieces[0].data  # type: ignore[union-attr]


@ENGINES
async def test_what_is_written_later_is_found_too(tmp_path: Path, engine: str):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"first half")})
    async with opened(tmp_path, engine) as search:
        assert await found(search, "half") == []  # the line may go on
        keeper.write({AGENT: heard(b" and second\r\n")})
        search.on_written([AGENT])
        assert await found(search, '"half and second"') == [(AGENT, "first half and second")]


def test_a_line_that_is_drawn_again_and_again_is_taken_in_once(tmp_path: Path):
    screen = b"".join(b"\x1b[%d;1H\x1b[2KThe screen's line %d" % (row, row) for row in range(1, 30))
    keeper = store(tmp_path)
    data = b"".join(screen + b"\x1b[30;1H\x1b[2K%s" % spin.encode() for spin in "⠋⠙⠹⠸" * 50)
    keeper.write({AGENT: heard(data + b"\nthe end\n")})
    reader, recent, words = Reader(tmp_path / AGENT, 0, print), Recent(), list[str]()
    position = 0
    while parts := next_step(reader, recent):
        assert parts[0].start == position
        position = parts[-1].end
        words += [word for part in parts for word in part.words]
        reader = Reader(tmp_path / AGENT, position, print)
    assert position == len(data) + 9
    assert len(words) == 29 * 5 + 2


def test_a_long_row_without_an_end_is_taken_in_as_it_comes(tmp_path: Path):
    store(tmp_path).write({AGENT: heard(b"word " * 60_000)})
    position, steps = 0, 0
    while parts := next_step(Reader(tmp_path / AGENT, position, print), Recent()):
        assert parts[0].start == position
        assert parts[-1].end > position
        position, steps = parts[-1].end, steps + 1
    assert position == 4 * searching.STEP_BYTES  # the rest may go on
    assert steps == 4
    assert next_step(Reader(tmp_path / AGENT, position, print), Recent()) == []


@ENGINES
async def test_a_kill_between_the_two_commits_loses_nothing_and_doubles_nothing(
    tmp_path: Path, engine: str, monkeypatch: pytest.MonkeyPatch
):
    class Killed(Exception):
        pass

    def kill(name: str) -> None:
        if name == "transcripts.between_commits":
            raise Killed

    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"before\r\n")})
    async with opened(tmp_path, engine) as search:
        await found(search, "before")
    keeper.write({AGENT: heard(b"needle\r\n")})
    with monkeypatch.context() as patch:
        patch.setattr(searching, "failpoint", kill)
        with pytest.raises(BaseException):  # noqa: B017  whatever it is wrapped in
            async with opened(tmp_path, engine) as search:
                await found(search, "needle")
    async with opened(tmp_path, engine) as search:
        assert len(await found(search, "needle")) == 1
        assert len(await found(search, "before")) == 1


@ENGINES
@pytest.mark.parametrize("what", ["index", "passages.db", "both", "older"])
async def test_what_is_damaged_or_gone_is_made_again(tmp_path: Path, engine: str, what: str):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"needle\r\n")})
    async with opened(tmp_path, engine) as search:
        await found(search, "needle")
    if what in ("index", "both"):
        shutil.rmtree(tmp_path / "index")
    if what in ("passages.db", "both"):
        (tmp_path / "passages.db").write_bytes(b"no database, and long enough to be seen as none" * 100)
        (tmp_path / "passages.db-wal").unlink(missing_ok=True)
    if what == "older":
        (tmp_path / "passages.db").unlink()
    keeper.write({AGENT: heard(b"more\r\n")})
    async with opened(tmp_path, engine, []) as search:
        assert len(await found(search, "needle")) == 1
        assert len(await found(search, "more")) == 1
        assert await search.rebuild() > 0
        assert len(await found(search, "needle")) == 1


async def test_what_is_not_kept_any_more_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(track, "FULL_BYTES", 40_000)
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"needle\r\n" + numbered(3000)), OTHER: heard(b"needle\r\n")})
    reports: list[str] = []
    async with opened(tmp_path, "fts5", reports) as search:
        assert len(await found(search, "needle")) == 2
        shutil.rmtree(tmp_path / OTHER)
        keeper.track(AGENT).remove_oldest()
        assert await found(search, "needle") == []
        monkeypatch.setattr(searching, "_MOST_GONE", 5)
        search._tidy()
        assert "not kept any more" in reports[0]
        assert await found(search, "needle") == []
        assert len(await found(search, "number2999")) == 1
        assert search._passages is not None
        assert search._passages.gone == 0


def test_passages_of_one_moment_have_numbers_of_their_own(tmp_path: Path):
    passages = Passages(tmp_path / "p.db")
    seqs = [passages.add(AGENT, n, n + 1, NOW_NS) for n in range(50)]
    assert len(set(seqs)) == 50
    assert set(passages.get(seqs)) == set(seqs)
    passages.close()


async def test_turned_off(tmp_path: Path):
    for settings in ({"enabled": False}, {"search": False}):
        async with opened(tmp_path, **settings) as search:
            with pytest.raises(InvalidValue, match="off"):
                await search.find(parse("x"), Within(), 1)
    assert list(tmp_path.iterdir()) == []


async def test_a_place_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path):
    (tmp_path / "t").write_bytes(b"in the way")
    reports: list[str] = []
    with pytest.raises(InvalidValue):
        async with opened(tmp_path / "t", reports=reports):
            pass
    (tmp_path / "t").unlink()
    async with opened(tmp_path / "t", reports=reports) as search:
        shutil.rmtree(tmp_path / "t" / "index")
        search._passages.close()  # type: ignore[union-attr]
        search._passages = None
        with pytest.raises(StorageError, match="not open"):
            await search.find(parse("x"), Within(), 1)
