"""The second copy of a shard: an append-only journal that is never synced and from which a damaged shard is rebuilt.

    record  := magic "agj1" | size u32 big-endian | CRC-32 of payload u32 | payload
    payload := msgpack [0, row...]       a message was accepted
             | msgpack [1, seq, state]   it reached a state

A reader that meets a bad record looks for the next magic: one damaged record costs one record.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from zlib import crc32

import msgpack

from agentd.paths import open_private

MAGIC = b"agj1"
_HEAD = struct.Struct(">4sII")
ROTATE_BYTES = 64 * 1024 * 1024
PUT, REACHED = 0, 1


class Journal:
    """The newest file of a shard's journal, open for appending."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._number = max((number_of(file) for file in files(directory)), default=0)
        self._file = self._open()

    def append(self, records: Sequence[Sequence[Any]]) -> None:
        """Write records with one write; nothing is synced."""
        self._file.write(b"".join(_framed(msgpack.packb(record)) for record in records))
        self._file.flush()

    @property
    def full(self) -> bool:
        """Tell whether the file is to be rotated."""
        return bool(self._file.tell() >= ROTATE_BYTES)

    def rotate(self) -> None:
        """Begin a new file."""
        self._file.close()
        self._number += 1
        self._file = self._open()

    def prune(self, oldest_open_seq: int | None) -> None:
        """Delete the older files whose every message is final."""
        for file in files(self._directory):
            if number_of(file) < self._number and not _holds_open(file, oldest_open_seq):
                file.unlink()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self) -> Any:
        path = str(self._directory / f"journal.{self._number}")
        return os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")


def files(directory: Path) -> list[Path]:
    """Return a journal's files, oldest first."""
    return sorted(directory.glob("journal.*"), key=number_of)


def number_of(file: Path) -> int:
    """Return a journal file's number."""
    return int(file.suffix[1:])


def read(file: Path) -> Iterator[list[Any]]:
    """Yield the records that are whole."""
    data = file.read_bytes()
    at = 0
    while (at := data.find(MAGIC, at)) >= 0:
        payload = _payload(data, at)
        if payload is None:
            at += 1
            continue
        at += _HEAD.size + len(payload)
        yield msgpack.unpackb(payload)


def _payload(data: bytes, at: int) -> bytes | None:
    if len(data) - at < _HEAD.size:
        return None
    _, size_bytes, crc = _HEAD.unpack_from(data, at)
    payload = data[at + _HEAD.size : at + _HEAD.size + size_bytes]
    return payload if len(payload) == size_bytes and crc32(payload) == crc else None


def _framed(payload: bytes) -> bytes:
    return _HEAD.pack(MAGIC, len(payload), crc32(payload)) + payload


def _holds_open(file: Path, oldest_open_seq: int | None) -> bool:
    if oldest_open_seq is None:
        return False
    newest = max((record[1] for record in read(file) if record[0] == PUT), default=0)
    return newest >= oldest_open_seq
