"""A segment of a transcript: the bytes of one file. No I/O.

What an agent printed is one row of positions: each byte takes one, and so does each gap. The first one names the file:

    <15 digits>.log     the newest one, appended to
    <15 digits>.log.z   a full one, compressed
    <15 digits>.bad     one whose middle cannot be read; it is left for people to look at

A .log file:

     0        4    5        8
    +--------+----+--------+--------+--------+ ...
    | "agdt" | 01 | 000000 | record | record |
    +--------+----+--------+--------+--------+ ...

A record; numbers are big-endian:

     0      1       5       13      17
    +------+-------+-------+-------+------------+
    | kind | size  | at    | crc   | size bytes |
    +------+-------+-------+-------+------------+
    kind 1   what was printed, as it was
    kind 2   a gap: a code that says why, then in 8 bytes how much is missing, 0 when nobody knows
    at       nanoseconds since 1970 at which the first of it came
    crc      CRC-32 of kind, size, at and the bytes

A .log.z file:

     0        4    5        8       16         24        32      36
    +--------+----+--------+-------+----------+---------+-------+-----------------------+
    | "agdz" | 01 | 000000 | end   | first at | last at | crc   | zlib of all records   |
    +--------+----+--------+-------+----------+---------+-------+-----------------------+
    end      the position behind its last one;  crc   CRC-32 of the 32 bytes before
"""

from __future__ import annotations

import enum
import struct
import zlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

VERSION: Final = 1
FULL_BYTES: Final = 512 * 1024  # a segment that holds so much is compressed
RECORD_BYTES: Final = 64 * 1024  # most printed bytes in one record
MOST_POSITIONS: Final = FULL_BYTES + RECORD_BYTES  # of one segment
LEVEL: Final = 3  # zlib's: 6 makes it a fifth smaller and takes two and a half times as long
MAGIC: Final = b"agdt"
MAGIC_Z: Final = b"agdz"
HEADER: Final = MAGIC + bytes((VERSION, 0, 0, 0))

_HEAD: Final = struct.Struct(">BIQI")
_GAP: Final = struct.Struct(">BQ")
_HEADER_Z: Final = struct.Struct(">4sB3xQQQI")
HEADER_Z_BYTES: Final = _HEADER_Z.size
_PRINTED, _MISSING = 1, 2


class Why(enum.IntEnum):
    """Why something is missing."""

    FLOOD = 1  # it came faster than it could be written
    AWAY = 2  # the daemon did not run
    LOST = 3  # the connection to tmux was lost
    PAUSED = 4  # tmux held it back because we did not read fast enough
    DISK = 5  # the disk took no more
    DAMAGED = 6  # its file cannot be read; never written, found when reading
    REMOVED = 7  # it was kept for as long as the settings say; found when reading


_SENTENCES: Final = {
    Why.FLOOD: "it came faster than it could be stored",
    Why.AWAY: "the daemon did not run",
    Why.LOST: "the connection to tmux was lost",
    Why.PAUSED: "it came faster than it could be read",
    Why.DISK: "the disk took no more",
    Why.DAMAGED: "a file of the transcript is damaged",
    Why.REMOVED: "the transcript is not kept for so long",
}


class Printed(NamedTuple):
    """Bytes that a program printed."""

    at_ns: int
    data: bytes

    @property
    def positions(self) -> int:
        """Return how many positions it takes."""
        return len(self.data)


class Missing(NamedTuple):
    """A place at which something is missing; `size_bytes` is 0 when nobody knows how much."""

    at_ns: int
    why: Why
    size_bytes: int = 0
    positions: int = 1  # how many it takes; more than one only for what was stored and cannot be read any more

    @property
    def sentence(self) -> str:
        """Return what a reader is told at this place."""
        what = f"{self.size_bytes} bytes are missing here" if self.size_bytes else "something may be missing here"
        return f"[agentd: {what}: {_SENTENCES[self.why]}]"


Piece = Printed | Missing


class Damaged(Exception):
    """Raised when a file is no segment, or not a whole one."""


class Newer(Damaged):
    """Raised when a file has a format that this version does not know."""


class Parsed(NamedTuple):
    """The pieces of a .log file as far as they are whole, and how many of its bytes those take."""

    pieces: list[Piece]
    whole_bytes: int
    torn: bool = False  # it ends in the middle of a record
    damaged: bool = False  # what follows is no record


