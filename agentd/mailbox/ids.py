"""Message ids: a number that is a primary key, a time and a shard at once, and its text."""

from __future__ import annotations

import re
import zlib
from functools import lru_cache

from agentd.errors import NotFound

# A seq, 60 bits used of SQLite's 63:
#
#    59                                            4 3       0
#   +------------------------------------------------+---------+
#   | microseconds since 2020-01-01, never backwards |  shard  |
#   +------------------------------------------------+---------+
#
# Its text is `m` and 12 digits of Crockford's base 32, so texts sort as the numbers do.
STEP = 16  # the next seq of the same shard
MAX_SHARDS = STEP
EPOCH_NS = 1_577_836_800_000_000_000  # 2020-01-01T00:00:00Z
_DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_WIDTH = 12
_LAST_US = (1 << 56) - 1
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_ID = re.compile(f"m[{_DIGITS}]{{{_WIDTH}}}")
_TO_INT = str.maketrans(_DIGITS, "0123456789abcdefghijklmnopqrstuv")  # the digits that int() reads in base 32


def first_seq_at(now_ns: int, shard: int) -> int:
    """Return the smallest seq that a shard may give at a time."""
    us = min(max((now_ns - EPOCH_NS) // 1000, 0), _LAST_US)
    return us << 4 | shard


def not_below(seq: int, shard: int) -> int:
    """Return the smallest seq of a shard that is not below a seq of any shard."""
    return seq + ((shard - seq) & (STEP - 1))


def time_of(seq: int) -> int:
    """Return the nanoseconds since 1970 that a seq stands for."""
    return (seq >> 4) * 1000 + EPOCH_NS


def shard_of(seq: int) -> int:
    """Return the index of the shard that gave a seq."""
    return seq & (STEP - 1)


def home_of(agent: str, shards: int) -> int:
    """Return the index of the shard that holds an inbox."""
    return _checksum(agent) % shards


@lru_cache(maxsize=1 << 16)
def _checksum(agent: str) -> int:
    return zlib.crc32(agent.encode())


def text_of(seq: int) -> str:
    """Return a message's id as people and programs see it."""
    return (
        f"m{_PAIRS[seq >> 50 & 1023]}{_PAIRS[seq >> 40 & 1023]}{_PAIRS[seq >> 30 & 1023]}"
        f"{_PAIRS[seq >> 20 & 1023]}{_PAIRS[seq >> 10 & 1023]}{_PAIRS[seq & 1023]}"
    )


def seq_of(text: str) -> int:
    """Return the number of an id; a text that cannot be an id raises NotFound, as one of a message we never had."""
    if not _ID.fullmatch(text):
        raise unknown(text)
    return int(text[1:].translate(_TO_INT), 32)


def unknown(text: str) -> NotFound:
    """Return the error for an id that names no message here."""
    return NotFound(f"no message `{text[:80]}`", hint="`agentd inbox --all` lists an inbox")
