"""P1: the decoder against mutated frames and a slow decoder of our own, for a while (AGENTD_FUZZ_S, 5 s without)."""

from __future__ import annotations

import itertools
import os
import random
import struct
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from bombs import REFUSED
from test_frames import FRAMES

from agentd.errors import AgentdError
from agentd.wire import frames
from agentd.wire.conversation import Conversation, outcome
from agentd.wire.frames import FrameReader, ProtocolError, encode

FUZZ_S = float(os.environ.get("AGENTD_FUZZ_S", "5")) / 2  # two tests share it
LIMIT = 65_536
SEED = int(os.environ.get("AGENTD_FUZZ_SEED", "0")) or time.time_ns()
pytestmark = pytest.mark.timeout(FUZZ_S + 60)
SEEDS = [*(encode(body) for body in FRAMES.values()), *(data for data in REFUSED.values() if len(data) < 5000)]
TOKENS = [bytes([byte]) for byte in range(0x80, 0xE0)] + [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\xff", b"\x00"]


class Refused(Exception):
    """Raised by the reference for what is no frame."""


def reference(data: bytes) -> tuple[list[Any], bool]:
    """Return the frames in the bytes and whether they end in an error: as the protocol says it, without any haste."""
    found: list[Any] = []
    while len(data) >= 4:
        length = int.from_bytes(data[:4], "big")
        if length > LIMIT:
            return found, True
        if len(data) < 4 + length:
            break
        try:
            found.append(_body(data[4 : 4 + length]))
        except Refused:
            return found, True
        data = data[4 + length :]
    return found, False


def _body(data: bytes) -> Any:
    parser = _Parser(data)
    body = parser.value(0)
    if parser.at != len(data) or type(body) is not list or not body or type(body[0]) is not int:
        raise Refused
    kind = body[0]
    shapes = {0: (dict,), 1: (int, str, object), 2: (int, object), 3: (int, str, str), 4: (int, int, object)}
    shapes |= {5: (int, int), 6: (int,), 7: (str, object), 8: (object,), 9: (object,)}
    shape = shapes.get(kind)
    if shape is None or len(body) <= len(shape):
        raise Refused
    if any(wanted is not object and type(part) is not wanted for part, wanted in zip(body[1:], shape, strict=False)):
        raise Refused
    if kind < 8 and type(body[1]) is int and body[1] < 0:
        raise Refused
    if kind == frames.CREDIT and body[2] < 0:
        raise Refused
    return body


class _Parser:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.inside = self.containers = 0

    def take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise Refused
        return self.data[self.at - count : self.at]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def value(self, depth: int) -> Any:
        first = self.take(1)[0]
        if first < 0x80:
            return first
        if first >= 0xE0:
            return first - 256
        if first < 0x90:
            return self.map(first & 15, depth)
        if first < 0xA0:
            return self.array(first & 15, depth)
        if first < 0xC0:
            return self.text(first & 31)
        return self.long(first, depth)

    def long(self, first: int, depth: int) -> Any:
        simple = {0xC0: None, 0xC2: False, 0xC3: True}
        if first in simple:
            return simple[first]
        if first in (0xC4, 0xC5, 0xC6):
            return self.take(self.number(1 << first - 0xC4))
        if first in (0xD9, 0xDA, 0xDB):
            return self.text(self.number(1 << first - 0xD9))
        if first in (0xDC, 0xDD):
            return self.array(self.number(2 << first - 0xDC), depth)
        if first in (0xDE, 0xDF):
            return self.map(self.number(2 << first - 0xDE), depth)
        formats = dict(
            zip(range(0xCA, 0xD4), (">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"), strict=True)
        )
        if first not in formats:
            raise Refused  # extensions, and what means nothing
        return struct.unpack(formats[first], self.take(struct.calcsize(formats[first])))[0]

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise Refused from None

    def array(self, length: int, depth: int) -> list[Any]:
        self.enter(length, depth)
        return [self.value(depth + 1) for _ in range(length)]

    def map(self, length: int, depth: int) -> dict[str, Any]:
        self.enter(2 * length, depth)
        found: dict[str, Any] = {}
        for _ in range(length):
            key = self.value(depth + 1)
            if type(key) is not str or key in found:
                raise Refused
            found[key] = self.value(depth + 1)
        return found

    def enter(self, inside: int, depth: int) -> None:
        if depth >= frames.MAX_DEPTH or inside > len(self.data):
            raise Refused


def mutated(chosen: random.Random) -> bytes:
    """Return frames with something wrong in them, more or less."""
    data = bytearray(b"".join(chosen.choice(SEEDS) for _ in range(chosen.randint(1, 3))))
    for _ in range(chosen.choice((0, 1, 1, 2, 5))):
        at = chosen.randrange(len(data) + 1)
        what = chosen.randrange(5)
        if what == 0 and at < len(data):
            data[at] ^= 1 << chosen.randrange(8)
        elif what == 1:
            data[at:at] = chosen.choice(TOKENS)
        elif what == 2:
            del data[at : at + chosen.randint(1, 4)]
        elif what == 3:
            data[at : at + 1] = chosen.choice(TOKENS)
        else:
            start = chosen.randrange(len(data) + 1)
            data[at:at] = data[start : start + chosen.randint(1, 40)]
    if chosen.random() < 0.6 and len(data) > 4:  # or nearly every frame would be refused for its length alone
        return (len(data) - 4).to_bytes(4, "big") + bytes(data[4:])
    return bytes(data)


def pieces(data: bytes, chosen: random.Random) -> list[bytes]:
    """Return the bytes cut somewhere."""
    edges = sorted({0, len(data), *(chosen.randrange(len(data) + 1) for _ in range(chosen.randint(0, 6)))})
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def decoded(chunks: Sequence[bytes]) -> tuple[list[Any], bool]:
    reader, found = FrameReader(LIMIT), []
    for number, chunk in enumerate(chunks):
        try:
            found += reader.feed(chunk)
        except ProtocolError as error:
            found += error.frames
            for later in (*chunks[number + 1 :], encode([frames.PING, 1])):
                with pytest.raises(ProtocolError):
                    reader.feed(later)  # nothing behind an error is looked at
            assert not reader.pending
            return found, True
    return found, False


def test_the_decoder_gives_what_the_reference_gives_however_the_bytes_come():
    chosen = random.Random(SEED)
    end, tried, refused = time.monotonic() + FUZZ_S, 0, 0
    while time.monotonic() < end:
        data = mutated(chosen)
        wanted = reference(data)
        given = decoded(pieces(data, chosen))
        assert repr(given) == repr(wanted), f"seed {SEED}: {data.hex()}"  # by repr: NaN, and 1 is not True
        for frame in given[0]:
            if frame[0] < 10 and "nan" not in repr(frame):
                assert FrameReader().feed(encode(frame)) == [frame]
        tried += 1
        refused += wanted[1]
    print(f"{tried} tried, {refused} refused")
    assert 0.05 * tried < refused < 0.95 * tried  # both kinds are tried


def test_a_client_takes_whatever_a_daemon_sends_as_frames_or_an_error_of_ours():
    chosen = random.Random(SEED)
    end = time.monotonic() + FUZZ_S
    tracemalloc.start()
    try:
        while time.monotonic() < end:
            talk = Conversation(None)
            call_id, _ = talk.request("agents.list", {})
            try:
                for piece in pieces(mutated(chosen), chosen):
                    talk.received(piece)
                    frame = talk.take(call_id)
                    if frame is not None and frame[0] != frames.ITEM:
                        outcome(frame)
                        break
            except AgentdError:
                continue
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
