"""A stream's items as frames, packed once for all the streams on which they go out together."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from msgspec import Raw

from agentd.wire import ITEM

# The length, an array of four, ITEM, the call's id, the item's number; both as u64, so that each fits its place.
_HEAD = Struct(">IBBBQBQ")
_ARRAY_OF_4, _U64 = 0x94, 0xCF
_IDS_AT = 7  # behind the length and three bytes
_fill = Struct(">QBQ").pack_into


class Items:
    """Items that are there at once, as frames in which a call's id and the first item's number are still to come."""

    __slots__ = ("_frames", "_places", "largest_bytes")

    def __init__(self, payloads: Sequence[bytes | Raw]) -> None:
        frames, places = bytearray(), list[int]()
        largest_bytes = 0
        for payload in payloads:
            size_bytes = _HEAD.size - 4 + len(payload)
            if size_bytes > largest_bytes:
                largest_bytes = size_bytes
            places.append(len(frames) + _IDS_AT)
            frames += _HEAD.pack(size_bytes, _ARRAY_OF_4, ITEM, _U64, 0, _U64, 0)
            frames += payload
        self._frames = frames
        self._places = places
        self.largest_bytes = largest_bytes

    def __len__(self) -> int:
        return len(self._places)

    def frames(self, call_id: int, first_seq: int) -> bytearray:
        """Return the frames for one stream."""
        filled, fill, u64 = self._frames[:], _fill, _U64
        for seq, place in enumerate(self._places, first_seq):
            fill(filled, place, call_id, u64, seq)
        return filled
