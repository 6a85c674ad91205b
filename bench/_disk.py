"""What a disk can do without a mailbox on it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from bench._boxes import directory


def flushes(count: int) -> float:
    """Return how often a second 256 bytes in a preallocated file are written and confirmed."""
    with directory() as place:
        fd = os.open(place / "raw", os.O_RDWR | os.O_CREAT, 0o600)
        os.posix_fallocate(fd, 0, 256 * count)
        os.pwrite(fd, bytes(256 * count), 0)
        os.fsync(fd)
        begin = time.perf_counter()
        for n in range(count):
            os.pwrite(fd, b"y" * 256, 256 * n)
            os.fdatasync(fd)
        took = time.perf_counter() - begin
        os.close(fd)
    return count / took


def appends(size_bytes: int, seconds: float) -> float:
    """Return how often a second so many bytes are appended to a file and confirmed."""
    data, count = os.urandom(size_bytes), 0
    with directory() as place:
        fd = os.open(place / "raw", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        begin = time.perf_counter()
        while time.perf_counter() < begin + seconds:
            os.write(fd, data)
            os.fdatasync(fd)
            count += 1
        took = time.perf_counter() - begin
        os.close(fd)
    return count / took


def written_bytes() -> int | None:
    """Return what this process has handed to the system to be written, None where that is not told."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next(int(line.removeprefix("wchar:")) for line in lines if line.startswith("wchar:"))
