"""The journal: an unsynced second copy of what was accepted and what became of it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from agentd.mailbox.rows import ACCEPTED_RECORD
from agentd.paths import open_private, private_dir

ROTATE_BYTES: Final = 64 * 1024 * 1024

# A record. Nothing marks its end: a reader that finds damage looks for the next magic and goes on from there.
#
#   0        4          8         12            12 + length
#   +--------+----------+---------+-------------+
#   | "\xa6aj\n" | length | CRC-32 | msgpack      |     length and CRC-32 big-endian
#   +--------+----------+---------+-------------+
#
# msgpack is a whole message (rows.py), or a later state of one, or its removal:
#
#   [0, seq, agent, prio, exp, ts, sender, reply_to, body]
#   [1, seq, state number, at_ns, detail]
#   [2, seq]
MAGIC: Final = b"\xa6aj\n"
MOVED_RECORD: Final = 1
DROPPED_RECORD: Final = 2
_HEAD: Final = struct.Struct(">4sII")
_pack: Final = msgspec.msgpack.Encoder().encode
_unpack: Final = msgspec.msgpack.Decoder().decode


class Place(NamedTuple):
    """A position in the journal; ordered, and stored as one number in the shard."""

    file: int
    offset: int

    def packed(self) -> int:
        """Return the place as a number that fits SQLite's."""
        return self.file << 40 | self.offset

    @classmethod
    def unpacked(cls, number: int) -> Place:
        """Return the place that a number stands for."""
        return cls(number >> 40, number & (1 << 40) - 1)


def frame(payload: bytes, crc: int) -> bytes:
    """Return a record's bytes; `crc` is the payload's CRC-32."""
    return _HEAD.pack(MAGIC, len(payload), crc) + payload


def moved(seq: int, state: int, at_ns: int, detail: str) -> bytes:
    """Return the record of a message's later state."""
    return _framed([MOVED_RECORD, seq, state, at_ns, detail])


def dropped(seq: int) -> bytes:
    """Return the record of a message's removal."""
    return _framed([DROPPED_RECORD, seq])


def _framed(record: list[Any]) -> bytes:
    payload = _pack(record)
    return frame(payload, zlib.crc32(payload))


def read(data: bytes, offset: int = 0) -> Iterator[tuple[bytes, list[Any]]]:
    """Yield the payload of each sound record and what it says, whatever lies between them."""
    while (offset := data.find(MAGIC, offset)) >= 0:
        payload = _payload_at(data, offset)
        if payload is None:
            offset += 1
            continue
        offset += _HEAD.size + len(payload)
        yield payload, _unpack(payload)


def _payload_at(data: bytes, offset: int) -> bytes | None:
    if offset + _HEAD.size > len(data):
        return None
    _, length, crc = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    payload = data[start : start + length]
    # No record is empty, but zeros after a magic, as a power cut may leave them, look like one.
    return payload if payload and len(payload) == length and zlib.crc32(payload) == crc else None


START: Final = Place(1, 0)


class Journal:
    """The journal files of one shard, written at their end only."""

    def __init__(self, directory: Path) -> None:
        private_dir(str(directory))
        self._directory = directory
        numbers = self.numbers()
        self._fd, self._end = self._open(numbers[-1] if numbers else 1)

    @property
    def end(self) -> Place:
        """Return the place after the last record."""
        return self._end

    def append(self, data: bytes) -> None:
        """Write records after the last one, without waiting for the disk; a failure leaves the file as it was."""
        start = self._end.offset
        try:
            written = os.write(self._fd, data)
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except OSError:
            os.ftruncate(self._fd, start)
            raise
        self._end = Place(self._end.file, start + len(data))

    def cut(self, place: Place) -> None:
        """Take back what was appended after a place, because its transaction failed."""
        if place.file == self._end.file and place.offset < self._end.offset:
            os.ftruncate(self._fd, place.offset)
            self._end = place

    def rotate(self) -> None:
        """Go on in a new file."""
        os.close(self._fd)
        self._fd, self._end = self._open(self._end.file + 1)

    def read_from(self, place: Place) -> Iterator[tuple[bytes, list[Any]]]:
        """Yield the records after a place, over all files."""
        for number in self.numbers():
            if number >= place.file:
                yield from read(self._path(number).read_bytes(), place.offset if number == place.file else 0)

    def numbers(self) -> list[int]:
        """Return the numbers of the files there are, oldest first."""
        names = (path.name.removeprefix("journal.") for path in self._directory.glob("journal.*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def first_seq(self, number: int) -> int | None:
        """Return the oldest message whose second copy is in a file, None when the file has only later states."""
        records = read(self._path(number).read_bytes())
        return next((record[1] for _, record in records if record[0] == ACCEPTED_RECORD), None)

    def remove(self, number: int) -> None:
        """Delete a file that is not needed any more."""
        self._path(number).unlink()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self, number: int) -> tuple[int, Place]:
        fd = open_private(str(self._path(number)), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        return fd, Place(number, os.fstat(fd).st_size)

    def _path(self, number: int) -> Path:
        return self._directory / f"journal.{number:06d}"
