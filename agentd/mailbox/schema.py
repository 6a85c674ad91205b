"""The tables of a shard, and how its file is opened."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Final

import apsw

from agentd.errors import VersionMismatch
from agentd.private import open_private

APPLICATION_ID: Final = 0x61676D62  # "agmb"
VERSION: Final = 3

# `m` holds the messages as they were accepted, and never changes; `box` says where each stands and what became of it,
# by inbox, so that one inbox's messages are neighbours. Its places: 0 to 2 wait, by priority, 3 delivered,
# 4 acknowledged or expired, 5 dead. Messages beyond meta's `filed` are not in the box yet: each is accepted and waits.
DELIVERED, ENDED, DEAD = 3, 4, 5  # places
_PLACES: Final = "(0, 1, 2, 3, 4, 5)"  # all of them: how an entry is found when only its message is known
_BOX: Final = f"""
CREATE TABLE box(
    agent TEXT NOT NULL, place INTEGER NOT NULL, seq INTEGER NOT NULL, state INTEGER NOT NULL, tries INTEGER NOT NULL,
    due INTEGER NOT NULL, exp INTEGER, size INTEGER NOT NULL, sender TEXT NOT NULL, hist TEXT NOT NULL,
    PRIMARY KEY(agent, place, seq)) WITHOUT ROWID;
CREATE INDEX box_exp ON box(exp) WHERE place < 3 AND exp IS NOT NULL;
CREATE INDEX box_due ON box(due) WHERE due > 0;
CREATE INDEX m_reply ON m(reply_to) WHERE reply_to IS NOT NULL;
CREATE INDEX m_thread ON m(thread) WHERE thread IS NOT NULL;
CREATE TRIGGER m_dropped AFTER DELETE ON m BEGIN
    DELETE FROM box WHERE agent=old.agent AND place IN {_PLACES} AND seq=old.seq;
END;
CREATE VIEW message AS
    SELECT m.seq, m.agent, m.prio, coalesce(b.state, 0) AS state, coalesce(b.tries, 0) AS tries,
        coalesce(b.due, 0) AS due, m.exp, m.ts, m.sender, m.reply_to, m.thread, coalesce(b.hist, '') AS hist, m.crc,
        m.body
    FROM m LEFT JOIN box b ON b.agent=m.agent AND b.place IN {_PLACES} AND b.seq=m.seq;
"""  # noqa: S608  names of ours
_MESSAGE_COLUMNS: Final = "seq, agent, prio, exp, ts, sender, reply_to, thread, crc, body"
_ENTRY_COLUMNS: Final = "agent, place, seq, state, tries, due, exp, size, sender, hist"
INSERT: Final = f"INSERT INTO m({_MESSAGE_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
INSERT_ENTRY: Final = f"INSERT INTO box({_ENTRY_COLUMNS}) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
REMOVE_ENTRY: Final = f"DELETE FROM box WHERE agent=? AND place IN {_PLACES} AND seq=?"  # noqa: S608
FILL_BOX: Final = (
    f"INSERT INTO box({_ENTRY_COLUMNS})"  # noqa: S608  names of ours
    " SELECT agent, prio, seq, 0, 0, 0, exp, length(body), sender, '' FROM m WHERE seq>? ORDER BY 1, 2, 3"
)
_M: Final = """
CREATE TABLE m(
    seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, prio INTEGER NOT NULL, exp INTEGER, ts INTEGER NOT NULL,
    sender TEXT NOT NULL, reply_to TEXT, thread TEXT, crc INTEGER NOT NULL, body BLOB NOT NULL);
"""
_TABLES: Final = f"""
BEGIN IMMEDIATE;
{_M}
CREATE TABLE idem0(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE idem1(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
{_BOX}
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""
# Format 1 had no threads, 2 kept states in `m` and had a box of other columns; both are rewritten whole.
UPGRADE_FROM_1: Final = "ALTER TABLE m ADD COLUMN thread TEXT; PRAGMA user_version = 2"
UPGRADE_FROM_2: Final = f"""
BEGIN IMMEDIATE;
DROP TRIGGER IF EXISTS m_moved; DROP TRIGGER IF EXISTS m_dropped; DROP TABLE IF EXISTS box;
ALTER TABLE m RENAME TO before;
{"".join(f"DROP INDEX IF EXISTS m_{name}; " for name in ("ready", "state", "exp", "due", "reply", "thread"))}
{_M}
INSERT INTO m SELECT {_MESSAGE_COLUMNS} FROM before ORDER BY seq;
{_BOX}
INSERT INTO box SELECT agent, CASE state WHEN 2 THEN 3 WHEN 4 THEN 5 WHEN 3 THEN 4 WHEN 5 THEN 4 ELSE prio END, seq,
    state, tries, due, exp, length(body), sender, hist FROM before ORDER BY 1, 2, 3;
DROP TABLE before;
INSERT OR REPLACE INTO meta(name, value) SELECT 'filed', coalesce(max(seq), 0) FROM m;
PRAGMA user_version = 3;
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
    # After a failed flush the log may not hold what it is believed to; closing must not copy that into the file.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
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
