"""The bytes of a segment: what was written is read, and what is damaged is never taken for what was written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.transcripts import segment
from agentd.transcripts.segment import HEADER, HEADER_Z_BYTES, Damaged, Missing, Newer, Piece, Printed, Why, pack, parse

TIMES = st.integers(0, (1 << 63) - 1)
STORED = [why for why in Why if why not in (Why.DAMAGED, Why.REMOVED)]
PIECES: st.SearchStrategy[list[Piece]] = st.lists(
    st.one_of(
        st.builds(Printed, TIMES, st.binary(min_size=1, max_size=100)),
        st.builds(Missing, TIMES, st.sampled_from(STORED), st.integers(0, 1 << 40), st.just(1)),
    ),
    max_size=8,
)

# Version 1 as it was first written: a later version reads it, too.
GOLDEN_LOG = bytes.fromhex(
    "616764740100000001000000030000000000000007cc9242c36f6e65020000000900000000000000080962812d020000000000000000"
)
GOLDEN = [Printed(7, b"one"), Missing(8, Why.AWAY)]


def log(pieces: list[Piece]) -> bytes:
    return HEADER + b"".join(map(pack, pieces))


def test_the_bytes_of_version_1():
    assert log(GOLDEN) == GOLDEN_LOG
    assert parse(GOLDEN_LOG).pieces == GOLDEN


@given(PIECES)
def test_what_was_written_is_read(pieces: list[Piece]):
    data = log(pieces)
    assert parse(data) == (pieces, len(data), False, False)
    assert parse(data[len(HEADER) :], headed=False).pieces == pieces
    assert segment.decompress(segment.compress(data, 99, 1, 2)) == pieces
    assert segment.about(segment.compress(data, 99, 1, 2)) == (99, 1, 2)


@given(PIECES, st.data())
def test_a_torn_end_leaves_what_stands_before_it(pieces: list[Piece], more: st.DataObject):
    data = log(pieces)
    size = more.draw(st.integers(0, len(data)))
    parsed = parse(data[:size])
    assert parsed.pieces == pieces[: len(parsed.pieces)]
    assert parsed.whole_bytes <= size
    assert not parsed.damaged
    assert parsed.torn == (parsed.whole_bytes < size)
    assert parse(data[: parsed.whole_bytes]).pieces == parsed.pieces


@given(PIECES.filter(bool), st.data())
def test_a_changed_bit_is_never_taken_for_what_was_written(pieces: list[Piece], more: st.DataObject):
    for data, read in ((log(pieces), parse), (segment.compress(log(pieces), 9, 1, 2), None)):
        at = more.draw(st.integers(0, len(data) * 8 - 1))
        changed = bytearray(data)
        changed[at // 8] ^= 1 << at % 8
        try:
            found = parse(bytes(changed)).pieces if read else segment.decompress(bytes(changed))
        except Damaged:
            continue
        assert found == pieces[: len(found)]
        # The three zeros of a header mean nothing, nor do the last bits of a deflated stream; what else is changed ends
        # the reading there.
        assert (at // 8 in (5, 6, 7) or found != pieces) if read else len(found) == len(pieces)


@given(st.binary(max_size=200))
def test_anything_else_is_no_segment(data: bytes):
    for read in (segment.decompress, segment.about):
        with pytest.raises(Damaged):
            read(data)
    for begun in (b"", HEADER):
        try:
            parse(begun + data)
        except Damaged:
            assert not begun


def test_a_newer_format_is_told_apart():
    data = log(GOLDEN)
    with pytest.raises(Newer, match="format 2"):
        parse(data[:4] + b"\2" + data[5:])
    packed = segment.compress(data, 4, 7, 8)
    with pytest.raises(Newer):
        segment.decompress(packed[:4] + b"\2" + packed[5:])


def test_a_bomb_is_not_unpacked():
    import zlib

    head = segment.compress(HEADER, 1, 1, 1)[:HEADER_Z_BYTES]
    bomb = head + zlib.compress(bytes(100_000_000))
    with pytest.raises(Damaged):
        segment.decompress(bomb)
