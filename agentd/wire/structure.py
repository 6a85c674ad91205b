"""The structure of a frame's body, from its bytes alone; the thin client imports it when a reply is long or deep."""

from __future__ import annotations

from agentd.wire.frames import MAX_DEPTH, MAX_ENTRIES, ProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.wire.frames import Buffer

_BYTES_PER_VALUE = 8  # a frame may hold one value for every 8 bytes of the limit,
_BYTES_PER_CONTAINER = 32  # and one array or map for every 32: what they grow to in memory stays bounded


def _steps() -> list[int]:
    """Return by first byte how long a value is, 0 where that is not all there is to say."""
    steps = [1] * 256
    for byte in range(0x80, 0xA0):
        steps[byte] = 0
    for length in range(32):
        steps[0xA0 + length] = 1 + length
    for byte in (0xC1, *range(0xC4, 0xCA), *range(0xD4, 0xE0)):
        steps[byte] = 0
    for byte, step in zip(range(0xCA, 0xD4), (5, 9, 2, 3, 5, 9, 2, 3, 5, 9), strict=True):
        steps[byte] = step
    return steps


_STEPS = _steps()
_LONG = {  # first byte -> bytes of the length that follows, values per entry (0: it counts bytes)
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0),  # binary
    0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0),  # text
    0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2),  # arrays, maps
}  # fmt: skip


def check_structure(body: Buffer, max_frame_bytes: int) -> None:
    """Refuse what is too deep or would grow too much, from its bytes alone: nothing is built before it is known."""
    position, left, size = 0, 1, len(body)
    values, containers = max_frame_bytes // _BYTES_PER_VALUE, max_frame_bytes // _BYTES_PER_CONTAINER  # still allowed
    outer: list[int] = []  # how many values are left to come in each array or map around this one
    while True:
        while not left:
            if not outer:
                return
            left = outer.pop()
        if position >= size:
            raise ProtocolError("a frame ends within a value")
        left -= 1
        step = _STEPS[body[position]]
        if step:
            position += step
            continue
        first = body[position]
        if first < 0xA0:  # a small map or array: here, for a frame may hold very many
            position += 1
            inside = first & 15 if first >= 0x90 else 2 * (first & 15)
        else:
            position, inside = _open(body, position)
            if inside < 0:
                continue
        values -= inside
        containers -= 1
        if values < 0 or containers < 0:
            raise ProtocolError("a frame holds too many values")
        if len(outer) >= MAX_DEPTH:
            raise ProtocolError(f"a frame is nested deeper than {MAX_DEPTH}")
        if inside:
            outer.append(left)
            left = inside


def _open(body: Buffer, position: int) -> tuple[int, int]:
    """Return where to go on, and how many values the array or map here holds, -1 for what holds none."""
    first = body[position]
    if first < 0xA0:
        return position + 1, first & 15 if first >= 0x90 else 2 * (first & 15)
    if first not in _LONG:
        raise ProtocolError(f"extension types are not used here (byte {first:#04x})")
    width, per_entry = _LONG[first]
    after = position + 1 + width
    length = int.from_bytes(body[position + 1 : after], "big")
    if per_entry and length > MAX_ENTRIES:
        raise ProtocolError(f"an array or a map has more than {MAX_ENTRIES} entries")
    return (after, per_entry * length) if per_entry else (after + length, -1)
