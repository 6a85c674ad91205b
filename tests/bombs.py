"""Bytes that are no frame: cut short, too long, too deep, too many, or of a kind that does not exist (R09, R11)."""

from __future__ import annotations

from agentd.wire import frames


def frame(body: bytes) -> bytes:
    """Return a frame with a body of these bytes."""
    return len(body).to_bytes(4, "big") + body


def ping_of(body: bytes) -> bytes:
    """Return a frame that would be a ping if the bytes were a value."""
    return frame(b"\x92\x08" + body)


REFUSED = {
    "a length of 4 GiB": b"\xff\xff\xff\xff",
    "one byte over the limit": (frames.MAX_FRAME_BYTES + 1).to_bytes(4, "big"),
    "an array of 4 billion": ping_of(b"\xdd\xff\xff\xff\xff"),
    "a map of 4 billion": ping_of(b"\xdf\xff\xff\xff\xff"),
    "nesting 33": ping_of(b"\x91" * 32 + b"\xc0"),
    "nesting of 600": ping_of(b"\x91" * 600 + b"\xc0"),
    "nesting of 100,000": ping_of(b"\x91" * 100_000 + b"\xc0"),
    "nested claims": ping_of(b"\xdc\xff\xff" * 20_000),
    "1 MB of empty maps": ping_of(b"\xdd\x00\x0f\x42\x40" + b"\x80" * 1_000_000),
    "1 MB of empty maps in many arrays": ping_of(b"\x9f" + (b"\xdc\xff\xff" + b"\x80" * 65_535) * 15),
    "1 MB of arrays of one": ping_of(b"\xdd\x00\x00\xff\xff" + b"\x91\xc0" * 500_000),
    "an array over its limit": ping_of(b"\xdd\x00\x01\x00\x01" + b"\xc0" * 65_537),
    "a key twice": ping_of(b"\x82\xa1a\x01\xa1a\x02"),
    "a key that is a number": ping_of(b"\x81\x01\x02"),
    "a key that is binary": ping_of(b"\x81\xc4\x01a\x02"),
    "an extension": ping_of(b"\xc7\x01\x05a"),
    "an empty extension": ping_of(b"\xc7\x00\x05"),
    "a timestamp": ping_of(b"\xd6\xff\x00\x00\x00\x00"),
    "text that is not UTF-8": ping_of(b"\xa1\xff"),
    "trailing bytes": frame(b"\x92\x08\xc0\xc0"),
    "a byte that means nothing": ping_of(b"\xc1"),
    "an empty body": frame(b""),
    "a value cut short": frame(b"\x92\x08"),
    "a map": frame(b"\x80"),
    "no kind": frame(b"\x90"),
    "an unknown kind": frame(b"\x92\x0a\xc0"),
    "a kind that is true": frame(b"\x92\xc3\xc0"),
    "a call without a method": frame(b"\x92\x01\x01"),
    "a negative id": frame(b"\x92\x06\xff"),
    "a negative credit": frame(b"\x93\x05\x01\xff"),
}
