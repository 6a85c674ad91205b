"""The archive: messages that were removed, in compressed files of JSON Lines that are only ever appended to."""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from agentd.mailbox.recovery import sync_directory
from agentd.private import open_private, private_dir

FILE_BYTES: Final = 64 * 1024 * 1024
LEVEL: Final = 3  # gzip's; it works in the thread that messages wait for
_SUFFIX: Final = ".jsonl.gz"


class Archive:
    """The files of one shard, <yyyymmdd>-sNN-<number>.jsonl.gz; used by the shard's thread.

    Each addition is a gzip member of its own. What an earlier process began is not gone on with: its end may be torn.
    """

    def __init__(self, directory: Path, shard: str, most_bytes: int, reserve_bytes: int) -> None:
        self._directory = directory
        self._shard = shard
        self._most_bytes = most_bytes
        self._reserve_bytes = reserve_bytes
        self._path: Path | None = None

    def add(self, lines: bytes, day: str) -> None:
        """Append lines, on disk on return; raises OSError, and the file is as it was."""
        data = gzip.compress(lines, LEVEL, mtime=0)
        private_dir(str(self._directory))
        if shutil.disk_usage(self._directory).free < self._reserve_bytes + len(data):
            raise OSError("the disk is nearly full")
        path = self._current(day)
        fd = open_private(str(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _append(fd, data)
        finally:
            os.close(fd)
        if path != self._path:
            sync_directory(self._directory)
            self._path = path
        self._forget()

    def _current(self, day: str) -> Path:
        path = self._path
        if path and path.name.startswith(day) and path.exists() and path.stat().st_size < FILE_BYTES:
            return path
        begun = f"{day}-{self._shard}-"
        numbers = [int(name[len(begun) : -len(_SUFFIX)]) for name in _names(self._directory) if name.startswith(begun)]
        return self._directory / f"{begun}{max(numbers, default=0) + 1:03d}{_SUFFIX}"

    def _forget(self) -> None:
        """Delete the oldest files while all together are too large."""
        paths = files(self._directory)
        sizes = [path.stat().st_size for path in paths]
        excess = sum(sizes) - self._most_bytes
        for path, size in zip(paths, sizes, strict=True):
            if excess <= 0 or path == self._path:
                return
            path.unlink(missing_ok=True)
            excess -= size


def _append(fd: int, data: bytes) -> None:
    start = os.fstat(fd).st_size
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    except OSError:
        os.ftruncate(fd, start)
        raise


def _names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.glob(f"*{_SUFFIX}"))


def files(directory: Path) -> list[Path]:
    """Return the files of an archive, oldest first."""
    return [directory / name for name in _names(directory)]


def read(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, as far as it is whole."""
    with gzip.open(path) as file:
        try:
            yield from file
        except (EOFError, gzip.BadGzipFile, zlib.error):  # torn by a crash; its messages were not removed yet
            return
