"""Stores of older formats, as agentd made them, for the tests of what became of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import apsw

from agentd.mailbox.rows import Row


def columns() -> str:
    return ", ".join(name for name in Row._fields if name != "thread")


def make(place: Path, golden: Path, version: int, shards: Iterable[Iterable[Row]]) -> None:
    """Write a mailbox with the tables of the golden one of a version and these rows."""
    place.mkdir(mode=0o700)
    count = 0
    for index, rows in enumerate(shards):
        count += 1
        path = place / f"s{index:02d}.db"
        path.touch(mode=0o600)
        connection = apsw.Connection(str(path))
        source = apsw.Connection(str(golden / f"v{version}" / "s00.db"), flags=apsw.SQLITE_OPEN_READONLY)
        schema = [sql for (sql,) in source.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
        for pragma in ("application_id", "user_version"):
            connection.execute(f"PRAGMA {pragma}={source.execute(f'PRAGMA {pragma}').get}")
        source.close()
        connection.execute("PRAGMA journal_mode=WAL; BEGIN;" + ";".join(schema)).fetchall()
        marks = ", ".join("?" * (len(Row._fields) - 1))
        thread = Row._fields.index("thread")
        values = ((*row[:thread], *row[thread + 1 :]) for row in rows)
        connection.executemany(f"INSERT INTO m({columns()}) VALUES({marks})", values)
        connection.execute("COMMIT")
        connection.close()
    (place / "FORMAT").write_text(json.dumps({"version": version, "shards": count, "created": ""}) + "\n")
    (place / "FORMAT").chmod(0o600)
