"""The tables of a shard, and how its file is opened."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import apsw

from agentd.errors import VersionMismatch
from agentd.paths import open_private

APPLICATION_ID: Final = 0x61676D62  # "agmb"
VERSION: Final = 2

# `m` holds the messages, `box` where each stands: shelf 0 waits, 1 delivered, 2 acknowledged or expired, 3 dead.
# Messages up to meta's `filed` are in the box, and the triggers keep it. What waits is in order of priority and age,
# the rest of age.
_BOX: Final = """
CREATE TABLE box(
    agent TEXT NOT NULL, shelf INTEGER NOT NULL, prio INTEGER NOT NULL, seq INTEGER NOT NULL, size INTEGER NOT NULL,
    sender TEXT NOT NULL, PRIMARY KEY(agent, shelf, prio, seq)) WITHOUT ROWID;
CREATE TRIGGER m_moved AFTER UPDATE OF state ON m
WHEN old.shelf<>new.shelf AND old.seq<=(SELECT value FROM meta WHERE name='filed') BEGIN
    UPDATE box SET shelf=new.shelf, prio=iif(new.shelf, 0, new.prio)
    WHERE agent=old.agent AND shelf=old.shelf AND prio=iif(old.shelf, 0, old.prio) AND seq=old.seq;
END;
CREATE TRIGGER m_dropped AFTER DELETE ON m WHEN old.seq<=(SELECT value FROM meta WHERE name='filed') BEGIN
    DELETE FROM box
    WHERE agent=old.agent AND shelf=old.shelf AND prio=iif(old.shelf, 0, old.prio) AND seq=old.seq;
END;
CREATE INDEX m_exp ON m(exp) WHERE state < 2 AND exp IS NOT NULL;
CREATE INDEX m_due ON m(due) WHERE due > 0;
CREATE INDEX m_reply ON m(reply_to) WHERE reply_to IS NOT NULL;
CREATE INDEX m_thread ON m(thread) WHERE thread IS NOT NULL;
"""
_ENTRIES: Final = (
    "INTO box(agent, shelf, prio, seq, size, sender)"
    " SELECT agent, shelf, iif(shelf, 0, prio), seq, length(body), sender FROM m"
)
FILL_BOX: Final = f"INSERT {_ENTRIES} WHERE seq>? ORDER BY 1, 2, 3, 4"
SHELVE: Final = (  # an old message that was put back among those that are filed
    f"INSERT OR IGNORE {_ENTRIES} WHERE seq=? AND seq<=(SELECT value FROM meta WHERE name='filed')"  # noqa: S608
)
_SHELF: Final = (
    "INTEGER GENERATED ALWAYS AS (CASE WHEN state<2 THEN 0 WHEN state=2 THEN 1 WHEN state=4 THEN 3 ELSE 2 END)"
)
_TABLES: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE m(
    seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, prio INTEGER NOT NULL, state INTEGER NOT NULL, tries INTEGER NOT NULL,
    due INTEGER NOT NULL, exp INTEGER, ts INTEGER NOT NULL, sender TEXT NOT NULL, reply_to TEXT, thread TEXT,
    hist TEXT NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL, shelf {_SHELF} VIRTUAL);
CREATE TABLE idem0(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE idem1(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
{_BOX}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
UPGRADE_FROM_1: Final = f"""
BEGIN IMMEDIATE;
DROP INDEX m_ready; DROP INDEX m_state; DROP INDEX m_exp; DROP INDEX m_reply;
ALTER TABLE m ADD COLUMN thread TEXT;
ALTER TABLE m ADD COLUMN shelf {_SHELF} VIRTUAL;
{_BOX}
{FILL_BOX.replace("?", "0")};
INSERT OR REPLACE INTO meta(name, value) SELECT 'filed', coalesce(max(seq), 0) FROM m;
PRAGMA user_version = 2;
COMMIT;
"""  # noqa: S608  statements of ours

# The header of an SQLite file, as far as it is read here, before SQLite sees the file and could write to it:
#
#   0                16        60              68               100
#   +----------------+-- ... --+---------------+----------------+
#   | magic          |         | user_version  | application_id |      both 4 bytes, big-endian, user_version at 60
#   +----------------+-- ... --+---------------+----------------+
_HEADER: Final = struct.Struct(">16s44xI4xI28x")
_MAGIC: Final = b"SQLite format 3\0"


class DamagedShard(Exception):
    """Raised when a shard's file is not a sound database of ours."""


def touch(path: Path) -> int:
    """Create a shard's file, or check the one that is there before SQLite may write to it; returns its size.

    Raises InvalidValue for a symlink, DamagedShard for something else than ours.
    """
    for companion in (path, wal_of(path)):
        if companion == path or companion.is_symlink():
            fd = open_private(str(companion), os.O_RDWR | os.O_CREAT)
            os.close(fd)
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
    if head and not head.startswith(_MAGIC):
        raise DamagedShard(f"{path.name} is not an SQLite file")
    return path.stat().st_size


def refuse_newer(path: Path, version: int) -> None:
    """Raise VersionMismatch for a shard that a newer agentd wrote, InvalidValue for a symlink; writes nothing."""
    if not path.exists() and not path.is_symlink():
        return
    with os.fdopen(open_private(str(path), os.O_RDONLY), "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return  # damage; it is dealt with when the shard is opened
    magic, found, application = _HEADER.unpack(head)
    if magic == _MAGIC and application == APPLICATION_ID and found > version:
        raise VersionMismatch(
            f"{path} was written by a newer agentd (version {found}, this one knows {version}); it was left alone",
            hint="start the newer agentd",
        )


def connect(path: Path) -> apsw.Connection:
    """Open a shard's file as its only connection, durable and without surprises, creating its tables if it is empty."""
    connection = apsw.Connection(str(path))
    try:
        _set_up(connection)
    except apsw.Error:
        connection.close(force=True)
        raise
    return connection


def _set_up(connection: apsw.Connection) -> None:
    # Exclusive: a second process that opened the file would be refused, instead of sharing the log with us.
    connection.execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL").fetchall()
    connection.execute("PRAGMA mmap_size=0; PRAGMA journal_size_limit=67108864; PRAGMA temp_store=MEMORY").fetchall()
    connection.wal_autocheckpoint(0)
    if not connection.execute("SELECT count(*) FROM sqlite_schema").get:
        connection.execute(_TABLES).fetchall()


def check(connection: apsw.Connection, *, thorough: bool) -> None:
    """Raise DamagedShard unless the file's structure is sound and ours.

    A thorough check also compares each index with its table, which takes four times as long.
    """
    if connection.execute("PRAGMA application_id").get != APPLICATION_ID:
        raise DamagedShard("the file is not a shard of a mailbox")
    verdict = connection.execute(f"PRAGMA {'integrity' if thorough else 'quick'}_check(1)").get
    if verdict != "ok":
        raise DamagedShard(str(verdict))


def wal_of(path: Path) -> Path:
    """Return the path of the write-ahead log beside a file."""
    return path.with_name(path.name + "-wal")
