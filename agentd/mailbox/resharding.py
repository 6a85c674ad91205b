"""Changing the number of shards: a new mailbox is made beside the old one, compared with it, and put in its place."""

from __future__ import annotations

import itertools
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import apsw

from agentd.config import MailboxConfig
from agentd.errors import InvalidValue, NotFound, StorageError, StorageFull
from agentd.failpoint import failpoint
from agentd.mailbox import layout, schema
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.ids import MAX_SHARDS, home_of
from agentd.mailbox.journal import ROTATE_BYTES, Journal, copy_of
from agentd.mailbox.keys import get_meta, put_meta
from agentd.mailbox.layout import Layout
from agentd.mailbox.rows import COLUMNS, NUMBER, Row, box_part, message_part
from agentd.mailbox.schema import INSERT, INSERT_ENTRY
from agentd.mailbox.store import Store
from agentd.private import private_dir
from agentd.records import MessageState

BATCH_ROWS: Final = 2000
_ENDED: Final = (NUMBER[MessageState.ACKED], NUMBER[MessageState.EXPIRED])  # these need no second copy
Progress = Callable[[str, int, int], None]  # what is being done, how much of it is done, and how much there is
Content = dict[tuple[str, int], tuple[int, int]]  # by inbox and state: how many messages, and their checksum


@dataclass(frozen=True, slots=True)
class Resharded:
    """What came of it."""

    before: int
    after: int
    messages: int
    kept: Path | None  # where the old mailbox is; None when there was nothing to do
    reports: list[str]  # what recovery found in the old one


def reshard(directory: Path, shards: int, config: MailboxConfig, progress: Progress) -> Resharded:
    """Spread the messages of a mailbox that nobody has open over another number of shards.

    Killed at any moment, it leaves the old one or the new one whole, and can be run again. Raises InvalidValue for a
    number that cannot be, NotFound when there is no mailbox, StorageFull or StorageError when the old one was kept.
    """
    if not 1 <= shards <= MAX_SHARDS:
        raise InvalidValue(f"a mailbox has 1 to {MAX_SHARDS} shards, not {shards}; nothing was changed")
    if layout.find(directory) is None:
        raise NotFound(f"no mailbox at {directory} yet", hint="mailbox.shards says how many shards a new one gets")
    present, _ = layout.prepare(directory, shards)
    if present.shards == shards:
        return Resharded(shards, shards, 0, None, [])
    reports = _settle(directory, present, config)
    _check_room(directory)
    new = layout.remove_new(directory)
    private_dir(str(new))
    wanted = replace(present, shards=shards)
    try:
        messages = _fill(present.paths(directory), wanted.paths(new), progress, journal=config.journal)
    except UnicodeDecodeError:
        raise StorageError(
            f"{directory} holds a message that cannot be read; the mailbox was left as it was",
            hint="`agentd mailbox verify` names it",
        ) from None
    if (directory / "archive").is_dir():
        shutil.copytree(directory / "archive", new / "archive", copy_function=shutil.copy2)
    kept = layout.swap(directory, wanted, f"{present.shards}-shards")
    return Resharded(present.shards, shards, messages, kept, reports)


def _fill(old: Sequence[Path], new: Sequence[Path], progress: Progress, *, journal: bool) -> int:
    """Make the new shards, compare them with the old ones, and return how many messages they hold."""
    failpoint("reshard.before_copy")
    with ExitStack() as stack:
        sources = [stack.enter_context(_opened(path)) for path in old]
        messages: int = sum(source.execute("SELECT count(*) FROM m").get for source in sources)
        _copy(sources, new, journal=journal, tell=lambda count: progress("copying", count, messages))
        failpoint("reshard.after_copy")
        _verify(sources, new, lambda count: progress("comparing", count, 2 * messages))
    return messages


def _settle(directory: Path, present: Layout, config: MailboxConfig) -> list[str]:
    """Bring the old shards through recovery, so that all they hold is in their files, and return what it reports."""
    reports: list[str] = []
    clock = SteadyClock()
    for index, path in enumerate(present.paths(directory)):
        Store(index, path, config, clock, reports.append, expected=True).close(clean=True)
    return reports


def _check_room(directory: Path) -> None:
    needed = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise StorageFull(
            f"the new mailbox may need {needed // 1_000_000} MB beside the old one and {free // 1_000_000} are free;"
            " nothing was changed",
            hint="make room and do it again",
        )


@contextmanager
def _opened(path: Path) -> Iterator[apsw.Connection]:
    schema.touch(path)
    connection = schema.connect(path)
    try:
        yield connection
    finally:
        connection.close(force=True)


# -- copying


def _copy(
    sources: Sequence[apsw.Connection], paths: Sequence[Path], *, journal: bool, tell: Callable[[int], None]
) -> None:
    with ExitStack() as stack:
        shards = [stack.enter_context(_new_shard(path, journal=journal)) for path in paths]
        copied = 0
        for source in sources:
            for rows in _batches(source):
                _spread(rows, shards)
                copied += len(rows)
                tell(copied)
                failpoint("reshard.mid_copy")
            _copy_keys(source, shards)
        last_seq = max(_last_seq(source) for source in sources)
        rotated_ns = max(get_meta(source, "keys_rotated_ns", 0) for source in sources)
        for shard in shards:
            shard.finish(last_seq, rotated_ns)


