"""The index of messages: both engines alike, behind the mailbox, through crashes and damage."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import apsw
import pytest
from boxes import ALL, config, draft, put_ids, take
from fault_rows import LONG
from hypothesis import given, settings
from hypothesis import strategies as st
from nursery import ROOT, nursery

from agentd.config import SearchConfig
from agentd.errors import InvalidValue, NotFound, StorageError
from agentd.failpoint import VARIABLE
from agentd.index.engine import Entry, Within
from agentd.index.home import IndexHome
from agentd.index.query import Query, Term, parse
from agentd.index.words import words_of
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.search import Search

pytestmark = pytest.mark.anyio
CHILD = Path(__file__).with_name("search_child.py")
ENGINES = ("tantivy", "fts5")
EVERY_ENGINE = pytest.mark.parametrize("engine", ENGINES)
DEADLINE_S = 20.0


# -- the engines


@contextlib.contextmanager
def index(place: Path, engine: str, reports: list[str] | None = None) -> Iterator[IndexHome]:
    """Give an open index of one shard."""
    heard: list[str] = [] if reports is None else reports
    home = IndexHome(place, "messages", SearchConfig(engine=engine), range(1), heard.append)
    home.open()
    yield home
    home.close()


def entry(seq: int, text: str, to: str = "a", sender: str = "s") -> Entry:
    return Entry(seq, to, sender, words_of(text))


def found(home: IndexHome, query: str, within: Within | None = None, limit: int = 1000) -> list[int]:
    return [hit.seq for hit in home.search(parse(query), within or Within(), limit)]


TEXTS = [
    entry(16, "deploy the new service", "a", "s"),
    entry(32, "Deployment of the old service failed", "b", "s"),
    entry(48, "roll back the deploy", "a", "b"),
    entry(64, "back roll", "agent-1", "a"),
    entry(80, "", "agent-1-2", "x"),
    entry(96, "日本語のメッセージ", "c", "agent-1"),
]


@pytest.fixture(params=ENGINES)
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[IndexHome]:
    with index(tmp_path / "index", request.param) as home:
        home.add(TEXTS)
        home.commit({0: 96})
        yield home


@pytest.mark.parametrize(
    ("query", "seqs"),
    [
        ("deploy", {16, 48}),
        ("DEPLOY", {16, 48}),
        ("deploy*", {16, 32, 48}),
        ("deploy service", {16}),
        ("failed OR back", {32, 48, 64}),
        ("failed OR back roll", {48, 64}),
        ('"roll back"', {48}),
        ('"the ne*"', {16}),
        ("service -failed", {16}),
        ('back -"roll back"', {64}),
        ("-deploy roll", {64}),
        ("本語", {96}),
        ("語本", set()),
        ("missing", set()),
        ("NOT deploy AND", set()),
        ("body:deploy", set()),
        ("a s b", set()),
    ],
)
def test_what_is_found(filled: IndexHome, query: str, seqs: set[int]):
    assert set(found(filled, query)) == seqs


@pytest.mark.parametrize(
    ("within", "seqs"),
    [
        (Within(to=["a"]), {16, 48}),
        (Within(to=["a", "b"]), {16, 32, 48}),
        (Within(to=["agent-1"]), {64}),
        (Within(to=["agent"]), set()),
        (Within(senders=["s"]), {16, 32}),
        (Within(of="b"), {32, 48}),
        (Within(of="a", to=["a"], senders=["b"]), {48}),
        (Within(since_seq=32), {32, 48, 64}),
        (Within(until_seq=32), {16, 32}),
        (Within(since_seq=32, until_seq=48), {32, 48}),
    ],
)
def test_filters(filled: IndexHome, within: Within, seqs: set[int]):
    assert set(found(filled, "service OR back", within)) == seqs


def test_the_best_come_first_and_a_filter_does_not_change_the_score(filled: IndexHome):
    filled.add([entry(112, "rare rare rare", "z"), entry(128, "rare and a long tail of other words behind it", "z")])
    filled.commit({0: 128})
    hits = filled.search(parse("rare"), Within(), 10)
    assert [hit.seq for hit in hits] == [112, 128]
    assert hits[0].score > hits[1].score > 0
    assert filled.search(parse("rare"), Within(to=["z"]), 10) == hits
    assert filled.search(parse("rare"), Within(), 1) == hits[:1]


@EVERY_ENGINE
def test_what_is_not_committed_is_not_found_and_forgotten(engine: str, tmp_path: Path):
    with index(tmp_path / "index", engine) as home:
        home.add(TEXTS[:1])
        home.commit({0: 16})
        home.add(TEXTS[1:])
        assert found(home, "deploy*") == [16]
    with index(tmp_path / "index", engine) as home:
        assert home.watermarks == {0: 16}
        assert found(home, "deploy*") == [16]
        home.add(TEXTS[1:])
        home.commit({0: 96})
        assert sorted(found(home, "deploy*")) == [16, 32, 48]
        assert home.watermarks == {0: 96}


@EVERY_ENGINE
def test_only_the_last_watermark_counts(engine: str, tmp_path: Path):
    place = tmp_path / "index"
    with index(place, engine) as home:
        for seq in range(16, 16 * 13, 16):
            home.commit({0: seq})
    with index(place, engine) as home:
        assert home.watermarks == {0: 16 * 12}


@EVERY_ENGINE
def test_an_index_of_other_shards_or_another_engine_is_not_taken_for_this_one(engine: str, tmp_path: Path):
    place, reports = tmp_path / "index", list[str]()
    with index(place, engine) as home:
        home.add(TEXTS)
        home.commit({0: 96, 1: 96})
    with index(place, engine, reports) as home:
        assert home.watermarks == {}
        assert found(home, "deploy") == []
    assert ["other shards" in report for report in reports] == [True]
    other = next(name for name in ENGINES if name != engine)
    with index(place, other):
        assert [path.name for path in place.iterdir()] == [f"{other}-1"]


# P: any text, both engines, and a plain search through everything that says what is right

WORDS = st.sampled_from(["a", "ab", "abc", "b", "ba", "é", "日", "or"])
BODY = st.lists(WORDS, max_size=6).map(" ".join)
ASKED = st.lists(
    st.sampled_from(["a", "ab", "abc", "b", "é", "日", "a*", "b*", '"a b"', '"b a*"', "-a", "-ab", "OR", "OR", '"']),
    min_size=1,
    max_size=6,
).map(" ".join)


def stands_in(term: Term, words: list[str]) -> bool:
    size = len(term.words)
    runs = [tuple(words[n : n + size]) for n in range(len(words) - size + 1)]
    if term.prefix:
        return any(run[:-1] == term.words[:-1] and run[-1].startswith(term.words[-1]) for run in runs)
    return term.words in runs


def answers(query: Query, words: list[str]) -> bool:
    return all(any(stands_in(term, words) for term in group) for group in query.groups) and not any(
        stands_in(term, words) for term in query.without
    )


@EVERY_ENGINE
def test_an_engine_finds_what_a_plain_search_finds(engine: str, tmp_path: Path):
    serial = iter(range(1_000_000))

    @settings(max_examples=25 if LONG else 12, deadline=None)
    @given(st.lists(BODY, min_size=1, max_size=8), st.lists(ASKED, min_size=5, max_size=20))
    def check(bodies: list[str], asked: list[str]) -> None:
        with index(tmp_path / str(next(serial)), engine) as home:
            home.add([entry(16 * n, body) for n, body in enumerate(bodies)])
            home.commit({0: 16 * len(bodies)})
            for text in asked:
                with contextlib.suppress(InvalidValue):
                    query = parse(text)
                    right = {16 * n for n, body in enumerate(bodies) if answers(query, words_of(body))}
                    assert set(found(home, text)) == right, text

    check()


def test_any_text_gives_an_answer_or_says_what_is_wrong_with_it(filled: IndexHome):
    @settings(max_examples=300 if LONG else 100, deadline=None)
    @given(st.text() | st.text(alphabet="ab\"'*-+:()[]{}^~\\/!&|<>=.,é\x00 \n") | st.from_regex(r"\w+:[\[{]?\w+ TO .*"))
    def check(text: str) -> None:
        with contextlib.suppress(InvalidValue):
            assert isinstance(found(filled, text), list)

    check()


def test_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "tantivy", None)  # as if it were not
    with pytest.raises(InvalidValue, match="not installed"), index(tmp_path / "index", "tantivy"):
        pass
    with index(tmp_path / "index", "auto") as home:
        assert home.engine == "fts5"


# -- behind the mailbox


class Scene:
    """A mailbox and its search."""

    def __init__(self, box: Mailbox, search: Search, reports: list[str]) -> None:
        self.box = box
        self.search = search
        self.reports = reports

    async def caught_up(self) -> None:
        await until(self.search.behind)

    async def found(self, query: str, within: Within | None = None) -> list[str]:
        """Return the ids that are found once the index has everything, whatever state it was in."""
        await self.caught_up()
        with contextlib.suppress(StorageError):
            return await self._ids(query, within)
        await self.caught_up()
        return await self._ids(query, within)

    async def _ids(self, query: str, within: Within | None) -> list[str]:
        done = await self.search.find(parse(query), within or Within(), 100_000)
        return sorted(message.id for message, _ in done.messages)


async def until(left: Callable[[], object]) -> None:
    with anyio.fail_after(DEADLINE_S):
        while await left():
            await anyio.sleep(0.005)


@asynccontextmanager
async def scene(directory: Path, engine: str = "auto", *, follow: bool = True, **more: object) -> AsyncIterator[Scene]:
    told: list[Search] = []
    reports: list[str] = []
    search_config = SearchConfig(**({"engine": engine, "pace_s": 0.01} | more))
    async with Mailbox.open(directory, config(shards=2), lambda changes: [s.on_changes(changes) for s in told]) as box:
        opened = Search.open(directory, search_config, box, reports.append)
        async with opened as search, anyio.create_task_group() as tasks:
            told.append(search)
            if follow:
                await tasks.start(search.run)
            yield Scene(box, search, reports)
            tasks.cancel_scope.cancel()


@EVERY_ENGINE
async def test_messages_are_found_soon_and_after_a_restart(engine: str, tmp_path: Path):
    async with scene(tmp_path / "box", engine) as here:
        ids = await put_ids(here.box, *(draft(f"needle {n}", to=f"agent-{n % 5}") for n in range(50)))
        assert await here.found("needle") == sorted(ids)
    async with scene(tmp_path / "box", engine) as here:
        assert await here.search.behind() == 0  # nothing is read again
        more = await put_ids(here.box, draft("needle, the last", to="agent-1"))
        assert await here.found("needle") == sorted(ids + more)
        assert await here.found("needle", Within(to=["agent-1"])) == sorted(ids[1::5] + more)
        assert here.reports == []
    assert stat.S_IMODE((tmp_path / "box" / "index").stat().st_mode) == 0o700


async def test_how_far_it_is_behind_is_said(tmp_path: Path):
    async with scene(tmp_path / "box", follow=False) as here:
        await put_ids(here.box, *(draft("needle", to=f"agent-{n}") for n in range(7)))
        done = await here.search.find(parse("needle"), Within(), 10)
        assert (done.messages, done.behind) == ([], 7)


async def test_deleted_messages_are_not_shown(tmp_path: Path):
    async with scene(tmp_path / "box") as here:
        kept, gone = await put_ids(here.box, draft("needle kept"), draft("needle gone"))
        assert await here.found("needle") == sorted([kept, gone])
        taken = await take(here.box)
        await here.box.nack([d for d in taken if d.message.id == gone], 0.0, "no", max_attempts=1)
        assert await here.box.drop([gone]) == [None]
        assert await here.found("needle") == [kept]
        await here.search.rebuild()
        assert await here.found("needle") == [kept]


async def test_a_page_is_bounded_by_messages_and_by_bytes(tmp_path: Path):
    async with scene(tmp_path / "box", follow=False) as here:
        await put_ids(here.box, *(draft(f"{n} " + "x" * 200_000) for n in range(20)))
        (home,) = [shard for shard in here.box.shards if await here.box.count_after(shard, 0, 100)]
        few = await here.box.after(home, 0, 3)
        assert len(few) == 3
        by_size = await here.box.after(home, 0, 100)
        assert 3 < len(by_size) < 10
        rest = await here.box.after(home, by_size[-1].seq, 2)
        assert [row.seq for row in rest] > [row.seq for row in by_size]


@EVERY_ENGINE
async def test_made_again_on_demand(engine: str, tmp_path: Path):
    async with scene(tmp_path / "box", engine) as here:
        ids = await put_ids(here.box, *(draft("needle", to=f"agent-{n}") for n in range(30)))
        assert await here.found("needle") == sorted(ids)
        assert await here.search.rebuild() == 30
        assert await here.found("needle") == sorted(ids)
        assert [report for report in here.reports if "somebody asked" in report]


async def test_turned_off_it_does_nothing_and_says_so(tmp_path: Path):
    async with scene(tmp_path / "box", enabled=False) as here:
        await put_ids(here.box, draft("needle"))
        for call in (here.search.find(parse("needle"), Within(), 10), here.search.rebuild()):
            with pytest.raises(InvalidValue, match="turned off"):
                await call
    assert not (tmp_path / "box" / "index").exists()


# -- crashes and damage


@EVERY_ENGINE
@pytest.mark.parametrize(
    "point", ["before_commit:kill", "after_commit:kill", "before_commit:kill@3", "after_commit:kill@3"]
)
async def test_killed_around_a_commit_nothing_is_missing_or_twice(engine: str, point: str, tmp_path: Path):
    words = [str(tmp_path / "box"), engine, "400"]
    killed = nursery("search_child").live(words, {VARIABLE: f"search.{point}"})
    assert killed.returncode == -signal.SIGKILL, killed.err
    async with scene(tmp_path / "box", engine) as here:
        stored = [m.id for n in range(5) for m in await here.box.inbox(f"agent-{n}", ALL, 1000)]
        assert len(stored) > 0
        assert await here.found("needle") == sorted(stored)
        assert here.reports == []


@EVERY_ENGINE
async def test_killed_at_any_moment_nothing_is_missing_or_twice(engine: str, tmp_path: Path):
    dice = random.Random(5)
    argv = [sys.executable, str(CHILD), str(tmp_path / "box"), engine, "100000"]
    for _ in range(10 if LONG else 2):
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout
            for _ in range(dice.randrange(1, 6)):
                assert child.stdout.readline() == "indexed\n"
            child.kill()
    async with scene(tmp_path / "box", engine) as here:
        stored = [m.id for n in range(5) for m in await here.box.inbox(f"agent-{n}", ALL, 100_000)]
        assert await here.found("needle") == sorted(stored)
        assert here.reports == []


def removed(path: Path) -> None:
    path.unlink()


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def zeroed(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def replaced(path: Path) -> None:
    path.unlink()
    path.mkdir()


def victims(place: Path) -> list[Path]:
    """Return the files of an index; in the short form one of each kind, as it has many segments alike."""
    files = sorted(path.relative_to(place) for path in place.rglob("*") if path.is_file())
    kinds = {file.suffix or file.name: file for file in files}
    return files if LONG else sorted(kinds.values())


@EVERY_ENGINE
@pytest.mark.parametrize("harm", [removed, emptied, zeroed, replaced])
async def test_a_damaged_file_costs_nothing_but_time(engine: str, harm: Callable[[Path], None], tmp_path: Path):
    async with scene(tmp_path / "box", engine) as here:
        ids = await put_ids(here.box, *(draft(f"needle number{n}", to=f"agent-{n % 3}") for n in range(40)))
        await here.caught_up()
    whole, reports = tmp_path / "whole", list[str]()
    shutil.copytree(tmp_path / "box" / "index", whole)
    for victim in victims(whole):
        shutil.rmtree(tmp_path / "box" / "index")
        shutil.copytree(whole, tmp_path / "box" / "index")
        (tmp_path / "box" / "index").chmod(0o700)
        harm(tmp_path / "box" / "index" / victim)
        async with scene(tmp_path / "box", engine) as here:
            assert await here.found('needle "needle num*"') == sorted(ids), victim
            reports += here.reports
    assert harm in (removed, emptied) or reports


def change_behind_its_back(place: Path, sql: str) -> None:
    connection = apsw.Connection(str(place / "fts5-1" / "index.db"))
    connection.execute(sql)
    connection.close()


async def test_damage_that_a_search_runs_into_is_said_and_mended(tmp_path: Path):
    async with scene(tmp_path / "box", "fts5") as here:  # the other engine finds it when it opens
        (id_,) = await put_ids(here.box, draft("a needle"))
        await here.caught_up()
    change_behind_its_back(tmp_path / "box" / "index", "UPDATE f_data SET block = zeroblob(20) WHERE id > 10")
    async with scene(tmp_path / "box", "fts5") as here:
        with pytest.raises(StorageError, match="damaged"):
            await here.search.find(parse('"a needle"'), Within(), 10)
        assert await here.found('"a needle"') == [id_]
        assert ["made again" in report for report in here.reports] == [True]


@EVERY_ENGINE
async def test_damage_that_following_runs_into_is_mended(engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("agentd.mailbox.search._RETRY_S", 0.01)
    async with scene(tmp_path / "box", engine) as here:
        ids = await put_ids(here.box, draft("needle"))
        await here.caught_up()
        if engine == "tantivy":
            for path in (tmp_path / "box" / "index").rglob("*"):
                if path.is_file():
                    path.unlink()
        else:
            change_behind_its_back(tmp_path / "box" / "index", "DROP TABLE marks")
        ids += await put_ids(here.box, draft("needle, the second"))
        assert await here.found("needle") == sorted(ids)
        if engine == "fts5":  # the other one goes on with what it holds of the files, until it opens them again
            assert any("could not follow" in report for report in here.reports)
    async with scene(tmp_path / "box", engine) as here:
        assert await here.found("needle") == sorted(ids)


@EVERY_ENGINE
async def test_an_index_that_is_gone_or_is_something_else_is_made(engine: str, tmp_path: Path):
    place = tmp_path / "box" / "index"
    async with scene(tmp_path / "box", engine) as here:
        (id_,) = await put_ids(here.box, draft("needle"))
        await here.caught_up()
    shutil.rmtree(place)
    async with scene(tmp_path / "box", engine) as here:
        assert await here.found("needle") == [id_]
    shutil.rmtree(place / f"{engine}-1")
    (place / f"{engine}-1").write_text("a file")
    (place / "stray").symlink_to(tmp_path)
    async with scene(tmp_path / "box", engine) as here:
        assert await here.found("needle") == [id_]
    assert [path.name for path in place.iterdir()] == [f"{engine}-1"]
    assert tmp_path.exists()


async def test_an_index_directory_that_is_a_link_is_refused(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "box").mkdir(mode=0o700)
    (tmp_path / "box" / "index").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidValue, match="symlink"):
        async with scene(tmp_path / "box"):
            pass


async def test_a_message_that_is_damaged_or_unknown_is_no_hit(tmp_path: Path):
    async with scene(tmp_path / "box") as here:
        (id_,) = await put_ids(here.box, draft("needle"))
        with pytest.raises(NotFound):
            await here.box.get("m0000000000zz")
        assert await here.found("needle") == [id_]
