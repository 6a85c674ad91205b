"""Frames: bytes <-> msgpack arrays, sans-I/O; the thin client, the door and the tests share it.

frame   := length (u32, big-endian) body        length is checked before a byte is kept
body    := one msgpack array, its first entry says what it is:

HELLO   [0, map]                                first, either way
CALL    [1, id, method, params, options?]
RESULT  [2, id, result]                         the answer, also the end of a stream
ERROR   [3, id, code, message, data?]           id 0: about the connection, which then closes
ITEM    [4, id, seq, payload]                   of a stream
CREDIT  [5, id, n]                              n more items may be sent; n is not negative
CANCEL  [6, id]
NOTE    [7, method, params]                     either way, no answer
PING    [8, x] -> PONG [9, x]
"""

from __future__ import annotations

from agentd.errors import InvalidValue, OverLimit
from agentd.wire import (
    CALL,
    CANCEL,
    CREDIT,
    ERROR,
    HELLO,
    ITEM,
    MAX_FRAME_BYTES,
    NOTE,
    PING,
    PONG,
    RESULT,
    SMALL_BYTES,
    framed,
    plain,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Buffer = bytes | bytearray | memoryview
    Quick = Callable[[bytes | bytearray], list[Any] | None]  # of a body

MAX_DEPTH = 32
MAX_ENTRIES = 65_536  # of one array or map

_SHAPES: dict[int, tuple[type, ...]] = {  # what follows the kind; more may follow that
    HELLO: (dict,),
    RESULT: (int, object),
    ERROR: (int, str, str),
    ITEM: (int, int, object),
    CREDIT: (int, int),
    CANCEL: (int,),
    NOTE: (str, object),
    PING: (object,),
    PONG: (object,),
}


class ProtocolError(InvalidValue):
    """Raised when a peer's bytes are no frames; nothing after them can be understood.

    `frames` are the whole ones that came before the fault in the same bytes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="the connection is closed; see the protocol's limits")
        self.frames: list[list[Any]] = []


def encode(body: list[Any], max_frame_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Return the body as one frame; raises OverLimit when it is too large and InvalidValue when it is not data."""
    packed = pack(body)
    if len(packed) > max_frame_bytes:
        raise OverLimit(
            f"the request is {len(packed)} bytes long and {max_frame_bytes} are allowed", hint="send it in parts"
        )
    return framed(packed)


def pack(value: Any) -> bytes:
    """Return a value as msgpack; raises InvalidValue when it is not made of maps, lists, texts, numbers."""
    try:
        packed = _packb(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidValue(f"a value cannot be sent: {error}", hint="send maps, lists, texts and numbers") from None
    return packed


class FrameReader:
    """Cuts a stream of bytes into checked frames; after a ProtocolError it gives that error for ever."""

    __slots__ = ("_fault", "_quick", "max_frame_bytes", "pending")

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES, quick: Quick | None = None) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._quick = quick  # decodes the small bodies that it is sure of, and leaves the others
        self.pending = bytearray()  # bytes that wait for the rest of their frame
        self._fault = ""  # in words: an exception that is kept keeps the bytes that it was raised over

    def feed(self, data: bytes, most: int | None = None) -> list[list[Any]]:
        """Return the frames that are whole now, at most `most`; the others come with the next feed, of b'' too."""
        if self._fault:
            raise ProtocolError(self._fault)
        pending, quick = self.pending, self._quick
        if pending:
            pending += data
        source = pending or data
        frames: list[list[Any]] = []
        start, size = 0, len(source)
        try:
            while size - start >= 4 and len(frames) != most:
                (length,) = _size_at(source, start)
                if length > self.max_frame_bytes:
                    raise ProtocolError(f"a frame of {length} bytes; at most {self.max_frame_bytes} are allowed")
                end = start + 4 + length
                if end > size:
                    break
                frame = quick(source[start + 4 : end]) if quick is not None and length <= SMALL_BYTES else None
                frames.append(frame or _decode(source, start + 4, end, self.max_frame_bytes))
                start = end
        except ProtocolError as error:
            error.frames = frames
            self._fault = error.message
            self.pending = bytearray()
            raise
        if pending:
            del pending[:start]
        elif start < size:
            pending += data[start:]
        return frames

    @property
    def more(self) -> bool:
        """Tell whether a whole frame waits, because `most` stopped the last feed."""
        return len(self.pending) >= 4 and len(self.pending) - 4 >= _size_at(self.pending, 0)[0]


_NOT_PLAIN = {*range(0x80, 0xA0), *range(0xDC, 0xE0), *range(0xC7, 0xCA), *range(0xD4, 0xD9)}
_PLAIN = bytes(sorted({*range(256)} - _NOT_PLAIN))  # what cannot begin an array, a map or an extension


def _decode(source: bytes | bytearray, start: int, end: int, max_frame_bytes: int) -> list[Any]:
    if end - start > SMALL_BYTES:
        with memoryview(source) as whole, whole[start:end] as view:
            _check_structure(view, max_frame_bytes)
            return _checked(_unpack(view))
    body = source[start:end]
    if len(body.translate(None, _PLAIN)) > MAX_DEPTH:  # with fewer that open anything it is neither deep nor large
        _check_structure(body, max_frame_bytes)
    return _checked(_unpack(body))


def _check_structure(body: Buffer, max_frame_bytes: int) -> None:
    from agentd.wire.structure import check_structure

    check_structure(body, max_frame_bytes)


def _unpack(body: Buffer) -> Any:
    try:
        return _unpackb(body)
    except ValueError as error:
        raise ProtocolError(f"a frame is not msgpack as agreed: {error or type(error).__name__}") from None


def _first_packb(value: Any) -> bytes:
    if _is_by_hand():
        try:
            return plain.packed(value)
        except plain.NotPlain:
            pass
    use_library()
    return _packb(value)


def _first_unpackb(body: Buffer) -> Any:
    if len(body) <= SMALL_BYTES and _is_by_hand():
        try:
            return plain.unpacked(bytes(body))
        except plain.NotPlain:
            pass
    use_library()
    return _unpackb(body)


def _is_by_hand() -> bool:
    """Count one more value; tells whether it is one of the few before the library is worth its import."""
    global _by_hand_left
    _by_hand_left -= 1
    return _by_hand_left >= 0


def use_library() -> None:
    """Import msgpack and struct, and leave everything from now on to them; for a process that has much to do."""
    global _packb, _unpackb, _size_at
    from functools import partial
    from struct import Struct

    from msgpack import packb, unpackb

    _size_at = Struct(">I").unpack_from

    limits = {"max_ext_len": 0, "max_array_len": MAX_ENTRIES, "max_map_len": MAX_ENTRIES}
    _packb, _unpackb = packb, partial(unpackb, object_pairs_hook=_map, ext_hook=_no_ext, **limits)


def _first_size_at(source: Buffer, start: int) -> tuple[int]:
    return (int.from_bytes(source[start : start + 4], "big"),)


_by_hand_left = 16
_size_at: Callable[[Buffer, int], tuple[Any, ...]] = _first_size_at
_packb: Callable[[Any], bytes] = _first_packb
_unpackb: Callable[[Buffer], Any] = _first_unpackb


def _no_ext(code: int, _data: bytes) -> Any:
    raise ProtocolError(f"extension types are not used here (type {code})")


def _map(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ProtocolError("a map names a key twice")
    try:
        "".join(values)  # the quickest way to see that every key is a str
    except TypeError:
        raise ProtocolError("a map has a key that is not a text") from None
    return values


def _checked(body: Any) -> list[Any]:
    """Return the body when its first entries are what its kind says."""
    if type(body) is not list or not body or type(body[0]) is not int:
        raise ProtocolError("a frame is an array that begins with its kind")
    kind, size = body[0], len(body)
    if kind == CALL:  # by hand: nearly every frame that a daemon reads
        fits = size > 3 and type(body[1]) is int and type(body[2]) is str
    else:
        types = _SHAPES.get(kind)
        fits = types is not None and size > len(types) and all(map(_is_a, body[1:], types))
        fits = fits and (kind != CREDIT or body[2] >= 0)
    if not fits or (type(body[1]) is int and body[1] < 0 and kind < PING):
        raise ProtocolError(f"a frame of kind {kind} does not look like this")
    return body


def _is_a(value: Any, wanted: type) -> bool:
    return wanted is object or type(value) is wanted
