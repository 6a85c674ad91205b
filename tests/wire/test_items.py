"""A stream's items are the frames that packing each by itself would give, whatever the stream and its place in it."""

from __future__ import annotations

import msgpack
from hypothesis import given
from hypothesis import strategies as st

from agentd.wire import ITEM
from agentd.wire.frames import FrameReader
from agentd.wire.items import Items

IDS = st.integers(0, 2**63)
PAYLOADS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=300), max_size=3), max_size=5)


@given(PAYLOADS, IDS, IDS, IDS)
def test_the_same_items_on_two_streams(payloads, one_id, other_id, first_seq):
    items = Items([msgpack.packb(payload) for payload in payloads])
    assert len(items) == len(payloads)
    for call_id in (one_id, other_id, one_id):
        frames = items.frames(call_id, first_seq)
        read = FrameReader().feed(bytes(frames))
        assert read == [[ITEM, call_id, seq, payload] for seq, payload in enumerate(payloads, first_seq)]


@given(PAYLOADS)
def test_the_largest_frame_is_known(payloads):
    items = Items([msgpack.packb(payload) for payload in payloads])
    sizes, data = [0], bytes(items.frames(1, 1))
    while data:
        sizes.append(int.from_bytes(data[:4], "big"))
        data = data[4 + sizes[-1] :]
    assert items.largest_bytes == max(sizes)