def _batches(source: apsw.Connection) -> Iterator[list[Row]]:
    rows = _rows(source)
    while batch := list(itertools.islice(rows, BATCH_ROWS)):
        yield batch


def _last_seq(source: apsw.Connection) -> int:
    highest: int = source.execute("SELECT max(seq) FROM m").get or 0
    return max(highest, get_meta(source, "last_seq", 0))


def _spread(rows: Iterable[Row], shards: Sequence[_NewShard]) -> None:
    parts: dict[int, list[Row]] = {}
    for row in rows:
        parts.setdefault(home_of(row.agent, len(shards)), []).append(row)
    for index, part in parts.items():
        shards[index].add(part)


def _copy_keys(source: apsw.Connection, shards: Sequence[_NewShard]) -> None:
    """Let each key follow its message; one whose message is gone may be asked for anywhere."""
    current = get_meta(source, "key_generation", 0)
    for generation in range(2):
        sql = f"SELECT k, i.seq, agent FROM idem{generation ^ current} i LEFT JOIN m ON m.seq=i.seq"  # noqa: S608
        found = iter(source.execute(sql))
        while batch := list(itertools.islice(found, BATCH_ROWS)):
            for index, shard in enumerate(shards):
                mine = [(k, seq) for k, seq, agent in batch if agent is None or home_of(agent, len(shards)) == index]
                shard.add_keys(generation, mine)


class _NewShard:
    """A shard that is being filled."""

    def __init__(self, connection: apsw.Connection, journal: Journal | None) -> None:
        self._connection = connection
        self._journal = journal
        connection.wal_autocheckpoint(1000)

    def add(self, rows: Sequence[Row]) -> None:
        """Add messages as they are."""
        with self._connection:
            self._connection.executemany(INSERT, map(message_part, rows))
            self._connection.executemany(INSERT_ENTRY, sorted(map(box_part, rows)))
        if self._journal:
            self._journal.append(b"".join(copy_of(row) for row in rows if row.state not in _ENDED))
            if self._journal.end.offset > ROTATE_BYTES:
                self._journal.rotate()

    def add_keys(self, generation: int, keys: Sequence[tuple[bytes, int]]) -> None:
        """Add keys to the current generation, 0, or the older one."""
        sql = f"INSERT OR IGNORE INTO idem{generation}(k, seq) VALUES(?, ?)"
        with self._connection:
            self._connection.executemany(sql, keys)

    def finish(self, last_seq: int, rotated_ns: int) -> None:
        """Write down what the shard knows about itself."""
        with self._connection:
            for name, value in (("filed", last_seq), ("last_seq", last_seq), ("keys_rotated_ns", rotated_ns)):
                put_meta(self._connection, name, value)
            if self._journal:
                put_meta(self._connection, "journal_end", self._journal.end.packed())
        self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


@contextmanager
def _new_shard(path: Path, *, journal: bool) -> Iterator[_NewShard]:
    records = Journal(path.with_suffix("")) if journal else None
    try:
        with _opened(path) as connection:
            yield _NewShard(connection, records)
    finally:
        if records:
            records.close()


# -- comparing


def _verify(sources: Sequence[apsw.Connection], paths: Sequence[Path], tell: Callable[[int], None]) -> None:
    with ExitStack() as stack:
        targets = [stack.enter_context(_opened(path)) for path in paths]
        for target in targets:
            schema.check(target, thorough=True)
        at_home = all(_at_home(target, index, len(targets)) for index, target in enumerate(targets))
        seen = itertools.count(1)
        same = _content(sources, seen, tell) == _content(targets, seen, tell)
    if not (same and at_home):
        raise StorageError(
            f"{paths[0].parent} does not hold what the old shards do; the mailbox was left as it was",
            hint="keep it and report this",
        )


def _at_home(target: apsw.Connection, index: int, shards: int) -> bool:
    """Tell whether all messages of a shard are in its box, and belong to its inboxes."""
    whole = target.execute("SELECT (SELECT count(*) FROM m) = (SELECT count(*) FROM box)").get
    agents = target.execute("SELECT DISTINCT agent FROM box")
    return bool(whole) and all(home_of(agent, shards) == index for (agent,) in agents)


def _content(shards: Sequence[apsw.Connection], seen: Iterator[int], tell: Callable[[int], None]) -> Content:
    content: Content = {}
    for shard in shards:
        for row in _rows(shard):
            number = next(seen)
            if number % BATCH_ROWS == 0:
                tell(number)
            count, checksum = content.get((row.agent, row.state), (0, 0))
            mark = zlib.crc32(repr(row).encode())
            content[row.agent, row.state] = (count + 1, (checksum + mark) % (1 << 64))
    return content


def _rows(shard: apsw.Connection) -> Iterator[Row]:
    return map(Row._make, shard.execute(f"SELECT {COLUMNS} FROM message ORDER BY seq"))  # noqa: S608
