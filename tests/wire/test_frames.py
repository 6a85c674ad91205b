"""The codec: golden bytes, any chunking, any garbage, bombs."""

from __future__ import annotations

import contextlib
import gc
import itertools
import pathlib
import time
import tracemalloc

import msgpack
import pytest
from bombs import REFUSED, ping_of
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.errors import InvalidValue, OverLimit
from agentd.wire import frames
from agentd.wire.frames import FrameReader, ProtocolError, encode

GOLDEN = pathlib.Path(__file__).with_name("golden") / "frames.txt"

FRAMES = {
    "hello": [0, {"v": [1], "client": "test", "token": "t0ken", "max_frame": 16777216}],
    "hello-reply": [
        0,
        {"v": 1, "server": "agentd", "pid": 42, "instance": "i", "limits": {"max_frame_bytes": 1048576}},
    ],
    "call": [1, 1, "messages.send", {"to": "a", "body": "grüß dich", "priority": "high"}],
    "call-with-options": [1, 2, "agents.wait", {"target": "a"}, {"deadline_ms": 1500, "credit": 8, "key": "k"}],
    "batch": [1, 3, "rpc.batch", [["daemon.status", {}], ["agents.list", {"target": None}]]],
    "result": [2, 1, {"id": "m1", "state": "accepted", "ratio": 0.5, "ok": True, "none": None}],
    "error": [3, 1, "invalid", "priority: not one of high, normal, low", {"field": "$.priority", "retryable": False}],
    "error-of-the-connection": [3, 0, "denied", "not you", {"retryable": False}],
    "item": [4, 7, 1, {"id": 9, "type": "agent.state"}],
    "credit": [5, 7, 128],
    "cancel": [6, 7],
    "note": [7, "goaway", {"reason": "agentd is stopping"}],
    "ping": [8, 4294967296],
    "pong": [9, -1],
}


def golden() -> dict[str, bytes]:
    rows = (line.split() for line in GOLDEN.read_text().splitlines() if not line.startswith("#"))
    return {name: bytes.fromhex(digits) for name, digits in rows}


def test_every_kind_has_golden_bytes():
    assert {FRAMES[name][0] for name in golden()} == set(range(10))
    assert golden().keys() == FRAMES.keys()


