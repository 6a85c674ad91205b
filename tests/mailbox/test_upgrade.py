"""S10, P13: what a mailbox of an older format holds is the same in the newest, however the upgrade is cut short."""

from __future__ import annotations

import shutil
import signal
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
from boxes import open_box
from fault_rows import LONG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nursery import nursery
from older_formats import columns, make

from agentd.failpoint import VARIABLE
from agentd.mailbox import layout, verification
from agentd.mailbox.ids import EPOCH_NS, home_of, text_of
from agentd.mailbox.rows import STATES, Row, encode, fragment, record_of
from agentd.records import Draft, MessageState, Priority

pytestmark = pytest.mark.anyio
ROWS = 100_000 if LONG else 3000
GOLDEN = Path(__file__).parent / "golden"
OLDER = range(1, layout.VERSION)


def row(n: int, agent: str, state: int, prio: int = 1, body: str = "x") -> Row:
    """Return a row as format 1 had it: its body ends after the headers."""
    draft = Draft(to=agent, sender=f"s{n % 9}", body=body, key=f"k{n}", priority=Priority(prio))
    made = encode(n << 4 | home_of(agent, 2), draft, None, EPOCH_NS + n * 1000)
    made = made._replace(body=msgspec.msgpack.encode((body, draft.key, {})), state=state, tries=n % 4)
    hist = fragment(STATES[state], EPOCH_NS + n, "because") if state else ""
    return made._replace(crc=zlib.crc32(record_of(made)), hist=hist)


def shards(rows: list[Row]) -> list[list[Row]]:
    return [[one for one in rows if home_of(one.agent, 2) == index] for index in range(2)]


def content(place: Path) -> list[tuple[object, ...]]:
    def read() -> Iterator[tuple[object, ...]]:
        for path in sorted(place.glob("s??.db")):
            connection = apsw.Connection(str(path))
            new = connection.execute("SELECT count(*) FROM sqlite_schema WHERE name='message'").get
            yield from connection.execute(f"SELECT {columns()} FROM {'message' if new else 'm'}").fetchall()
            connection.close()

    return sorted(read())


ROW = st.tuples(st.sampled_from("abcdef"), st.integers(0, 5), st.integers(0, 2), st.text(max_size=20))


@settings(max_examples=25 if LONG else 10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROW, max_size=60))
@pytest.mark.parametrize("version", OLDER)
def test_any_store_of_an_older_format_holds_the_same_in_the_newest(
    version: int, made: list[tuple[str, int, int, str]]
) -> None:
    rows = [row(n + 1, *one) for n, one in enumerate(made)]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory, "box")
        make(place, GOLDEN, version, shards(rows))
        before = content(place)
        now, existed = layout.prepare(place, 2)
        assert (now.version, existed) == (layout.VERSION, True)
        assert content(place) == before
        assert content(Path(directory, f"box.v{version}")) == before
        for verdict in verification.verify(place, lambda _: None):
            assert verdict.structure == "ok"
            assert verdict.checked.damaged == verdict.checked.misplaced == []


@pytest.mark.parametrize("point", ["after_copy", "after_step", "before_swap", "mid_swap"])
@pytest.mark.parametrize("version", OLDER)
async def test_an_upgrade_of_many_messages_killed_at_any_step_loses_none(
    tmp_path: Path, version: int, point: str
) -> None:
    place = tmp_path / "box"
    rows = [row(n + 1, f"a{n % 50}", n % 6) for n in range(ROWS)]
    make(place, GOLDEN, version, shards(rows))
    before = content(place)
    killed = nursery("preparing_child").live([str(place)], {VARIABLE: f"migrate.{point}:kill"})
    assert killed.returncode == -signal.SIGKILL
    async with open_box(place) as box:
        assert sum([(await box.tally(shard)).waiting for shard in box.shards]) == sum(one.state < 2 for one in rows)
        assert (await box.get(text_of(rows[4].seq))).state is MessageState.DEAD
    after = content(place)
    assert [one[0] for one in after] == [one[0] for one in before]
    assert after == before
    assert content(tmp_path / f"box.v{version}") == before


async def test_a_new_directory_that_was_left_half_written_is_thrown_away(tmp_path: Path) -> None:
    place = tmp_path / "box"
    make(place, GOLDEN, 1, shards([row(n + 1, "a", 0) for n in range(20)]))
    shutil.copytree(place, tmp_path / "box.new")
    (tmp_path / "box.new" / "s00.db").write_bytes(b"half")
    async with open_box(place) as box:
        assert box.depth("a") == 20
    assert not (tmp_path / "box.new").exists()
