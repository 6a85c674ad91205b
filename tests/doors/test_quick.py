"""The quick way to decode a call gives what the strict one gives, or leaves the frame to it."""

from __future__ import annotations

import msgpack
import msgspec
import pytest
from fault_rows import LONG
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentd.doors.quick import quick_call
from agentd.wire.calls import CALLS, Params
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
METHODS = st.sampled_from(sorted(CALLS))
FIELDS = st.sampled_from(sorted({field for row in CALLS.values() for field in row.params.__struct_fields__}))
LIKELY = st.sampled_from(["worker-1", "idle", "m0333d61yevqh", "m0333d61yevqh#1", 5, 2.0, 1 << 62, True, ["worker-1"]])
GIVEN = st.dictionaries(FIELDS, LIKELY | PLAIN | VALUES, max_size=3)
FRAMES = st.tuples(KINDS, st.integers(-2, 2**64 - 1) | PLAIN, METHODS | TEXTS | PLAIN, GIVEN | MAPS | VALUES)
WITH_OPTIONS = st.builds(lambda frame, options: (*frame, options), FRAMES, MAPS | VALUES)


def read(body: bytes, quick) -> object:
    """Return what a frame is, or why it is none; parameters that its row takes are what they become there."""
    try:
        (frame,) = FrameReader(quick=quick).feed(len(body).to_bytes(4, "big") + body)
    except ProtocolError as error:
        return error.message
    if frame[0] == 1 and frame[2] in CALLS and not isinstance(frame[3], Params):
        try:
            frame[3] = msgspec.convert(frame[3], CALLS[frame[2]].params)
        except msgspec.ValidationError:
            return frame
    return frame


@st.composite
def bodies(draw) -> bytes:
    """Frames as clients make them, some with a byte changed, cut out or put in."""
    body = bytearray(msgpack.packb(draw(FRAMES | WITH_OPTIONS)))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body) - 1))
        body[at : at + draw(st.integers(0, 1))] = draw(st.binary(max_size=2))
    return bytes(body)


def call(params: bytes, rest: bytes = b"", method: bytes = b"\xa1m") -> bytes:
    return bytes([0x95 if rest else 0x94]) + b"\x01\x07" + method + params + rest


ROW = b"\xaaagents.get"
TARGET = b"\xa6target\xa1a"


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
@example(call(b"\x81" + TARGET, method=ROW))
@example(call(b"\x82" + 2 * TARGET, method=ROW))
@example(call(b"\xde\x00\x02" + 2 * TARGET, method=ROW))
@example(call(b"\x81\xa6target\xa1\xff", method=ROW))
@example(call(b"\x81\xa6target\xd4\x01\x01", method=ROW))
@example(call(b"\x81\xa6target\xc4\x01a", method=ROW))
@example(call(b"\x81\xa6target\x81" + TARGET, method=ROW))
@example(call(b"\x81" + TARGET, TWICE, method=ROW))
@example(call(b"\x81" + TARGET, b"\x81\xa3key\xa1a", method=ROW))
@example(call(b"\x91\xa1a", method=ROW))
@example(call(b"\x07", method=ROW))
@example(call(b"\x81\xa1a\x80"))
@example(call(b"\x80") + b"\x01")
@example(b"\x94\xff\x07\xa1m\x80")
@example(b"\x94\x01\xff\xa1m\x80")
@example(b"\x94\x02\x07\xa1m\x80")
def test_both_ways_agree(body):
    assert read(body, quick_call) == read(body, None)


@pytest.mark.parametrize(
    ("method", "params"),
    [("agents.list", {}), ("agents.get", {"target": "worker-1"}), ("m", {"a": "x", "b": 5})],
)
@pytest.mark.parametrize("rest", [[], [{"deadline_ms": 30}]])
def test_usual_calls_are_decoded_the_quick_way(method, params, rest):
    frame = quick_call(msgpack.packb([1, 2**40, method, params, *rest]))
    assert frame is not None
    if method in CALLS:
        assert type(frame[3]) is CALLS[method].params
        frame[3] = {name: value for name, value in msgspec.structs.asdict(frame[3]).items() if value is not None}
    assert frame == [1, 2**40, method, params, *rest]


def test_what_may_hold_maps_is_left_to_the_strict_way():
    inner = {"to": "worker-1", "body": "hello", "headers": {"a": "b"}}
    assert quick_call(msgpack.packb([1, 7, "messages.send", inner])) is None
    assert quick_call(msgpack.packb([1, 7, "messages.send_batch", {"messages": [{"to": "a", "body": "b"}]}])) is None
