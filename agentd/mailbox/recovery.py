"""What is done before a shard is trusted: checked, caught up from its journal, or rebuilt from it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from agentd.failpoint import failpoint
from agentd.mailbox import schema
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.journal import (
    COPY_RECORD,
    DROPPED_RECORD,
    MOVED_RECORD,
    MOVED_TOGETHER_RECORD,
    START,
    Journal,
    Place,
    copy_of,
)
from agentd.mailbox.keys import Keys, get_meta, put_meta
from agentd.mailbox.rows import ACCEPTED_RECORD, COLUMNS, STATES, Row, box_part, fragment, message_part, row_of
from agentd.mailbox.schema import ENDED, INSERT, INSERT_ENTRY, DamagedShard

Report = Callable[[str], None]
DAMAGE: Final = (DamagedShard, apsw.CorruptError, apsw.NotADBError, apsw.SQLError)  # SQLError: a table is missing
_NEEDED: Final = (
    f"SELECT {COLUMNS} FROM message WHERE seq IN (SELECT seq FROM box WHERE place<>{ENDED} AND seq<?1"  # noqa: S608
    " UNION ALL SELECT seq FROM m WHERE seq>?2 AND seq<?1) LIMIT ?3"
)
_BLOCK_BYTES: Final = 1 << 16  # SQLite writes at most 128 KiB at once
MOST_CARRIED: Final = 100  # messages that are copied to have an old journal file deleted


def open_shard(
    path: Path, journal: Journal | None, clock: SteadyClock, report: Report, *, expected: bool, thorough: bool
) -> apsw.Connection:
    """Return a connection to a sound file that holds everything its journal does."""
    try:
        size = schema.touch(path)
        if expected and not size:
            raise DamagedShard(f"{path.name} was missing or empty")
        connection = _open_sound(path, thorough=thorough)
    except DAMAGE as damage:
        return _rebuild(path, journal, clock, report, damage)
    with _closed_if_it_fails(connection):
        if journal:
            _catch_up(path, connection, journal, clock, report)
        sync_directory(path.parent)
    return connection


@contextmanager
def _closed_if_it_fails(connection: apsw.Connection) -> Iterator[None]:
    """Leave no connection open that nobody has: its lock would keep the next attempt out."""
    try:
        yield
    except BaseException:
        connection.close(force=True)
        raise


def open_as_it_is(path: Path) -> apsw.Connection:
    """Return a connection to a file that nothing is written to: not checked, not caught up, its log left as it is."""
    if not schema.touch(path):
        raise DamagedShard(f"{path.name} is empty")
    return schema.connect(path)


def _open_sound(path: Path, *, thorough: bool) -> apsw.Connection:
    _settle_log(schema.wal_of(path))
    connection = schema.connect(path)
    with _closed_if_it_fails(connection):
        schema.check(connection, thorough=thorough)
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    return connection


def _settle_log(wal: Path) -> None:
    """Write a log that was left behind once more, as it is read, and flush it.

    When a flush failed, Linux may have dropped what is still read from memory, and the next flush succeeds without it
    (https://wiki.postgresql.org/wiki/Fsync_Errors). What is copied from the log into the file must be on disk in the
    log: the power may go half-way.
    """
    size = wal.stat().st_size if wal.exists() else 0
    if not size:
        return
    file = apsw.VFSFile("", str(wal), [apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_READWRITE, 0])
    try:
        for offset in range(0, size, _BLOCK_BYTES):
            file.xWrite(file.xRead(min(_BLOCK_BYTES, size - offset), offset), offset)
        file.xSync(apsw.SQLITE_SYNC_NORMAL)
    finally:
        file.xClose()


def _rebuild(
    path: Path, journal: Journal | None, clock: SteadyClock, report: Report, damage: Exception
) -> apsw.Connection:
    """Keep the damaged file under another name and make a new one from the journal."""
    kept = _move_aside(path)
    failpoint("mailbox.after_quarantine")
    schema.touch(path)
    connection = schema.connect(path)
    with _closed_if_it_fails(connection):
        found = _replay(connection, journal.read_from(START), clock.now_ns()) if journal else 0
        if journal:
            put_meta(connection, "journal_end", journal.end.packed())
        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        sync_directory(path.parent)
    source = f"{found} records of its journal" if journal else "nothing: mailbox.journal is off"
    report(f"{path.name} is damaged ({damage}); it was kept as {kept} and rebuilt from {source}")
    return connection


def _move_aside(path: Path) -> str:
    kept = path.with_name(
        f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{time.time_ns() % 1000}"
    )
    wal = schema.wal_of(path)
    if wal.exists() and not wal.stat().st_size:
        wal.unlink()
    for file in (wal, path):  # the file last: while it is there, another start finds the damage again
        if file.exists():
            file.rename(kept.with_name(kept.name + file.name.removeprefix(path.name)))
    sync_directory(path.parent)
    return kept.name


def _catch_up(path: Path, connection: apsw.Connection, journal: Journal, clock: SteadyClock, report: Report) -> None:
    """Replay what the journal has beyond the last transaction of the file, as after a log that was lost or damaged."""
    end = Place.unpacked(get_meta(connection, "journal_end", START.packed()))
    if end == journal.end:
        return
    found = _replay(connection, journal.read_from(end), clock.now_ns())
    journal.rotate()  # so that a tail that was lost with the power is not counted again
    put_meta(connection, "journal_end", journal.end.packed())
    prune(connection, journal)
    if found:
        report(f"{path.name}: {found} records were missing from the file and were taken from its journal")


def _replay(connection: apsw.Connection, records: Iterable[tuple[bytes, list[Any]]], now_ns: int) -> int:
    """Bring the records into the tables, those already there once more without harm; returns how many there were."""
    count, filed = 0, get_meta(connection, "filed", 0)
    with connection:
        for payload, record in records:
            count += 1
            if record[0] == ACCEPTED_RECORD:
                _put(connection, row_of(payload))
            elif record[0] == MOVED_RECORD:
                _replay_moved(connection, [record[1]], *record[2:])
            elif record[0] == MOVED_TOGETHER_RECORD:
                _replay_moved(connection, *record[1:])
            elif record[0] == DROPPED_RECORD:
                connection.execute("DELETE FROM m WHERE seq=?", (record[1],))
            elif record[0] == COPY_RECORD:
                _replay_copy(connection, *record[1:])
        if get_meta(connection, "filed", 0) != filed:  # what is filed has its key in the table
            keys = Keys(connection, 0, now_ns)
            keys.read_tail(filed)
            keys.file()
    put_meta(connection, "keys_rotated_ns", now_ns)  # the keys that came back are remembered for a whole window
    return count


def _put(connection: apsw.Connection, row: Row) -> None:
    """Add a message unless it is there; it is entered in the box later, with all that are not filed."""
    connection.execute(INSERT.replace("INSERT", "INSERT OR IGNORE", 1), message_part(row))


def _replay_copy(connection: apsw.Connection, record: bytes, state: int, tries: int, hist: str) -> None:
    row = row_of(record)._replace(state=state, tries=tries, hist=hist)
    _put(connection, row)
    _enter(connection, row)


def _replay_moved(connection: apsw.Connection, seqs: Sequence[int], state: int, at_ns: int, detail: str) -> None:
    piece = fragment(STATES[state], at_ns, detail)
    for seq in seqs:
        found = connection.execute(f"SELECT {COLUMNS} FROM message WHERE seq=?", (seq,)).fetchone()  # noqa: S608
        if found:
            row = Row._make(found)
            _enter(connection, row._replace(state=state, due=0, hist=row.hist + piece))


def _enter(connection: apsw.Connection, row: Row) -> None:
    """Let the box have a message as it stands; what came before it is filed, so that nothing is entered twice."""
    filed = get_meta(connection, "filed", 0)
    if row.seq > filed:
        connection.execute(schema.FILL_BOX, (filed,))
        put_meta(connection, "filed", connection.execute("SELECT max(seq) FROM m").get)
    connection.execute(schema.REMOVE_ENTRY, (row.agent, row.seq))
    connection.execute(INSERT_ENTRY, box_part(row))


def prune(connection: apsw.Connection, journal: Journal) -> None:
    """Delete the oldest journal files while almost each message in them has come to its end.

    The few that have not, as a dead letter that is kept, are copied to the end of the journal.
    """
    numbers = journal.numbers()
    starts = {number: journal.first_seq(number) for number in numbers} if len(numbers) > 1 else {}
    for number in numbers[:-1]:
        later = [start for other, start in starts.items() if other > number and start is not None]
        needed = _needed(connection, min(later, default=1 << 62))
        if len(needed) > MOST_CARRIED:
            return
        if needed:
            _carry(connection, journal, needed)
        journal.remove(number)


def _needed(connection: apsw.Connection, end: int) -> list[Row]:
    """Return the messages before a seq that have not come to their end, one more than can be carried at most."""
    filed = get_meta(connection, "filed", 0)
    return [Row._make(found) for found in connection.execute(_NEEDED, (end, filed, MOST_CARRIED + 1))]


def _carry(connection: apsw.Connection, journal: Journal, rows: Iterable[Row]) -> None:
    journal.append(b"".join(map(copy_of, rows)))
    journal.sync()
    put_meta(connection, "journal_end", journal.end.packed())


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
