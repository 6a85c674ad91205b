"""Nearly every frame that a daemon reads, decoded by msgspec: a call whose parameters and options hold no map or list.

Such a frame has two or three bytes that can begin a map, an array or an extension: its own, and the ones of its maps.
With no other such byte it is flat, so nothing can be deep or large in it. Whatever is not quite so is left to
`wire.frames`, whose answer is the same and whose errors are the ones that are told.
"""

from __future__ import annotations

from typing import Any

import msgspec

from agentd.wire.frames import CALL

_call = msgspec.msgpack.Decoder(tuple[int, int, str, dict[str, Any]]).decode
_call_with_options = msgspec.msgpack.Decoder(tuple[int, int, str, dict[str, Any], dict[str, Any]]).decode
_MAP = 0x80  # and the number of its entries, up to 15
_MAPS_END = 0x90


def quick_call(body: bytes | bytearray, marks: bytes | bytearray) -> list[Any] | None:
    """Return a flat call, None for anything else."""
    frame: tuple[Any, ...]
    try:
        if len(marks) == 2:
            frame = _call(body)
        elif len(marks) == 3:
            frame = _call_with_options(body)
            if marks[2] >= _MAPS_END or marks[2] - _MAP != len(frame[4]):
                return None
        else:
            return None
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    # A map that names a key twice has fewer entries than it says.
    if marks[1] >= _MAPS_END or marks[1] - _MAP != len(frame[3]) or frame[0] != CALL or frame[1] < 0:
        return None
    return list(frame)
