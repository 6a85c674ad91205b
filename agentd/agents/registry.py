"""Who exists, on disk: agents, their token digests and the teams, so that a new daemon knows what the old one knew."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import apsw

from agentd.errors import StorageError, VersionMismatch
from agentd.private import open_private
from agentd.records import Agent, AgentState, PaneRef

FORMAT = 3
APPLICATION_ID = 0x61676472  # "agdr"

# What each format added to the one before; a file is brought up to the newest when it is opened.
_STEPS = (
    """
    CREATE TABLE agents (id TEXT PRIMARY KEY, name TEXT NOT NULL, data TEXT NOT NULL, token TEXT NOT NULL)
    WITHOUT ROWID;
    CREATE TABLE teams (name TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    CREATE TABLE pools (place TEXT PRIMARY KEY, data TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE trusted (path BLOB PRIMARY KEY, digest TEXT NOT NULL) WITHOUT ROWID;
    """,
    "ALTER TABLE trusted ADD COLUMN number INTEGER NOT NULL DEFAULT 0;",  # the order in which files were trusted
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Team:
    """A named set of agents and the file it came from."""

    name: str
    cwd: str = ""
    created_ns: int = 0
    agents: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Entry:
    """An agent as it is kept; `token` is the SHA-256 of its token, never the token."""

    agent: Agent
    token: str = ""


def digest(token: str) -> str:
    """Return what the registry keeps of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Registry:
    """One SQLite file with one connection, used by one thread at a time; every write is on disk when it returns."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._turn = anyio.CapacityLimiter(1)

    @classmethod
    async def open(cls, path: str) -> Registry:
        """Open or create the file; raises VersionMismatch for a newer one, which is left untouched."""
        return cls(await anyio.to_thread.run_sync(_connect, path))

    async def entries(self) -> list[Entry]:
        """Return every agent that is kept."""
        rows = await self._run(lambda db: list(db.execute("SELECT data, token FROM agents")))
        return [Entry(_agent(json.loads(data)), token) for data, token in rows]

    async def teams(self) -> list[Team]:
        """Return every team that is kept."""
        rows = await self._run(lambda db: list(db.execute("SELECT data FROM teams")))
        return [Team(**json.loads(data)) for (data,) in rows]

    async def save(self, entries: Sequence[Entry]) -> None:
        """Write agents in one commit."""
        rows = [(e.agent.id, e.agent.name, json.dumps(asdict(e.agent)), e.token) for e in entries]
        await self._write("INSERT OR REPLACE INTO agents VALUES (?,?,?,?)", rows)

    async def forget(self, ids: Sequence[str]) -> None:
        """Remove agents."""
        await self._write("DELETE FROM agents WHERE id=?", [(id_,) for id_ in ids])

    async def save_team(self, team: Team) -> None:
        """Write a team."""
        await self._write("INSERT OR REPLACE INTO teams VALUES (?,?)", [(team.name, json.dumps(asdict(team)))])

    async def forget_team(self, name: str) -> None:
        """Remove a team."""
        await self._write("DELETE FROM teams WHERE name=?", [(name,)])

    async def pools(self) -> list[Mapping[str, Any]]:
        """Return what was set for each place of the pool."""
        rows = await self._run(lambda db: list(db.execute("SELECT data FROM pools")))
        return [json.loads(data) for (data,) in rows]

    async def save_pool(self, place: str, data: Mapping[str, Any]) -> None:
        """Write what was set for a place of the pool."""
        await self._write("INSERT OR REPLACE INTO pools VALUES (?,?)", [(place, json.dumps(data))])

    async def forget_pools(self, places: Sequence[str]) -> None:
        """Remove what was set for places of the pool."""
        await self._write("DELETE FROM pools WHERE place=?", [(place,) for place in places])

    async def trusted(self) -> dict[str, str]:
        """Return the digest that each trusted file had when it was trusted, by its path, the first trusted first."""
        rows = await self._run(lambda db: list(db.execute("SELECT path, digest FROM trusted ORDER BY number, path")))
        return {os.fsdecode(path): digest for path, digest in rows}

    async def trust(self, path: str, digest: str) -> None:
        """Write down that a file with this content is trusted, after all others; of other contents it is not any more.

        One that is trusted with it already keeps its turn.
        """
        await self._write(
            "INSERT INTO trusted SELECT ?, ?, coalesce(max(number), 0) + 1 FROM trusted WHERE true "
            "ON CONFLICT (path) DO UPDATE SET digest=excluded.digest, number=excluded.number "
            "WHERE digest<>excluded.digest",
            [(os.fsencode(path), digest)],
        )

    async def untrust(self, path: str) -> None:
        """Remove the trust in a file."""
        await self._write("DELETE FROM trusted WHERE path=?", [(os.fsencode(path),)])

    async def close(self) -> None:
        """Close the file."""
        await self._run(lambda db: db.close())

    async def _write(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        def commit(db: apsw.Connection) -> None:
            with db:
                db.executemany(statement, rows)

        await self._run(commit)

    async def _run(self, use: Callable[[apsw.Connection], T]) -> T:
        try:  # a thread's work is never abandoned: a write that has begun is finished, whoever stopped waiting
            return await anyio.to_thread.run_sync(use, self._connection, limiter=self._turn)
        except apsw.Error as error:
            raise StorageError(f"the registry could not be written: {error}", hint="free disk space") from error


def _connect(path: str) -> apsw.Connection:
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    db = apsw.Connection(path)
    version = db.execute("PRAGMA user_version").get
    if version > FORMAT:
        db.close()
        raise VersionMismatch(
            f"{path} has format {version} and this agentd knows {FORMAT}; it was left untouched",
            hint="upgrade agentd, or move the file away",
        )
    db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA mmap_size=0").fetchall()
    if version < FORMAT:
        with db:
            db.execute("".join(_STEPS[version:]))
            db.execute(f"PRAGMA user_version={FORMAT}; PRAGMA application_id={APPLICATION_ID}")
    return db


def _agent(data: dict[str, Any]) -> Agent:
    pane = data.pop("pane")
    agent = Agent(**data)
    return replace(agent, state=AgentState(agent.state), pane=PaneRef(**pane) if pane else None)
