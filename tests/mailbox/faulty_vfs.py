"""A disk under SQLite that counts what is asked of it, and kills, fails, waits, lies or writes down at a chosen moment.

It is the default VFS of the process that installs it, so the code under test is what is shipped. A rule is asked for
each operation that changes a shard's files, and is given the way to do it; rules are put into one another.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import apsw

VARIABLE = "AGENTD_TEST_DISK"  # the JSON of a plan: see `rule_of`
BASE = "unix"
_MOST_BYTES = 1 << 16  # in one write: SQLite's own VFS takes less than 128 KiB
WRITE, SYNC, TRUNCATE, DELETE, OPEN = "write", "sync", "truncate", "delete", "open"


class Op(NamedTuple):
    """One operation on a shard's file."""

    number: int
    kind: str
    name: str
    offset: int = 0  # of a write; the new size of a truncation
    data: bytes = b""
    file: apsw.VFSFile | None = None


Do = Callable[[bytes], None]
Rule = Callable[[Op, Do], None]


class Disk:
    """Counts the operations and lets a rule do them."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.count = 0
        self._lock = threading.Lock()

    def perform(self, kind: str, path: str, do: Do, **more: Any) -> None:
        with self._lock:
            self.count += 1
            op = Op(self.count, kind, os.path.basename(path), **more)
        self.rule(op, do)


class FaultyFile(apsw.VFSFile):
    """A file whose changes go through the disk's rule."""

    def __init__(self, disk: Disk, path: Any, flags: list[int]) -> None:
        self._disk = disk
        self._path = path.filename() if isinstance(path, apsw.URIFilename) else str(path)
        super().__init__(BASE, path, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802  SQLite's name
        def do(part: bytes) -> None:
            apsw.VFSFile.xWrite(self, part, offset)

        self._disk.perform(WRITE, self._path, do, offset=offset, data=bytes(data), file=self)

    def xSync(self, flags: int) -> None:  # noqa: N802  SQLite's name
        self._disk.perform(SYNC, self._path, lambda _: apsw.VFSFile.xSync(self, flags), file=self)

    def xTruncate(self, size: int) -> None:  # noqa: N802  SQLite's name
        self._disk.perform(TRUNCATE, self._path, lambda _: apsw.VFSFile.xTruncate(self, size), offset=size, file=self)

    def revert(self, data: bytes) -> None:
        """Make the file what it was, past the rule."""
        apsw.VFSFile.xTruncate(self, 0)
        for offset in range(0, len(data), _MOST_BYTES):
            apsw.VFSFile.xWrite(self, data[offset : offset + _MOST_BYTES], offset)


class FaultyVFS(apsw.VFS):
    """The VFS that opens such files."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__("faulty", BASE, makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  SQLite's name
        if name is None:
            return apsw.VFSFile(BASE, name, flags)
        opened: list[apsw.VFSFile] = []
        path = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        self._disk.perform(OPEN, path, lambda _: opened.append(FaultyFile(self._disk, name, flags)))
        return opened[0]

    def xDelete(self, name: str, sync_directory: bool) -> None:  # noqa: N802  SQLite's name
        self._disk.perform(
            DELETE, name, lambda _: apsw.VFS.xDelete(self, name, sync_directory), offset=int(sync_directory)
        )


@contextlib.contextmanager
def installed(rule: Rule) -> Iterator[Disk]:
    """Put a disk under every connection that is opened in this block."""
    disk = Disk(rule)
    vfs = FaultyVFS(disk)
    try:
        yield disk
    finally:
        vfs.unregister()


def honest(op: Op, do: Do) -> None:
    """Do what was asked."""
    do(op.data)


class KillAt:
    """Kills the process before, half-way through or after the N-th operation."""

    def __init__(self, inner: Rule, at: int, when: str, last_word: Callable[[], None]) -> None:
        self._inner, self._at, self._when, self._last_word = inner, at, when, last_word

    def __call__(self, op: Op, do: Do) -> None:
        if op.number != self._at:
            self._inner(op, do)
            return
        if self._when == "half" and op.kind == WRITE:
            self._inner(op._replace(data=op.data[: len(op.data) // 2]), do)
        elif self._when == "after":
            self._inner(op, do)
        self._last_word()
        os.kill(os.getpid(), signal.SIGKILL)


class FailAt:
    """Fails operations of some kinds, from the N-th on, so many times; those between are done."""

    def __init__(self, inner: Rule, kinds: list[str], at: int, times: int | None, error: str) -> None:
        self._inner, self._kinds, self._at = inner, kinds, at
        self._left = float("inf") if times is None else times
        self._error: type[apsw.Error] = getattr(apsw, error)
        self._seen = 0

    def __call__(self, op: Op, do: Do) -> None:
        self._seen += op.kind in self._kinds
        if op.kind in self._kinds and self._seen >= self._at and self._left > 0:
            self._left -= 1
            raise self._error("injected")
        self._inner(op, do)


class Slow:
    """Takes its time for each sync."""

    def __init__(self, inner: Rule, delay_s: float) -> None:
        self._inner, self._delay_s = inner, delay_s

    def __call__(self, op: Op, do: Do) -> None:
        if op.kind == SYNC:
            time.sleep(self._delay_s)
        self._inner(op, do)


class Event(NamedTuple):
    """What was done to the disk, and how far the client and the journal were right after."""

    kind: str
    name: str
    offset: int
    data: bytes
    told_bytes: int  # of the client's ledger
    journals: dict[str, bytes]


LOST, SYNC_DIRECTORY, NEW = "lost", "sync directory", "new"


class Recorder:
    """Writes down what is done, so that every image a power cut could leave can be built from it.

    `deaf` names ends of file names whose syncs do not count. A sync that fails, fails as Linux has it: what was not on
    disk is dropped and never tried again; with `revert`, it cannot even be read any more.
    """

    def __init__(self, box: Path, ledger: Path, trace: Path, inner: Rule, deaf: list[str], *, revert: bool) -> None:
        self._box, self._ledger, self._trace, self._inner = box, ledger, trace, inner
        self._deaf, self._revert = tuple(deaf), revert
        self._journals: dict[str, bytes] = {}
        self._lock = threading.Lock()
        self.events: list[Event] = pickle.loads(trace.read_bytes()) if trace.exists() else []

    def save(self) -> None:
        self._trace.write_bytes(pickle.dumps(self.events))

    def __call__(self, op: Op, do: Do) -> None:
        with self._lock:
            if op.kind == OPEN:
                self._inner(op, do)
                self._note(NEW, op)
                return
            try:
                self._inner(op, do)
            except apsw.Error:
                if op.kind == SYNC:
                    self._lose(op)
                raise
            if not (op.kind == SYNC and self._deaf and op.name.endswith(self._deaf)):
                self._note(op.kind, op)

    def _lose(self, op: Op) -> None:
        self._note(LOST, op)
        if self._revert:
            assert isinstance(op.file, FaultyFile)
            op.file.revert(fold(self.events).names[op.name][-1].durable)  # type: ignore[union-attr]

    def _note(self, kind: str, op: Op) -> None:
        told_bytes = self._ledger.stat().st_size
        self.events.append(Event(kind, op.name, op.offset, op.data, told_bytes, self._read_journals()))

    def _read_journals(self) -> dict[str, bytes]:
        found = {str(path.relative_to(self._box)): path.stat().st_size for path in self._box.glob("s??/journal.*")}
        if found != {name: len(data) for name, data in self._journals.items()}:
            self._journals = {name: (self._box / name).read_bytes() for name in found}
        return self._journals

    def watch_directory(self) -> None:
        """Hear of the syncs of the mailbox's directory, which are not SQLite's."""
        fsync = os.fsync

        def heard(fd: int) -> None:
            fsync(fd)
            if stat.S_ISDIR(os.fstat(fd).st_mode) and os.path.sameopenfile(fd, directory):
                with self._lock:
                    self._note(SYNC_DIRECTORY, Op(0, SYNC_DIRECTORY, ""))

        self._box.mkdir(mode=0o700, exist_ok=True)
        directory = os.open(self._box, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fsync = heard


class Version:
    """A file under one of the names it had: what is on disk, and what is on the way there."""

    def __init__(self) -> None:
        self.durable = b""
        self.pending: list[tuple[str, int, bytes]] = []

    def settle(self) -> None:
        data = bytearray(self.durable)
        for change in self.pending:
            apply(data, *change)
        self.durable = bytes(data)
        self.pending = []


def apply(data: bytearray, kind: str, offset: int, piece: bytes) -> None:
    """Write or truncate in memory."""
    if kind == TRUNCATE:
        del data[offset:]
        return
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


class Folded:
    """The disk after some events: per name, what may be found under it after a power cut, the durable one first."""

    def __init__(self) -> None:
        self.names: dict[str, list[Version | None]] = {}

    def add(self, event: Event) -> None:
        entries = self.names.setdefault(event.name, [None]) if event.name else []
        current = entries[-1] if entries else None
        if event.kind == NEW and current is None:
            entries.append(Version())
        elif event.kind in (WRITE, TRUNCATE):
            assert current
            current.pending.append((event.kind, event.offset, event.data))
        elif event.kind == SYNC:
            assert current
            current.settle()
            if event.name.endswith(("-wal", "-journal")):  # SQLite syncs the directory along with a new one
                self._settle_names()
        elif event.kind == LOST:
            assert current
            current.pending = []
        elif event.kind == DELETE:
            entries.append(None)
            if event.offset:
                self._settle_names()
        elif event.kind == SYNC_DIRECTORY:
            self._settle_names()

    def _settle_names(self) -> None:
        for name, entries in self.names.items():
            self.names[name] = entries[-1:]


def fold(events: list[Event]) -> Folded:
    """Return the disk after the events."""
    folded = Folded()
    for event in events:
        folded.add(event)
    return folded


def rule_of(plan: dict[str, Any]) -> tuple[Rule, Callable[[], None]]:
    """Return the rule that a plan describes, and what is to be done when the process ends.

    fail: {kinds, at, times (null: for ever), error}; slow_s: seconds; record: {box, ledger, trace, deaf, revert};
    kill: {at, when}.
    """
    rule: Rule = honest
    last_word: Callable[[], None] = lambda: None  # noqa: E731
    if "slow_s" in plan:
        rule = Slow(rule, plan["slow_s"])
    if "fail" in plan:
        rule = FailAt(rule, **plan["fail"])
    if "record" in plan:
        where = {name: Path(plan["record"][name]) for name in ("box", "ledger", "trace")}
        recorder = Recorder(**where, inner=rule, deaf=plan["record"]["deaf"], revert=plan["record"]["revert"])
        recorder.watch_directory()
        rule, last_word = recorder, recorder.save
    if "kill" in plan:
        rule = KillAt(rule, **plan["kill"], last_word=last_word)
    return rule, last_word


@contextlib.contextmanager
def as_planned(text: str | None) -> Iterator[None]:
    """Run a block on the disk that a plan, if there is one, describes; its count is printed at the end."""
    if text is None:
        yield
        return
    rule, last_word = rule_of(json.loads(text))
    with installed(rule) as disk:
        yield
    last_word()
    print(f"operations {disk.count}", flush=True)
