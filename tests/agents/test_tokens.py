"""A token is exchanged whole or not at all: a disk that fails, an agent that ends meanwhile, two at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import apsw
import pytest
import structlog

from agentd.agents.directory import Directory
from agentd.agents.ledger import Ledger
from agentd.agents.places import Places
from agentd.agents.registry import Registry, digest
from agentd.agents.roster import Roster
from agentd.agents.tokens import Tokens
from agentd.errors import AgentdError, AgentGone, Busy, StorageError
from agentd.events import Events
from agentd.paths import Paths
from agentd.records import Agent, AgentState

pytestmark = pytest.mark.anyio

AGENT = Agent("1aaaaaaaaa", "ann", "demo", AgentState.IDLE)


class World:
    """One agent that runs, with a token, on a real disk."""

    def __init__(self, root: Path, registry: Registry) -> None:
        self.root = root
        self.registry = registry
        self.directory = Directory()
        self.places = Places(Paths(str(root), str(root), str(root)), "i1")
        self.roster = Roster(structlog.get_logger())
        self.live: Any = SimpleNamespace(id=AGENT.id)
        self.roster.live[AGENT.id] = self.live
        parts: Any = SimpleNamespace(
            directory=self.directory,
            registry=registry,
            places=self.places,
            lodging=None,
            transcripts=None,
            events=Events(),
            log=structlog.get_logger(),
        )
        self.ledger = Ledger(parts, self.roster)
        self.tokens = Tokens(parts, self.roster, self.ledger)
        self.cut: list[str] = []
        self.tokens.on_rotated.append(self.cut.append)

    @property
    def token(self) -> str:
        return self.places.token(AGENT.id) or ""

    def owner(self, token: str) -> Agent | None:
        return self.directory.by_token(digest(token))

    async def kept(self) -> str:
        [entry] = await self.registry.entries()
        return entry.token

    async def break_disk(self) -> None:
        with apsw.Connection(str(self.root / "registry.db")) as db:
            db.execute("ALTER TABLE agents RENAME TO away")


@asynccontextmanager
async def opened(root: Path) -> AsyncIterator[World]:
    registry = await Registry.open(str(root / "registry.db"))
    world = World(root, registry)
    await world.ledger.save_new(world.tokens.written([AGENT]))
    try:
        yield world
    finally:
        await registry.close()


async def test_an_exchange_is_in_memory_on_disk_and_in_the_file(tmp_path: Path):
    async with opened(tmp_path) as world:
        old = world.token
        assert world.owner(old) == AGENT
        await world.tokens.rotate(world.live)
        assert world.token != old
        assert (world.owner(world.token), world.owner(old)) == (AGENT, None)
        assert await world.kept() == digest(world.token)
        assert world.cut == [AGENT.id]


async def test_where_the_registry_fails_the_old_one_is_as_good_as_before(tmp_path: Path):
    async with opened(tmp_path) as world:
        old = world.token
        await world.break_disk()
        with pytest.raises(StorageError):
            await world.tokens.rotate(world.live)
        assert (world.token, world.owner(old), world.cut) == (old, AGENT, [])


async def test_where_the_file_cannot_be_written_nothing_is_exchanged(tmp_path: Path):
    async with opened(tmp_path) as world:
        old = world.token
        (tmp_path / "agents" / AGENT.id / "token.new").mkdir()
        with pytest.raises(AgentdError):
            await world.tokens.rotate(world.live)
        assert (world.token, world.owner(old)) == (old, AGENT)
        assert await world.kept() == digest(old)


async def test_what_became_of_the_agent_meanwhile_stays(tmp_path: Path):
    """Its state changes while the commit is under way, which fails then: only the token is the old one again."""
    async with opened(tmp_path) as world, anyio.create_task_group() as group:
        old, working = world.token, replace(AGENT, state=AgentState.WORKING)
        await world.break_disk()

        async def rotate() -> None:
            with pytest.raises(StorageError):
                await world.tokens.rotate(world.live)
            assert world.owner(old) == working

        group.start_soon(rotate)
        await anyio.lowlevel.checkpoint()
        world.ledger.put(working)


async def test_who_is_no_longer_there_gets_no_file(tmp_path: Path):
    """Its program may be another agent's by the time of the commit, and so may its file."""
    async with opened(tmp_path) as world, anyio.create_task_group() as group:
        old = world.token

        async def rotate() -> None:
            with pytest.raises(AgentGone):
                await world.tokens.rotate(world.live)
            assert world.token == old

        group.start_soon(rotate)
        await anyio.lowlevel.checkpoint()
        del world.roster.live[AGENT.id]


async def test_two_at_once_are_one(tmp_path: Path):
    async with opened(tmp_path) as world:
        results: list[object] = []

        async def rotate() -> None:
            try:
                results.append(await world.tokens.rotate(world.live))
            except Busy as error:
                results.append(error.code)

        async with anyio.create_task_group() as group:
            group.start_soon(rotate)
            group.start_soon(rotate)
        assert results in (["busy", None], [None, "busy"])
        assert await world.kept() == digest(world.token)
        await world.tokens.rotate(world.live)
        assert await world.kept() == digest(world.token)


@pytest.mark.parametrize("torn", [None, b"", b"another\n", b"\xff"])
async def test_a_file_that_is_not_the_registrys_is_made_anew(tmp_path: Path, torn: bytes | None):
    async with opened(tmp_path) as world:
        path = tmp_path / "agents" / AGENT.id / "token"
        if torn is None:
            path.unlink()
        else:
            path.write_bytes(torn)
        await world.tokens.mend()
        assert world.owner(world.token) == AGENT
        assert await world.kept() == digest(world.token)


async def test_a_file_that_is_the_registrys_stays(tmp_path: Path):
    async with opened(tmp_path) as world:
        old, before = world.token, world.directory.version
        await world.tokens.mend()
        assert (world.token, world.directory.version) == (old, before)


async def test_a_disk_that_is_full_does_not_keep_a_daemon_from_starting(tmp_path: Path):
    async with opened(tmp_path) as world:
        (tmp_path / "agents" / AGENT.id / "token").write_text("another")
        await world.break_disk()
        await world.tokens.mend()
