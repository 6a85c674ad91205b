"""Which parts of which transcripts are in the index: one SQLite file beside it. Everything here blocks.

The index names a passage by a number that is its time; here stands whose it is and where. Both are committed under the
number of a batch, this file first: what it has of a later batch than the index is forgotten when it is opened.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from agentd.errors import InvalidValue
from agentd.index.engine import LAST_SEQ, IndexDamaged
from agentd.private import open_private

FORMAT: Final = 1
_EPOCH_NS: Final = 1_577_836_800_000_000_000  # 2020-01-01T00:00:00Z
_SPACE: Final = 4  # bits below the microseconds, for passages of the same one
_SCHEMA: Final = """
CREATE TABLE passages (seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
                       at_ns INTEGER NOT NULL, batch INTEGER NOT NULL);
CREATE INDEX by_agent ON passages(agent, start);
CREATE TABLE marks (agent TEXT PRIMARY KEY, read_to INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE counts (batch INTEGER NOT NULL, added INTEGER NOT NULL);
INSERT INTO counts VALUES (0, 0);
"""


class Passage(NamedTuple):
    """A part of a transcript that is found as one."""

    seq: int
    agent: str
    start: int
    end: int
    at_ns: int


def seq_at(at_ns: int) -> int:
    """Return the smallest number of a passage that was printed at a time."""
    return min(max((at_ns - _EPOCH_NS) // 1000, 0) << _SPACE, LAST_SEQ)


class Passages:
    """The file; each method may raise IndexDamaged."""

    def __init__(self, path: Path) -> None:
        """Open or create it; one that is damaged or of another format is begun anew."""
        self._path = path
        try:
            self._open()
        except IndexDamaged:
            self.begin_anew()

    def _open(self) -> None:
        with _damage():
            os.close(open_private(str(self._path), os.O_RDWR | os.O_CREAT))
            self._db = apsw.Connection(str(self._path))
            self._db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL").fetchall()
            version = self._db.execute("PRAGMA user_version").get
            if version not in (0, FORMAT):
                raise IndexDamaged(f"it has format {version}")
            if version == 0:
                with self._db:
                    self._db.execute(f"{_SCHEMA} PRAGMA user_version={FORMAT}").fetchall()

    def begin_anew(self) -> None:
        """Forget everything."""
        self.close()
        for name in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + name).unlink(missing_ok=True)
        self._open()

    def close(self) -> None:
        """Let go of the file; what was not committed is forgotten."""
        with suppress(AttributeError, apsw.Error):  # it may never have been open
            self._db.close(force=True)

    @property
    def batch(self) -> int:
        """Return the number of the last batch that was committed."""
        return int(self._value("SELECT batch FROM counts"))

    @property
    def gone(self) -> int:
        """Return how many passages of the index are not kept any more."""
        return int(self._value("SELECT added FROM counts")) - self.count

    @property
    def count(self) -> int:
        """Return how many there are."""
        return int(self._value("SELECT count(*) FROM passages"))

    def read_to(self, agent: str) -> int:
        """Return up to which position an agent's transcript was read."""
        return int(self._value("SELECT coalesce(max(read_to), 0) FROM marks WHERE agent=?", agent))

    def add(self, agent: str, start: int, end: int, at_ns: int) -> int:
        """Take in a passage; returns its number."""
        with _damage():
            self._begin()
            seq = seq_at(at_ns)
            while self._value("SELECT count(*) FROM passages WHERE seq=?", seq):
                seq += 1
            batch = self.batch + 1
            self._db.execute("INSERT INTO passages VALUES (?,?,?,?,?,?)", (seq, agent, start, end, at_ns, batch))
            self._db.execute("UPDATE counts SET added=added+1")
            return seq

    def mark(self, agent: str, read_to: int) -> None:
        """Take in up to where an agent's transcript was read."""
        with _damage():
            self._begin()
            self._db.execute("INSERT OR REPLACE INTO marks VALUES (?,?)", (agent, read_to))

    def commit(self) -> int:
        """Put on disk what was taken in; returns the number of the batch."""
        with _damage():
            self._begin()
            self._db.execute("UPDATE counts SET batch=batch+1")
            self._db.execute("COMMIT")
            return self.batch

    def forget_after(self, batch: int) -> None:
        """Forget later batches, so that their transcripts are read again."""
        with _damage(), self._db:
            again = "SELECT agent, min(start) FROM passages WHERE batch>? GROUP BY agent"
            rows: list[Any] = self._db.execute(again, (batch,)).fetchall()
            for agent, start in rows:
                self._db.execute("UPDATE marks SET read_to=? WHERE agent=?", (start, agent))
            self._db.execute(
                "UPDATE counts SET batch=?, added=added-(SELECT count(*) FROM passages WHERE batch>?)", (batch, batch)
            )
            self._db.execute("DELETE FROM passages WHERE batch>?", (batch,))

    def agents(self) -> list[str]:
        """Return whose transcripts were read."""
        with _damage():
            rows: list[Any] = self._db.execute("SELECT agent FROM marks").fetchall()
            return [agent for (agent,) in rows]

    def drop_before(self, agent: str, first: int) -> None:
        """Forget passages of an agent that are not kept any more."""
        with _damage():
            self._begin()
            self._db.execute("DELETE FROM passages WHERE agent=? AND end<=?", (agent, first))

    def get(self, seqs: Sequence[int]) -> dict[int, Passage]:
        """Return passages by their numbers, those that are kept."""
        with _damage():
            places = ",".join("?" * len(seqs))
            sql = f"SELECT seq, agent, start, end, at_ns FROM passages WHERE seq IN ({places})"  # noqa: S608
            rows: list[Any] = self._db.execute(sql, tuple(seqs)).fetchall()
            return {row[0]: Passage(*row) for row in rows}

    def _begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def _value(self, sql: str, *values: str | int) -> Any:
        with _damage():
            return self._db.execute(sql, values).get


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except (apsw.Error, InvalidValue) as error:
        raise IndexDamaged(str(error)) from error
