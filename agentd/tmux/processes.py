"""Processes of other programs: alive or not, whose children, and how to end them without hitting a stranger."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import anyio

_PROC = Path("/proc")
_SNAPSHOT_AGE_S = 0.1  # many panes ended at once share one reading of /proc
_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process that cannot be confused with a later one of the same pid."""

    pid: int
    started: str  # clock ticks since boot; empty where the system does not tell


@dataclass(frozen=True, slots=True)
class _Row:
    parent: int
    session: int
    started: str
    state: str


def start_of(pid: int) -> Process:
    """Return the process that has this pid now."""
    row = _row(pid)
    return Process(pid, row.started if row else "")


def parent_of(pid: int) -> int | None:
    """Return the parent of the process that has this pid now; None when there is none, or the system does not tell."""
    row = _row(pid)
    return row.parent if row else None


def is_alive(process: Process) -> bool:
    """Tell whether exactly this process still runs; a zombie does not."""
    if _PROC.is_dir():
        row = _row(process.pid)
        return row is not None and row.state not in "ZX" and process.started in ("", row.started)
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send_signal(process: Process, number: signal.Signals) -> bool:
    """Signal exactly this process; tell whether it was there."""
    if not is_alive(process):
        return False
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(process.pid, number)
        return True
    return False


class ProcessTable:
    """Who descends from whom, read again when it is older than a moment; safe to use from several threads."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._below: dict[int, list[int]] = {}  # by parent, and by leader of the terminal session
        self._read_s = 0.0
        self._lock = threading.Lock()

    def family(self, pid: int, parent: int) -> list[Process]:
        """Return the process, all that descend from it and all of its terminal session, as far as they run.

        Nothing when the pid is a stranger's by now: a child of another parent. Where there is no /proc (macOS) only the
        process itself is known.
        """
        with self._lock:
            self._refresh()
            rows, below = self._rows, self._below
        if not rows:
            return [Process(pid, "")]
        if pid in rows and rows[pid].parent != parent:
            return []
        found, waiting = {pid}, [pid]
        while waiting:
            new = set(below.get(waiting.pop(), ())) - found
            found |= new
            waiting += new
        return [Process(each, rows[each].started) for each in found if each in rows and rows[each].state not in "ZX"]

    def _refresh(self) -> None:
        if time.monotonic() - self._read_s < _SNAPSHOT_AGE_S:
            return
        self._rows = {pid: row for pid in _pids() if (row := _row(pid))}
        self._below = {}
        for pid, row in self._rows.items():
            for above in {row.parent, row.session}:
                self._below.setdefault(above, []).append(pid)
        self._read_s = time.monotonic()


async def wait_until_gone(processes: Iterable[Process], timeout_s: float) -> list[Process]:
    """Wait for the processes to end; return those that still run when the time is over."""
    deadline_s = anyio.current_time() + timeout_s
    left = [process for process in processes if is_alive(process)]
    while left and anyio.current_time() < deadline_s:
        await anyio.sleep(_LOOK_S)
        left = [process for process in left if is_alive(process)]
    return left


def _pids() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit()] if _PROC.is_dir() else []


def _row(pid: int) -> _Row | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended, or there is no /proc
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and parentheses
    return _Row(parent=int(fields[1]), session=int(fields[3]), started=fields[19], state=fields[0])
