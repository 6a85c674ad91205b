"""What is packed and unpacked by hand is what the library makes of it, byte for byte; anything else is left to it."""

from __future__ import annotations

import subprocess
import sys

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agentd.wire import plain

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.none() | st.booleans() | NUMBERS | st.text() | st.integers(-(1 << 63), (1 << 64) - 1)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
EDGES = [sign * (1 << bits) + step for bits in (5, 7, 8, 15, 16, 31, 32) for sign in (1, -1) for step in (-1, 0, 1)]


@settings(deadline=None, max_examples=300)
@given(VALUES)
@example(EDGES)
@example(
    [(1 << 64) - 1, 1 << 63, -(1 << 63), "x" * 31, "x" * 32, "x" * 255, "x" * 256, "x" * 65_536, [0] * 15, [0] * 16]
)
@example({f"{n}": n for n in range(16)})
def test_values_go_there_and_back_as_with_the_library(value):
    packed = msgpack.packb(value)
    assert plain.packed(value) == packed
    assert repr(plain.unpacked(packed)) == repr(msgpack.unpackb(packed))


@settings(deadline=None, max_examples=500)
@given(st.binary(max_size=60) | VALUES.map(msgpack.packb).flatmap(lambda packed: st.sampled_from(cuts(packed))))
@example(b"\xdd\xff\xff\xff\xff")
@example(b"\x82\xa1a\x01\xa1a\x02")
@example(b"\xa1\xff")
def test_bytes_that_are_understood_mean_the_same_to_the_library(body):
    try:
        value = plain.unpacked(body)
    except plain.NotPlain:
        return
    assert repr(msgpack.unpackb(body, strict_map_key=True)) == repr(value)


def cuts(packed: bytes) -> list[bytes]:
    """Return the bytes cut short, lengthened, and with one changed."""
    half = len(packed) // 2
    return [packed[:half], packed[:-1], packed + b"\0", packed[:half] + b"\xdc" + packed[half + 1 :]]


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1, b"x", (1, 2), "\ud800", {"a": object()}, list(range(300))])
def test_what_is_not_plain_is_left_to_the_library(value):
    with pytest.raises(plain.NotPlain):
        plain.packed(value)


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\xc4\x01x", b"\xd4\x01x", b"\x81\x01\x01", b"\x82\xa1a\x01\xa1a\x01"])
def test_bytes_that_are_not_plain_are_left_to_the_library(body):
    with pytest.raises(plain.NotPlain):
        plain.unpacked(body)


COUNTS = """
import sys
from agentd.wire.frames import FrameReader, encode
reader = FrameReader()
for count in range(20):
    [frame] = reader.feed(encode([2, count, {"value": 1.5, "text": "x", "list": [count, None, True]}]))
    assert frame == [2, count, {"value": 1.5, "text": "x", "list": [count, None, True]}], frame
    if "msgpack" in sys.modules:
        print(count)
        break
reader = FrameReader()
assert reader.feed(encode([2, 1, {"value": b"x"}])) == [[2, 1, {"value": b"x"}]]
"""


def test_a_process_that_has_much_to_do_turns_to_the_library():
    code = f"import sys; sys.path[:] = {sys.path!r}\n{COUNTS}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("8\n", "")


@settings(max_examples=1000)
@given(NUMBERS)
@example(5e-324)
@example(-2.2250738585072014e-308)
@example(1.7976931348623157e308)
@example(-0.0)
def test_every_number_is_the_same_to_the_last_bit(value):
    packed = plain.packed(value)
    assert packed == msgpack.packb(value)
    assert plain.unpacked(packed).hex() == value.hex()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_left_to_the_library(value):
    packed = plain.packed(value)
    assert packed == msgpack.packb(value)
    with pytest.raises(plain.NotPlain):
        plain.unpacked(packed)
