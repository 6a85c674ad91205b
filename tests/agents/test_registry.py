"""The registry outlives the daemon."""

from __future__ import annotations

import stat
from pathlib import Path

import apsw
import pytest

from agentd.agents.registry import Entry, Registry, Team, digest
from agentd.errors import InvalidValue, VersionMismatch
from agentd.records import Agent, AgentState, PaneRef

pytestmark = pytest.mark.anyio

AGENT = Agent(
    "1aaaaaaaaa", "a", "demo", AgentState.IDLE, env={"K": "v"}, pane=PaneRef("$1", "@1", "%1", 42, "7:8"), created_ns=5
)


async def test_what_was_saved_is_there_after_reopening(tmp_path: Path):
    path = str(tmp_path / "registry.db")
    registry = await Registry.open(path)
    await registry.save([Entry(AGENT, digest("t"))])
    await registry.save_team(Team("red", "/tmp", 1, ({"name": "a"},)))
    await registry.close()
    registry = await Registry.open(path)
    assert await registry.entries() == [Entry(AGENT, digest("t"))]
    assert [team.name for team in await registry.teams()] == ["red"]
    await registry.forget([AGENT.id])
    await registry.forget_team("red")
    assert await registry.entries() == []
    assert await registry.teams() == []
    await registry.close()


async def test_a_file_of_the_first_format_is_brought_up_with_all_it_holds(tmp_path: Path):
    path = str(tmp_path / "registry.db")
    registry = await Registry.open(path)
    await registry.save([Entry(AGENT, digest("t"))])
    await registry.close()
    with apsw.Connection(path) as db:
        db.execute("DROP TABLE pools; DROP TABLE trusted; PRAGMA user_version=1")
    db.close()
    registry = await Registry.open(path)
    await registry.save_pool("p", {"floor": 2})
    assert await registry.entries() == [Entry(AGENT, digest("t"))]
    assert await registry.pools() == [{"floor": 2}]
    await registry.forget_pools(["p"])
    assert await registry.pools() == []
    await registry.close()


async def test_what_was_trusted_in_the_second_format_is_so_still(tmp_path: Path):
    path = str(tmp_path / "registry.db")
    registry = await Registry.open(path)
    await registry.trust("/b", "1")
    await registry.trust("/a", "2")
    await registry.close()
    with apsw.Connection(path) as db:
        db.execute("ALTER TABLE trusted DROP COLUMN number; PRAGMA user_version=2")
    db.close()
    registry = await Registry.open(path)
    await registry.trust("/0", "3")
    assert list((await registry.trusted()).items()) == [("/a", "2"), ("/b", "1"), ("/0", "3")]
    await registry.close()


async def test_a_newer_format_is_refused_untouched(tmp_path: Path):
    path = tmp_path / "registry.db"
    with apsw.Connection(str(path)) as db:
        db.execute("PRAGMA user_version=99; CREATE TABLE later(x)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(VersionMismatch, match="format 99"):
        await Registry.open(str(path))
    assert path.read_bytes() == before


async def test_a_symlink_is_refused_and_its_target_untouched(tmp_path: Path):
    target = tmp_path / "target"
    target.write_text("precious")
    (tmp_path / "registry.db").symlink_to(target)
    with pytest.raises(InvalidValue, match="symlink"):
        await Registry.open(str(tmp_path / "registry.db"))
    assert target.read_text() == "precious"


async def test_the_file_is_private(tmp_path: Path):
    registry = await Registry.open(str(tmp_path / "registry.db"))
    await registry.save([Entry(AGENT)])
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    await registry.close()
