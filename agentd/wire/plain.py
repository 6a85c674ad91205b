"""msgpack of a few small plain values, by hand: to import the library takes a process as long as a thousand of them.

Whatever is not short, whole and plain is not looked at any further: the library has the last word on it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_MOST_PARTS = 256
_CONSTANTS: dict[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}
_UNSIGNED = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}  # first byte -> how many follow
_SIGNED = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
_TEXTS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
_ARRAYS = {0xDC: 2, 0xDD: 4}
_MAPS = {0xDE: 2, 0xDF: 4}


class NotPlain(Exception):
    """Raised for what is left to the library."""


def packed(value: Any) -> bytes:
    """Return a value as msgpack, byte for byte as the library does."""
    parts: list[bytes] = []
    _pack(value, parts)
    return b"".join(parts)


def _pack(value: Any, parts: list[bytes]) -> None:
    if len(parts) > _MOST_PARTS:
        raise NotPlain
    kind = type(value)
    if kind is str:
        text = _encoded(value)
        parts += (_head(len(text), 0xA0, 31, _TEXTS), text)
    elif kind is int:
        parts.append(_integer(value))
    elif value is None or kind is bool:
        parts.append(b"\xc0" if value is None else b"\xc3" if value else b"\xc2")
    elif kind is float:
        parts.append(b"\xcb" + _double(value))
    elif kind is list:
        parts.append(_head(len(value), 0x90, 15, _ARRAYS))
        for each in value:
            _pack(each, parts)
    elif kind is dict:
        parts.append(_head(len(value), 0x80, 15, _MAPS))
        for name, each in value.items():
            _pack(name, parts)
            _pack(each, parts)
    else:
        raise NotPlain


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise NotPlain from None


def _head(size: int, short: int, most: int, longer: dict[int, int]) -> bytes:
    if size <= most:
        return bytes((short | size,))
    for first, width in longer.items():
        if size < 1 << 8 * width:
            return bytes((first,)) + size.to_bytes(width, "big")
    raise NotPlain


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes((value & 0xFF,))
    for first, width in (_UNSIGNED if value > 0 else _SIGNED).items():
        if (value if value > 0 else -value - 1) < 1 << (8 * width - (value < 0)):
            return bytes((first,)) + value.to_bytes(width, "big", signed=value < 0)
    raise NotPlain


def _double(value: float) -> bytes:
    from struct import pack

    return pack(">d", value)


def unpacked(body: bytes) -> Any:
    """Return the one value that the bytes are."""
    try:
        value, end = _unpack(body, 0)
    except (IndexError, UnicodeDecodeError):
        raise NotPlain from None
    if end != len(body):  # more bytes, or fewer: then something was read beyond them
        raise NotPlain
    return value


def _unpack(body: bytes, at: int) -> tuple[Any, int]:
    first, at = body[at], at + 1
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 0x100, at
    if first < 0x90:
        return _map(body, at, first & 15)
    if first < 0xA0:
        return _array(body, at, first & 15)
    if first < 0xC0:
        return _text(body, at, first & 31)
    return _longer(body, at, first)


def _longer(body: bytes, at: int, first: int) -> tuple[Any, int]:
    if first in _CONSTANTS:
        return _CONSTANTS[first], at
    if first == 0xCB:
        return _from_double(body[at : at + 8]), at + 8
    for widths, read in ((_TEXTS, _text), (_ARRAYS, _array), (_MAPS, _map)):
        if first in widths:
            size, at = _number(body, at, widths[first], signed=False)
            return read(body, at, size)
    if first in _UNSIGNED:
        return _number(body, at, _UNSIGNED[first], signed=False)
    if first in _SIGNED:
        return _number(body, at, _SIGNED[first], signed=True)
    raise NotPlain


def _from_double(data: bytes) -> float:
    """Return a number of IEEE 754; `struct` would take a process as long as ten modules of ours."""
    bits = int.from_bytes(data, "big")
    exponent, fraction = bits >> 52 & 0x7FF, bits & (1 << 52) - 1
    if exponent == 0x7FF:  # infinite, or not a number
        raise NotPlain
    size = fraction * 2.0**-1074 if not exponent else (fraction | 1 << 52) * 2.0 ** (exponent - 1075)
    return -size if bits >> 63 else size


def _number(body: bytes, at: int, width: int, *, signed: bool) -> tuple[int, int]:
    return int.from_bytes(body[at : at + width], "big", signed=signed), at + width


def _text(body: bytes, at: int, size: int) -> tuple[str, int]:
    return str(body[at : at + size], "utf-8"), at + size


def _array(body: bytes, at: int, size: int) -> tuple[list[Any], int]:
    values = []
    for _ in range(size):
        value, at = _unpack(body, at)
        values.append(value)
    return values, at


def _map(body: bytes, at: int, size: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    for _ in range(size):
        name, at = _unpack(body, at)
        if type(name) is not str or name in values:
            raise NotPlain
        values[name], at = _unpack(body, at)
    return values, at
