"""The journal: an unsynced second copy of what was accepted and what became of it."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from agentd.mailbox.rows import ACCEPTED_RECORD, Row, record_of
from agentd.private import open_private, private_dir

ROTATE_BYTES: Final = 64 * 1024 * 1024

# A record. Nothing marks its end: a reader that finds damage looks for the next magic and goes on from there.
#
#   0        4          8         12            12 + length
#   +--------+----------+---------+-------------+
#   | "\xa6aj\n" | length | CRC-32 | msgpack      |     length and CRC-32 big-endian
#   +--------+----------+---------+-------------+
#
# msgpack is a new message (rows.py), a later state of one, its removal, or one that was accepted before, as it stands:
#
#   [0, seq, agent, prio, exp, ts, sender, reply_to, body]
#   [1, seq, state number, at_ns, detail]                  as it was written up to format 2
#   [2, seq]
#   [3, the record of type 0, state number, attempts, hist]
#   [4, [seq, ...], state number, at_ns, detail]
MAGIC: Final = b"\xa6aj\n"
MOVED_RECORD: Final = 1
DROPPED_RECORD: Final = 2
COPY_RECORD: Final = 3
MOVED_TOGETHER_RECORD: Final = 4
_HEAD: Final = struct.Struct(">4sII")
_BLOCK_BYTES: Final = 1 << 20
_MOST_BYTES: Final = 1 << 24  # of a record; a length beyond is damage
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


def moved(seqs: Sequence[int], state: int, at_ns: int, detail: str) -> bytes:
    """Return the record of messages that went to a state together."""
    return _framed([MOVED_TOGETHER_RECORD, seqs, state, at_ns, detail])


def dropped(seq: int) -> bytes:
    """Return the record of a message's removal."""
    return _framed([DROPPED_RECORD, seq])


def copy_of(row: Row) -> bytes:
    """Return the record of a message as it stands."""
    return _framed([COPY_RECORD, record_of(row), row.state, row.tries, row.hist])


def _framed(record: list[Any]) -> bytes:
    payload = _pack(record)
    return frame(payload, zlib.crc32(payload))


def read(file: BinaryIO, offset: int = 0) -> Iterator[tuple[bytes, list[Any]]]:
    """Yield the payload of each sound record and what it says, whatever lies between them; one is in memory."""
    while (head := _head_at(file, offset)) is not None:
        payload = _sound(file.read(head.length), head) if head.magic == MAGIC else None
        if payload is not None:
            yield payload, _unpack(payload)
            offset += _HEAD.size + len(payload)
        else:
            offset = _next_magic(file, offset + 1)


class _Head(NamedTuple):
    magic: bytes
    length: int
    crc: int


def _head_at(file: BinaryIO, offset: int) -> _Head | None:
    """Return what stands where a record may begin, None at the end of the file."""
    file.seek(offset)
    data = file.read(_HEAD.size)
    if len(data) < _HEAD.size:
        return None
    head = _Head(*_HEAD.unpack(data))
    return head if head.length <= _MOST_BYTES else _Head(b"", 0, 0)


def _sound(payload: bytes, head: _Head) -> bytes | None:
    # No record is empty, but zeros after a magic, as a power cut may leave them, look like one.
    return payload if payload and len(payload) == head.length and zlib.crc32(payload) == head.crc else None


def _next_magic(file: BinaryIO, offset: int) -> int:
    """Return where the next record may begin at or after an offset; the end of the file when there is none."""
    file.seek(offset)
    kept = b""
    while block := file.read(_BLOCK_BYTES):
        found = (kept + block).find(MAGIC)
        if found >= 0:
            return offset - len(kept) + found
        offset += len(block)
        kept = (kept + block)[1 - len(MAGIC) :]
    return offset


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

    def sync(self) -> None:
        """Wait until what was appended is on disk."""
        os.fsync(self._fd)

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
                with self._path(number).open("rb", buffering=_BLOCK_BYTES) as file:
                    yield from read(file, place.offset if number == place.file else 0)

    def numbers(self) -> list[int]:
        """Return the numbers of the files there are, oldest first."""
        names = (path.name.removeprefix("journal.") for path in self._directory.glob("journal.*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def first_seq(self, number: int) -> int | None:
        """Return the first message that was accepted while a file was written, None when there was none."""
        with self._path(number).open("rb", buffering=_BLOCK_BYTES) as file:
            return next((record[1] for _, record in read(file) if record[0] == ACCEPTED_RECORD), None)

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
