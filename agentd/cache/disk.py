"""The third tier in a SQLite file of its own: a look costs microseconds, and what is in it may be lost at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import apsw

from agentd.cache.breaker import Breaker
from agentd.cache.entry import Entry, decode, encode
from agentd.cache.query import Query
from agentd.cache.tiers import Counters
from agentd.errors import AgentdError
from agentd.private import open_private

FORMAT = 1
APPLICATION_ID = 0x61676463  # "agdc"
_BATCH = 100  # answers that wait for a flush at most; one batch keeps the event loop for a few milliseconds
_TRIM_EVERY = 20  # flushes
_RETRY_S = 5.0

_SCHEMA = f"""
CREATE TABLE answers (key TEXT NOT NULL UNIQUE, asked_at_s REAL NOT NULL, data BLOB NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""
_GET = "SELECT data FROM answers WHERE key=?"
_PUT = "INSERT OR REPLACE INTO answers VALUES (?,?,?)"
_COUNT = "SELECT count(*) FROM answers"
_TRIM_OLD = "DELETE FROM answers WHERE asked_at_s < ?"
_TRIM_MANY = (  # a replaced row has a new rowid, so the lowest are those written longest ago
    "DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers ORDER BY rowid LIMIT "
    "max(0, (SELECT count(*) FROM answers) - ?))"
)


class _Unfit(Exception):
    """Raised when the file is damaged, newer, or somebody else's."""


class Disk:
    """One file, used on the event loop: WAL without syncs, because losing it costs nothing but a few questions.

    A file that cannot be read as ours is moved aside and made anew; a disk that fails is left alone for a while.
    """

    name = "l3"

    def __init__(
        self,
        path: str,
        ttl_s: float,
        size: int,
        log: Any,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.ttl_s = ttl_s
        self.counters = Counters()
        self._path = path
        self._size = size
        self._log = log
        self._wall = wall
        self._breaker = Breaker(1, _RETRY_S, clock)
        self._pending: dict[Query, Entry] = {}
        self._flushes = 0
        self._db: apsw.Connection | None = None
        self._open()

    async def get(self, query: Query) -> Entry | None:
        """Return what is kept."""
        waiting = self._pending.get(query)
        if waiting is not None or self._db is None:
            return waiting
        try:
            row = self._db.execute(_GET, (str(query),)).fetchone()
        except apsw.Error as error:
            self._failed(error)
            return None
        if row is None:
            return None
        entry = decode(row[0], query)
        if entry is None:
            self.counters.faults += 1
        return entry

    def put(self, entry: Entry) -> None:
        """Have an answer written by the next flush; with many waiting, now."""
        self._pending[entry.query] = entry
        if len(self._pending) >= _BATCH:
            self._write()

    async def flush(self) -> None:
        """Write what was put; try a disk again that failed a while ago."""
        if self._breaker.trial_due:
            self._open()
        if self._pending:
            self._write()

    async def close(self) -> None:
        """Write what was put and close the file."""
        if self._pending:
            self._write()
        self._close()

    def __len__(self) -> int:
        found = self._try(lambda db: db.execute(_COUNT).fetchone())
        return (found[0] if found else 0) + len(self._pending)

    def _write(self) -> None:
        rows = [(str(query), entry.asked_at_s, encode(entry)) for query, entry in self._pending.items()]
        self._pending.clear()
        self._try(lambda db: self._commit(db, [row for row in rows if row[2] is not None]))

    def _commit(self, db: apsw.Connection, rows: list[tuple[str, float, bytes | None]]) -> None:
        with db:
            db.executemany(_PUT, rows)
            if self._flushes % _TRIM_EVERY == 0:
                db.execute(_TRIM_OLD, (self._wall() - self.ttl_s,))
                before = db.total_changes()
                db.execute(_TRIM_MANY, (self._size,))
                self.counters.evicted += db.total_changes() - before
        self._flushes += 1

    def _try(self, work: Callable[[apsw.Connection], Any]) -> Any:
        if self._db is None:
            return None
        try:
            return work(self._db)
        except apsw.Error as error:
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.counters.faults += 1
        self._close()
        if isinstance(error, apsw.CorruptError | apsw.NotADBError | apsw.SQLError | _Unfit):
            self._start_anew(error)
        elif self._breaker.failed():
            self._log.warning("the kept answers are out of reach", file=self._path, error=str(error))

    def _open(self) -> None:
        try:
            self._db = _connect(self._path)
        except (apsw.Error, AgentdError, OSError, _Unfit) as error:
            self._failed(error)
        else:
            self._breaker.worked()

    def _start_anew(self, error: Exception) -> None:
        self._log.warning("the kept answers were moved aside, they could not be read", error=str(error))
        try:
            with suppress(FileNotFoundError):
                os.replace(self._path, f"{self._path}.aside")  # noqa: PTH105  the path is a string throughout
            for rest in ("-wal", "-shm"):
                with suppress(FileNotFoundError):
                    os.unlink(self._path + rest)  # noqa: PTH108
            self._db = _connect(self._path)
        except (apsw.Error, AgentdError, OSError, _Unfit) as again:
            self._breaker.failed()
            self._log.warning("the kept answers are out of reach", file=self._path, error=str(again))
        else:
            self._breaker.worked()

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with suppress(apsw.Error):
                db.close()


def _connect(path: str) -> apsw.Connection:
    os.close(open_private(path, os.O_RDWR | os.O_CREAT))
    db = apsw.Connection(path)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # no -shm file, and nobody else has a use for this one
        version = db.execute("PRAGMA user_version").get
        if version == 0 and not db.execute("SELECT count(*) FROM sqlite_schema").get:
            with db:
                db.execute(_SCHEMA)
        elif (version, db.execute("PRAGMA application_id").get) != (FORMAT, APPLICATION_ID):
            raise _Unfit(f"{path} has format {version} and this agentd knows {FORMAT}")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(_GET, ("",)).fetchall()
    except BaseException:
        db.close()
        raise
    return db