@pytest.mark.parametrize("name", FRAMES)
def test_golden_bytes_are_written_and_read(name):
    assert encode(FRAMES[name]) == golden()[name]
    assert FrameReader().feed(golden()[name]) == [FRAMES[name]]


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.binary(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
bodies = st.one_of(
    st.builds(lambda i, m, p: [frames.CALL, i, m, p], st.integers(0, 2**64 - 1), st.text(max_size=20), values),
    st.builds(lambda i, r: [frames.RESULT, i, r], st.integers(0, 2**32), values),
    st.builds(lambda x: [frames.PING, x], values),
)


def outcome(chunks):
    """Return all frames and whether it ended in an error."""
    reader, found = FrameReader(65_536), []
    try:
        for chunk in chunks:
            found += reader.feed(chunk)
    except ProtocolError as error:
        return found + error.frames, str(error)
    return found, None


@given(bodies)
def test_decoding_gives_back_what_was_encoded(body):
    assert FrameReader().feed(encode(body)) == [body]


@given(
    st.lists(st.builds(encode, bodies) | st.binary(max_size=30), max_size=6), st.lists(st.integers(0, 400), max_size=12)
)
def test_any_chunking_gives_what_one_shot_gives(pieces, cuts):
    data = b"".join(pieces)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert outcome(data[a:b] for a, b in itertools.pairwise(edges)) == outcome([data] if data else [])


@given(st.binary(max_size=300), st.booleans())
@settings(max_examples=400)
def test_garbage_gives_frames_or_a_protocol_error(garbage, framed):
    data = len(garbage).to_bytes(4, "big") + garbage if framed else garbage
    found, _ = outcome([data])
    assert all(isinstance(frame, list) for frame in found)


@given(
    st.lists(
        st.sampled_from([b"\x91", b"\xdc\xff\xff", b"\xdd\x00\x00\xff\xff", b"\x81\xa1a", b"\x80", b"\x9f", b"\xc0"]),
        max_size=600,
    )
)
@settings(max_examples=60)
def test_nested_garbage_is_judged_the_same_small_and_large(parts):
    body = b"".join(parts)
    padded = (
        b"\x93\x08" + body + b"\xda\x13\x88" + b" " * 5000
    )  # over the size up to which structure may go unlooked at
    found, error = outcome([len(padded).to_bytes(4, "big") + padded])
    assert bool(found) != bool(error)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_frame_is_refused_quickly_and_for_good(name):
    reader = FrameReader()
    good = encode([frames.PING, 1])
    began = time.perf_counter()
    with pytest.raises(ProtocolError) as caught:
        reader.feed(good + REFUSED[name])
    assert time.perf_counter() - began < 1.0  # 20 ms on an idle machine; see bench/rpc.py
    assert caught.value.frames == [[frames.PING, 1]]
    with pytest.raises(ProtocolError):
        reader.feed(good)
    assert reader.pending == b""


@pytest.mark.parametrize("depth", [1, 30, 31])
def test_allowed_nesting(depth):
    [found] = FrameReader().feed(ping_of(b"\x91" * depth + b"\xc0"))
    assert msgpack.packb(found[1]) == b"\x91" * depth + b"\xc0"


@pytest.mark.parametrize("inmost", [b"\x90", b"\x80", b"\xc0", b"\x91\xc0"])
def test_the_limit_of_nesting_is_the_same_in_a_large_frame(inmost):
    """What is large has its structure looked at before it is unpacked."""
    for depth, fits in ((31 - (inmost != b"\xc0"), True), (32 - (inmost != b"\xc0"), False)):
        body = b"\x92" + b"\x91" * (depth - 1) + inmost + b"\xc5\x13\x88" + b"\x91" * 5000
        if fits:
            assert len(FrameReader().feed(ping_of(body))) == 1
        else:
            with pytest.raises(ProtocolError, match="nested"):
                FrameReader().feed(ping_of(body))


def test_nan_is_allowed():
    [[_, value]] = FrameReader().feed(ping_of(b"\xcb\x7f\xf8" + bytes(6)))
    assert value != value


def test_bombs_do_not_grow():
    for name in ("1 MB of empty maps", "1 MB of empty maps in many arrays", "nested claims", "nesting of 100,000"):
        bomb = REFUSED[name]
        tracemalloc.start()
        try:
            with pytest.raises(ProtocolError):
                FrameReader().feed(bomb)
            assert tracemalloc.get_traced_memory()[1] < frames.MAX_FRAME_BYTES
        finally:
            tracemalloc.stop()


def test_nothing_of_a_bomb_is_kept_by_what_was_told_of_it():
    """Nor by a cycle that only a collection would find: the daemon collects rarely."""
    bomb, readers = REFUSED["1 MB of empty maps"], [FrameReader() for _ in range(4)]
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for reader in readers:
            for data in (bomb[:100], bomb[100:], b"more"):
                with contextlib.suppress(ProtocolError):
                    reader.feed(data)
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
        gc.enable()


@pytest.mark.parametrize("chunk_bytes", [100, 4096, 65_536])
def test_the_reader_keeps_no_more_than_twice_the_limit(chunk_bytes):
    limit = 200_000
    data = encode([frames.PING, "x" * (limit - 20)])
    tracemalloc.start()
    try:
        reader = FrameReader(limit)
        for start in range(0, len(data) - 1, chunk_bytes):
            assert not reader.feed(data[start : min(start + chunk_bytes, len(data) - 1)])
        assert tracemalloc.get_traced_memory()[1] < 2 * limit
    finally:
        tracemalloc.stop()
    assert len(reader.feed(data[-1:])) == 1


def test_frames_are_handed_out_in_turns():
    reader = FrameReader()
    assert len(reader.feed(encode([frames.PING, 1]) * 5 + b"\x00", 2)) == 2
    assert reader.more
    assert len(reader.feed(b"", 2)) == 2
    assert len(reader.feed(b"", 2)) == 1
    assert not reader.more
    assert len(reader.pending) == 1


def test_a_large_list_of_small_messages_passes():
    body = [
        frames.CALL,
        1,
        "m",
        {"messages": [{"to": "a", "body": f"echo {i}", "key": f"k{i}"} for i in range(10_000)]},
    ]
    assert FrameReader().feed(encode(body)) == [body]


def test_what_cannot_be_sent_is_said():
    with pytest.raises(OverLimit, match="1048576 are allowed"):
        encode([frames.PING, "x" * frames.MAX_FRAME_BYTES])
    with pytest.raises(InvalidValue, match="cannot be sent"):
        encode([frames.PING, object()])
    with pytest.raises(InvalidValue, match="cannot be sent"):
        encode([frames.PING, 2**64])
