"""The index on SQLite's FTS5: needs nothing more than what agentd needs anyway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from agentd.index.engine import Entry, Hit, IndexDamaged, Within
from agentd.index.query import Query, Term

# `ascii` takes everything beyond ASCII for a letter: words that are joined by spaces come out as they went in.
_TABLES: Final = """
CREATE VIRTUAL TABLE IF NOT EXISTS f USING fts5(body, recipient, sender, content='', tokenize='ascii');
CREATE TABLE IF NOT EXISTS marks(shard INTEGER PRIMARY KEY, seq INTEGER NOT NULL);
INSERT INTO f(f, rank) VALUES('rank', 'bm25(1.0, 0.0, 0.0)');
"""
# It reads every match to rank it, a word in a quarter of a million messages for a second or more: so the newest only.
RANKED: Final = 10_000
_FIND: Final = f"""
SELECT rowid, rank FROM
    (SELECT rowid, rank FROM f WHERE f MATCH ? AND rowid BETWEEN ? AND ? ORDER BY rowid DESC LIMIT {RANKED})
ORDER BY rank LIMIT ?
"""  # noqa: S608


class Fts5Index:
    """An index in one SQLite file; of more than RANKED matches it ranks the newest."""

    def __init__(self, directory: Path) -> None:
        with _damage():
            self._writer = _connect(directory / "index.db")
            self._writer.execute(_TABLES).fetchall()
            self._reader = _connect(directory / "index.db")
            self._reader.execute("SELECT rowid FROM f LIMIT 1").fetchall()
            marks: list[Any] = self._writer.execute("SELECT shard, seq FROM marks").fetchall()
            self.watermarks: dict[int, int] = dict(marks)

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in texts; they are found after the next commit."""
        with _damage():
            self._begin()
            rows = [(seq, " ".join(words), _one_word(to), _one_word(sender)) for seq, to, sender, words in entries]
            self._writer.executemany("INSERT INTO f(rowid, body, recipient, sender) VALUES(?,?,?,?)", rows)

    def commit(self, watermarks: Mapping[int, int]) -> None:
        """Put on disk what was added together with how far that goes."""
        with _damage():
            self._begin()
            self._writer.executemany("INSERT OR REPLACE INTO marks VALUES(?,?)", list(watermarks.items()))
            self._writer.execute("COMMIT")
        self.watermarks = dict(watermarks)

    def _begin(self) -> None:
        if not self._writer.in_transaction:
            self._writer.execute("BEGIN IMMEDIATE")

    def search(self, query: Query, within: Within, limit: int) -> list[Hit]:
        """Return the best texts, best first."""
        with _damage():
            asked = (_whole(query, within), within.since_seq, within.until_seq, limit)
            rows: list[Any] = self._reader.execute(_FIND, asked).fetchall()
            return [Hit(seq, -rank) for seq, rank in rows]

    def close(self) -> None:
        """Let go of the files; what was not committed is forgotten."""
        self._reader.close(force=True)
        self._writer.close(force=True)


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(5000)
    connection.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY").fetchall()
    return connection


def _whole(query: Query, within: Within) -> str:
    parts = [f"{{body}} : ({' OR '.join(map(_term, group))})" for group in query.groups]
    if within.to:
        parts.append(_is("recipient", within.to))
    if within.senders:
        parts.append(_is("sender", within.senders))
    if within.of:
        parts.append(_is("recipient sender", [within.of]))
    wanted = " AND ".join(parts)
    return f"({wanted})" + "".join(f" NOT {{body}} : ({_term(term)})" for term in query.without)


def _is(columns: str, ids: Sequence[str]) -> str:
    return f"{{{columns}}} : ({' OR '.join(map(_one_word, ids))})"


def _term(term: Term) -> str:
    """Return a term's part; words are letters and digits only, so that none ends its quotes."""
    return " + ".join(f'"{word}"' for word in term.words) + (" *" if term.prefix else "")


def _one_word(id_: str) -> str:
    return "x" + id_.encode().hex()


@contextmanager
def _damage() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise IndexDamaged(str(error)) from error
