"""One shard's file and journal, used by one thread: opened through recovery, written in transactions, tidied."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any, ClassVar, Final, cast

import apsw

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, InternalError
from agentd.failpoint import failpoint
from agentd.mailbox import recovery
from agentd.mailbox.archive import Archive
from agentd.mailbox.box import SMALL_TAIL_MESSAGES, TAIL_MESSAGES, Box
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.commands import Command, Put, Reserve, Settle, Sweep
from agentd.mailbox.compaction import vacuum
from agentd.mailbox.depths import Depths
from agentd.mailbox.ids import first_seq_at, not_below, seq_of, text_of, time_of
from agentd.mailbox.inboxes import Snapshot
from agentd.mailbox.journal import ROTATE_BYTES, Journal
from agentd.mailbox.keys import Keys, get_meta, put_meta
from agentd.mailbox.lookups import Known
from agentd.mailbox.retention import Retention
from agentd.mailbox.rows import COLUMNS, Row, intact, message_of
from agentd.mailbox.transaction import BEGIN, Arrivals, Effect, Step, Transaction
from agentd.records import Change, Delivery, Draft, MessageState, Receipt

WAL_BYTES: Final = 8 * 1024 * 1024  # beyond this it is written back into the file, idle or not
_PAGE_BYTES: Final = 4096
_MB: Final = 1_000_000
# After these nothing is known about the whole transaction; any other error is one command's own.
FATAL: Final = (
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.CorruptError,
    apsw.FullError,
    apsw.IOError,
    apsw.NoMemError,
    apsw.NotADBError,
    apsw.ReadOnlyError,
)


@dataclass(frozen=True, slots=True)
class Commit:
    """What came of one transaction."""

    outcomes: list[object]  # of each command, in order; an exception where it failed
    effects: list[Effect] = field(default_factory=list)
    damaged: list[int] = field(default_factory=list)


class Store:
    """One shard on disk."""

    def __init__(
        self,
        index: int,
        path: Path,
        config: MailboxConfig,
        clock: SteadyClock,
        report: Callable[[str], None],
        *,
        expected: bool,
        thorough: bool = False,
        reading: bool = False,
    ) -> None:
        """Open the file; a damaged one is kept under another name and rebuilt from the journal.

        `expected` says that the file should be there already, `thorough` that it gave cause for doubt, `reading` that
        the disk takes no writes: it is opened as it is, for `look` alone. Raises InvalidValue for a symlink, apsw.Error
        or OSError when the disk refuses.
        """
        self.path = path
        self._config = config
        self._clock = clock
        self._report = report
        self._journal = Journal(path.with_suffix("")) if config.journal and not reading else None
        with ExitStack() as opened:  # what is left open would keep the next attempt out
            if self._journal:
                opened.callback(self._journal.close)
            self._connection = (
                recovery.open_as_it_is(path)
                if reading
                else recovery.open_shard(path, self._journal, clock, report, expected=expected, thorough=thorough)
            )
            opened.callback(self._connection.close, force=True)
            self._load(index, reading=reading)
            opened.pop_all()

    def _load(self, index: int, *, reading: bool) -> None:
        self._wal_pages = 0
        self._connection.set_wal_hook(self._on_commit)
        highest = self._connection.execute("SELECT max(seq) FROM m").get or 0
        known = max(highest, get_meta(self._connection, "last_seq", 0), first_seq_at(0, index))
        self.last_seq = not_below(known, index)  # another shard may have given it, before a reshard
        self._clock.not_before(time_of(self.last_seq))
        self._keys = Keys(self._connection, int(self._config.key_window_s * 1e9), self._clock.now_ns())
        self._box = Box(self._connection, self._keys)
        if reading:
            self._depths = self._looked_up_depths()
        else:
            self._file()
            self._depths = Depths(self._box.waiting(), self._config)
        self._next_expiry_ns = self._read_next_expiry()
        archive = self._archive() if self._config.archive else None
        self._retention = Retention(self._config, archive, self._report, self._clock.now_ns())

    def _archive(self) -> Archive:
        directory = self.path.parent / "archive"
        return Archive(directory, self.path.stem, self._config.archive_mb * _MB, self._config.reserve_mb * _MB)

    def _looked_up_depths(self) -> Depths:
        self._connection.execute("BEGIN IMMEDIATE")
        self._box.file(self.last_seq)
        depths = Depths(self._box.waiting(), self._config)
        self._connection.execute("ROLLBACK")
        self._box.back()
        return depths

    def _file(self) -> None:
        with self._connection:
            self._box.file(self.last_seq)
        self._box.settle(self.last_seq, 0, None)

    # -- what memory starts from

    def snapshot(self) -> Snapshot:
        """Return the inboxes as the file has them."""
        sql = "SELECT agent, seq, due FROM box INDEXED BY box_due WHERE place<3 AND due>0 AND due>?"
        delayed: list[Any] = self._connection.execute(sql, (max(self._clock.now_ns(), 0),)).fetchall()
        return Snapshot(self._depths.messages(), delayed)

    def delivering(self) -> list[Delivery]:
        """Return what is leased, oldest first."""
        leased = "SELECT seq FROM box INDEXED BY box_due WHERE state=1 AND due>0"
        sql = f"SELECT {COLUMNS} FROM message WHERE seq IN ({leased}) ORDER BY seq"  # noqa: S608
        rows = [Row._make(found) for found in self._connection.execute(sql).fetchall()]
        return [Delivery(message_of(row), row.tries) for row in rows if intact(row)]

    def accepted_after(self, seq: int) -> Arrivals:
        """Return the messages that a transaction of unknown outcome left, as the arrivals they are."""
        sql = f"SELECT {COLUMNS} FROM message WHERE seq>? ORDER BY seq"  # noqa: S608
        rows = [Row._make(found) for found in self._connection.execute(sql, (seq,)).fetchall()]
        accepted = MessageState.ACCEPTED
        return Arrivals([Change(text_of(r.seq), r.agent, accepted, r.sender, r.reply_to) for r in rows if r.state == 0])

    # -- transactions

    def transact(self, commands: Sequence[Put | Command[Any]]) -> Commit:
        """Run all commands and commit them together; on return all of it is on disk, leases alone excepted.

        Raises one of FATAL when nothing of it is known to be; a fault of one command is only that command's outcome.
        """
        if not all(isinstance(command, Reserve) for command in commands):
            return self._transact(commands)
        # A lease that is lost with the power is given again. What is committed after it takes it to the disk.
        self._connection.execute("PRAGMA synchronous=NORMAL")
        try:
            return self._transact(commands)
        finally:
            self._connection.execute("PRAGMA synchronous=FULL")

    def _transact(self, commands: Sequence[Put | Command[Any]]) -> Commit:
        start = self._journal.end if self._journal else None
        tx = self._begin()
        try:
            self._keys.look_up(name for put in commands if isinstance(put, Put) for name in put.name_keys())
            if self._box.unfiled > TAIL_MESSAGES:
                self._box.file(tx.last_seq)
            outcomes = list(self._run(tx, commands))
            tx.flush()
            point = failpoint if tx.changed else _no_point  # looks are not counted
            point("mailbox.before_journal")
            self._write_journal(tx)
            point("mailbox.before_commit")
            self._connection.execute("COMMIT")
        except FATAL:
            self._undo(tx)
            if self._journal and start:
                with suppress(OSError):  # what stays behind would be found again as an accepted message, at worst
                    self._journal.cut(start)
            raise
        point("mailbox.after_commit")
        self.last_seq = tx.last_seq
        self._depths.settle()
        self._box.settle(tx.last_seq, tx.inserted, tx.soonest_ns)
        return Commit(outcomes, tx.effects, tx.damaged)

    def _run(self, tx: Transaction, commands: Sequence[Put | Command[Any]]) -> Iterator[object]:
        """Yield the outcome of each command in order; what was sent in a row is accepted together."""
        for sends, group in groupby(commands, key=lambda command: isinstance(command, Put)):
            if sends:
                yield from self._accept(tx, cast("list[Put]", list(group)))
            else:
                yield from (self._run_apart(tx, command) for command in cast("Iterator[Command[Any]]", group))

    def _accept(self, tx: Transaction, puts: Sequence[Put]) -> Iterator[object]:
        mark = tx.mark()
        try:
            results = iter(tx.accept(list(_drafts(puts)), list(_names(puts))))
        except FATAL:
            raise
        except Exception as error:  # noqa: BLE001  the writer outlives a send that fails in an unforeseen way
            tx.back_to(mark)
            alone = [_bug(error)] if len(puts) == 1 else (o for put in puts for o in self._accept(tx, [put]))
            yield from alone
        else:
            yield from (list(islice(results, len(put.drafts))) for put in puts)

    def _run_apart(self, tx: Transaction, command: Command[Any]) -> object:
        """Run one command so that its fault, a bug included, is its own outcome and its neighbours stand."""
        tx.flush()
        if command.lists:
            self._box.file(tx.last_seq)
        mark = tx.mark()
        self._connection.execute("SAVEPOINT command")
        try:
            outcome: object = command.run(tx)
            tx.flush()
            if command.lists:
                self._box.filed_by_hand(tx.last_seq)
        except FATAL:
            raise
        except Exception as error:  # noqa: BLE001  as above
            self._connection.execute("ROLLBACK TO command")
            tx.back_to(mark)
            outcome = error if isinstance(error, AgentdError) else _bug(error)
        self._connection.execute("RELEASE command")
        return outcome

    # -- while the disk takes no writes: what is changed here stays in memory and is taken back

    def look(
        self, commands: Sequence[Put | Command[Any]], promised_seq: int, refusal: Callable[[], AgentdError]
    ) -> Commit:
        """Answer the commands that change nothing, refuse the others, and leave the file as it is.

        What is read after a failed flush may be in memory alone. So nothing is promised by it: only messages up to
        `promised_seq` are known as accepted, and no acknowledgement is said to be there already.
        """
        tx = self._begin()
        try:
            self._keys.look_up(name for put in commands if isinstance(put, Put) for name in put.name_keys())
            outcomes = [self._look(tx, command, promised_seq, refusal) for command in commands]
        finally:
            self._undo(tx)
        return Commit(outcomes, damaged=tx.damaged)

    def _look(
        self, tx: Transaction, command: Put | Command[Any], promised_seq: int, refusal: Callable[[], AgentdError]
    ) -> object:
        if isinstance(command, Put):
            mark = tx.mark()
            results = tx.accept(command.drafts, command.names)
            tx.back_to(mark)
            return [
                result if isinstance(result, Receipt) and seq_of(result.id) <= promised_seq else refusal()
                for result in results
            ]
        if isinstance(command, Known):
            return [seq if seq and seq <= promised_seq else None for seq in command.run(tx)]
        if isinstance(command, Settle):
            return refusal()
        return self._run_apart(tx, _Unchanging(command, refusal))

    def prove(self) -> None:
        """Write something and see it to the disk; raises one of FATAL when the disk does not take it."""
        put_meta(self._connection, "proved_ns", self._clock.wall_ns())

    def _begin(self) -> Transaction:
        now_ns, wall_ns = self._clock.now_ns(), self._clock.wall_ns()
        tx = Transaction(self._connection, self._keys, self._depths, self.last_seq, now_ns, wall_ns)
        self._connection.execute("BEGIN IMMEDIATE")
        return tx

    def _undo(self, tx: Transaction) -> None:
        if self._connection.in_transaction:
            with suppress(apsw.Error):  # the connection is closed after this, or the rollback has happened already
                self._connection.execute("ROLLBACK")
        self._box.back()
        tx.back_to(BEGIN)

    def _write_journal(self, tx: Transaction) -> None:
        if not (self._journal and tx.records):
            return
        try:
            self._journal.append(b"".join(tx.records))
        except OSError as error:
            self._report(f"{self.path.name}: its journal could not be written ({error.strerror}); going on without")
        put_meta(self._connection, "journal_end", self._journal.end.packed())

    def _on_commit(self, _connection: apsw.Connection, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    # -- housekeeping

    def tidy(self, *, idle: bool) -> Commit:
        """Do what is due: expire, forget keys, write the log back, renew the journal."""
        now_ns = self._clock.now_ns()
        self._next_expiry_ns = self._read_next_expiry()
        swept = Commit([])
        if self._next_expiry_ns is not None and self._next_expiry_ns <= now_ns:
            swept = self.transact([Sweep()])
        self._retire(now_ns, idle=idle)
        if self._keys.due(now_ns):
            self._file()
            self._keys.rotate(now_ns)
        if idle and self._box.unfiled > SMALL_TAIL_MESSAGES:
            self._file()
        if self._wal_pages * _PAGE_BYTES > WAL_BYTES or (idle and self._wal_pages):
            self.checkpoint(apsw.SQLITE_CHECKPOINT_PASSIVE)
        if self._journal and self._journal.end.offset > ROTATE_BYTES:
            self._journal.rotate()
            recovery.prune(self._connection, self._journal)
        return Commit([], swept.effects, swept.damaged)

    def _retire(self, now_ns: int, *, idle: bool) -> None:
        if self._retention.begins(now_ns):
            self._file()
        step = self._retention.next(self._connection, now_ns, self._clock.wall_ns(), idle=idle)
        if step:
            [outcome] = self.transact([step]).outcomes
            self._retention.took(outcome)

    def compact(self) -> None:
        """Rewrite the file without its gaps, and prune the journal; raises StorageFull when there is no room."""
        self._file()
        self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        vacuum(self._connection, self.path, self._config.reserve_mb * _MB)
        self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
        if self._journal:
            self._journal.rotate()
            recovery.prune(self._connection, self._journal)

    def patience_s(self, idle_s: float, longest_s: float) -> float:
        """Return how long nothing needs to be tidied if nothing happens."""
        now_ns = self._clock.now_ns()
        longest_s = min(longest_s, self._retention.due_in_s(now_ns))
        if self._wal_pages:
            return min(idle_s, longest_s)
        if self._next_expiry_ns is None:
            return longest_s
        return min(max((self._next_expiry_ns - now_ns) / 1e9, idle_s), longest_s)

    def _read_next_expiry(self) -> int | None:
        sql = "SELECT min(exp) FROM box INDEXED BY box_exp WHERE place<3 AND exp IS NOT NULL"
        return min(
            (ns for ns in (self._connection.execute(sql).get, self._box.soonest_ns) if ns is not None), default=None
        )

    def checkpoint(self, mode: int) -> None:
        """Write the log back into the file."""
        failpoint("mailbox.before_checkpoint")
        self._connection.wal_checkpoint(mode=mode)
        failpoint("mailbox.after_checkpoint")
        self._wal_pages = 0

    def close(self, *, clean: bool) -> None:
        """Close the file, with an empty log if everything went well."""
        with ExitStack() as closing:  # a log that cannot be written back is no reason to keep the file open
            if self._journal:
                closing.callback(self._journal.close)
            closing.callback(self._connection.close, force=True)
            if clean:
                self.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)  # the empty log is removed


@dataclass(frozen=True, slots=True)
class _Unchanging:
    """A command that is refused if it turns out to change anything."""

    sends: ClassVar[bool] = False
    cost: ClassVar[int] = 1
    command: Command[Any]
    refusal: Callable[[], AgentdError]

    @property
    def lists(self) -> bool:
        return self.command.lists

    def run(self, tx: Transaction) -> object:
        outcome: object = self.command.run(tx)
        if tx.records or any(isinstance(effect, Step) for effect in tx.effects):
            raise self.refusal()
        return outcome


def _drafts(puts: Iterable[Put]) -> Iterator[Draft]:
    return (draft for put in puts for draft in put.drafts)


def _names(puts: Iterable[Put]) -> Iterator[bytes | None]:
    return (name for put in puts for name in put.names)


def _no_point(_name: str) -> None:
    pass


def _bug(error: Exception) -> InternalError:
    return InternalError(f"the mailbox failed: {type(error).__name__}: {error}")
