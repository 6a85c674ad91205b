"""The quick way to decode a call gives what the strict one gives, or leaves the frame to it."""

from __future__ import annotations

import msgpack
import pytest
from fault_rows import LONG
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentd.doors.quick import quick_call
from agentd.wire.frames import FrameReader, ProtocolError

PLAIN = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.binary(max_size=9)
)
TEXTS = st.text(max_size=9) | st.text("abé", min_size=120, max_size=140)
VALUES = st.recursive(
    PLAIN | TEXTS, lambda v: st.lists(v, max_size=3) | st.dictionaries(TEXTS, v, max_size=20), max_leaves=8
)
MAPS = st.dictionaries(TEXTS | PLAIN, VALUES, max_size=3) | st.dictionaries(st.text(max_size=2), PLAIN, max_size=20)
KINDS = st.sampled_from([1, 1, 1, 0, 4, -1, True, 1.0])
FRAMES = st.tuples(KINDS, st.integers(-2, 2**64 - 1) | PLAIN, TEXTS | PLAIN, MAPS | VALUES)
WITH_OPTIONS = st.builds(lambda frame, options: (*frame, options), FRAMES, MAPS | VALUES)


def read(body: bytes, quick) -> object:
    try:
        return FrameReader(quick=quick).feed(len(body).to_bytes(4, "big") + body)
    except ProtocolError as error:
        return error.message


@st.composite
def bodies(draw) -> bytes:
    """Frames as clients make them, some with a byte changed, cut out or put in."""
    body = bytearray(msgpack.packb(draw(FRAMES | WITH_OPTIONS)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
    return bytes(body)


def call(params: bytes, rest: bytes = b"") -> bytes:
    return bytes([0x95 if rest else 0x94]) + b"\x01\x07\xa1m" + params + rest


TWICE = b"\x82\xa1a\x01\xa1a\x02"
TWICE_OF_94 = b"\xde\x00\x5f" + b"".join(b"\xa2" + f"{n:02}".encode() + b"\x01" for n in [*range(94), 0])
EXTENSION = b"\x81\xa1a\xd4\x01\x01"


@settings(deadline=None, max_examples=300 if LONG else 100)
@given(bodies())
@example(call(TWICE))
@example(call(b"\x80", TWICE))
@example(call(TWICE_OF_94))
@example(call(b"\x80", TWICE_OF_94))
@example(call(EXTENSION))
@example(call(b"\x81\xa1a\xa1\xff"))
@example(call(b"\x81\x01\x01"))
@example(call(b"\x81\xa1a\x80"))
@example(call(b"\x80") + b"\x01")
@example(b"\x94\xff\x07\xa1m\x80")
@example(b"\x94\x01\xff\xa1m\x80")
@example(b"\x94\x02\x07\xa1m\x80")
def test_both_ways_agree(body):
    assert read(body, quick_call) == read(body, None)


@pytest.mark.parametrize("frame", [[1, 7, "agents.list", {}], [1, 2**40, "m", {"a": "x", "b": 5}, {"deadline_ms": 30}]])
def test_usual_calls_are_decoded_the_quick_way(frame):
    body = msgpack.packb(frame)
    marks = bytes(byte for byte in body if 0x80 <= byte < 0xA0)
    assert quick_call(body, marks) == frame
