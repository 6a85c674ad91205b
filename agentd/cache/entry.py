"""One kept answer, and its bytes where it is kept outside this process."""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import Any

import msgpack

from agentd.cache.query import Query

_CRC_BYTES = 4
_SHAPE = (str, object, float, float, str, str, int)


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer with everything that decides whether it may still be served."""

    query: Query
    value: Any  # None: there is no such thing
    asked_s: float  # monotonic, taken before the question was asked
    asked_at_s: float  # the same moment by the wall clock
    source: str  # who answered
    life: str  # the Cache that asked
    generation: int  # of that Cache, when it asked
    tags: tuple[str, ...] = ()
    bound_s: float = math.inf  # how old it may get where it is kept now


def encode(entry: Entry) -> bytes | None:
    """Return the entry's bytes, None when its value is not plain data that comes back as it went in.

    crc32 of the rest (4 bytes, big endian) | msgpack [key, value, asked_s, asked_at_s, source, life, generation]
    """
    parts = [
        str(entry.query),
        entry.value,
        entry.asked_s,
        entry.asked_at_s,
        entry.source,
        entry.life,
        entry.generation,
    ]
    try:
        body: bytes = msgpack.packb(parts, strict_types=True, unicode_errors="surrogatepass")
    except (TypeError, ValueError, OverflowError):
        return None
    return zlib.crc32(body).to_bytes(_CRC_BYTES, "big") + body


def decode(data: object, query: Query) -> Entry | None:
    """Return the entry of that question, None when the bytes are no such thing."""
    if not isinstance(data, bytes) or zlib.crc32(data[_CRC_BYTES:]) != int.from_bytes(data[:_CRC_BYTES], "big"):
        return None
    try:
        parts = msgpack.unpackb(data[_CRC_BYTES:], unicode_errors="surrogatepass", strict_map_key=False)
    except (ValueError, msgpack.UnpackException):
        return None
    if not isinstance(parts, list) or len(parts) != len(_SHAPE) or not all(map(isinstance, parts, _SHAPE)):
        return None
    key, value, asked_s, asked_at_s, source, life, generation = parts
    return Entry(query, value, asked_s, asked_at_s, source, life, generation) if key == str(query) else None