def pack(piece: Piece) -> bytes:
    """Return a record."""
    if isinstance(piece, Printed):
        return _record(_PRINTED, piece.at_ns, piece.data)
    return _record(_MISSING, piece.at_ns, _GAP.pack(piece.why, piece.size_bytes))


def _record(kind: int, at_ns: int, data: bytes) -> bytes:
    return _HEAD.pack(kind, len(data), at_ns, _crc(kind, at_ns, data)) + data


def _crc(kind: int, at_ns: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(_HEAD.pack(kind, len(data), at_ns, 0)))


def parse(data: bytes, *, headed: bool = True) -> Parsed:
    """Return the pieces of a .log file, or of its records from one of them on.

    Raises Newer for a later format, Damaged for what is no segment at all.
    """
    at = 0
    if headed:
        if len(data) < len(HEADER):
            return Parsed([], 0, torn=bool(data), damaged=not HEADER.startswith(data))
        _check_header(data, MAGIC)
        at = len(HEADER)
    pieces: list[Piece] = []
    while at < len(data):
        end = at + _HEAD.size
        if end > len(data):
            return Parsed(pieces, at, torn=True)
        kind, size, at_ns, crc = _HEAD.unpack_from(data, at)
        if kind not in (_PRINTED, _MISSING) or size > RECORD_BYTES:
            return Parsed(pieces, at, damaged=True)
        if end + size > len(data):
            return Parsed(pieces, at, torn=True)
        body = data[end : end + size]
        piece = _piece(kind, at_ns, body) if crc == _crc(kind, at_ns, body) else None
        if piece is None:
            return Parsed(pieces, at, damaged=True)
        pieces.append(piece)
        at = end + size
    return Parsed(pieces, at)


def _piece(kind: int, at_ns: int, body: bytes) -> Piece | None:
    if kind == _PRINTED:
        return Printed(at_ns, body)
    if len(body) != _GAP.size:
        return None
    why, size_bytes = _GAP.unpack(body)
    return Missing(at_ns, Why(why), size_bytes) if why in Why._value2member_map_ else None


def _check_header(data: bytes, magic: bytes) -> None:
    if not data.startswith(magic):
        raise Damaged("it does not begin as a segment does")
    if data[len(magic)] != VERSION:
        raise Newer(f"it has format {data[len(magic)]} and this agentd knows {VERSION}")


class About(NamedTuple):
    """What the header of a compressed segment says."""

    end: int
    first_ns: int
    last_ns: int


def compress(log: bytes, end: int, first_ns: int, last_ns: int) -> bytes:
    """Return the .log.z file of a whole .log file."""
    head = _HEADER_Z.pack(MAGIC_Z, VERSION, end, first_ns, last_ns, 0)
    return head[:-4] + struct.pack(">I", zlib.crc32(head[:-4])) + zlib.compress(log[len(HEADER) :], LEVEL)


def about(data: bytes) -> About:
    """Return what a .log.z file's header says; raises Damaged, or Newer for a later format."""
    if len(data) < HEADER_Z_BYTES:
        raise Damaged("it is too short")
    _check_header(data, MAGIC_Z)
    _, _, end, first_ns, last_ns, crc = _HEADER_Z.unpack_from(data)
    if crc != zlib.crc32(data[: HEADER_Z_BYTES - 4]):
        raise Damaged("its header has another checksum")
    return About(end, first_ns, last_ns)


def decompress(data: bytes) -> list[Piece]:
    """Return the pieces of a .log.z file; raises Damaged when one byte of it is not as it was."""
    about(data)
    unpacker = zlib.decompressobj()
    try:
        log = HEADER + unpacker.decompress(data[HEADER_Z_BYTES:], _MOST_UNPACKED)
    except zlib.error as error:
        raise Damaged(f"it cannot be unpacked ({error})") from None
    parsed = parse(log)
    if not unpacker.eof or parsed.torn or parsed.damaged:
        raise Damaged("it is not whole")
    return parsed.pieces


# A full segment whose every record holds one byte.
_MOST_UNPACKED: Final = MOST_POSITIONS * (_HEAD.size + 1)


def positions_of(pieces: Iterable[Piece]) -> int:
    """Return how many positions pieces take."""
    return sum(piece.positions for piece in pieces)


def cut(data: bytes, at_ns: int) -> Sequence[Printed]:
    """Return printed bytes as records of the size that is allowed."""
    return [Printed(at_ns, data[n : n + RECORD_BYTES]) for n in range(0, len(data), RECORD_BYTES)]
