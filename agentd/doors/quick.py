"""Nearly every frame that a daemon reads, decoded by msgspec: a call whose parameters hold no map within a map.

Parameters that are one text, number, flag or list of these become what the call's row of the table says, at once;
others that are as plain become a map. Nothing in either can be deep, large or an extension. Whatever is not quite so is
left to `wire.frames`, whose answer is the same and whose errors are the ones that are told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import inspect

from agentd.wire import CALL
from agentd.wire.calls import CALLS, Params
from agentd.wire.frames import use_library

_Plain = int | float | str | bool | None
_ABSENT = msgspec.Raw()
_MAP = 0x80  # and the number of its entries, up to 15
_MAPS_END = 0x90


class _Call(msgspec.Struct, array_like=True, tag=CALL, forbid_unknown_fields=True, gc=False):
    id: int
    method: str
    params: msgspec.Raw
    options: msgspec.Raw = _ABSENT


_call = msgspec.msgpack.Decoder(_Call).decode
_map = msgspec.msgpack.Decoder(dict[str, _Plain | list[_Plain]]).decode
_PLAIN_TYPES = (
    inspect.IntType,
    inspect.FloatType,
    inspect.StrType,
    inspect.BoolType,
    inspect.NoneType,
    inspect.LiteralType,
)
_FAULTS = (msgspec.DecodeError, UnicodeDecodeError)


def quick_call(body: bytes | bytearray) -> list[Any] | None:
    """Return a plain call, None for anything else."""
    try:
        call = _call(body)
        call_id, method, params, options = call.id, call.method, call.params, call.options
        first = body[-len(params) - len(options)]
        if first <= _MAP + 1 and (typed := _ROWS.get(method)) is not None:
            values: Any = typed(params)
        else:
            values = _whole_map(params, first)
        if values is None or call_id < 0:
            return None
        if not options:
            return [CALL, call_id, method, values]
        given = _whole_map(options, body[-len(options)])
    except _FAULTS:
        return None
    # A key among the options is a parameter, and is put into their map.
    return None if given is None or "key" in given else [CALL, call_id, method, values, given]


def _whole_map(packed: msgspec.Raw, first: int) -> dict[str, Any] | None:
    """Return a map of plain values; None when it names a key twice: it has fewer entries than its first byte says."""
    values = _map(packed)
    return values if first < _MAPS_END and first - _MAP == len(values) else None


def _is_plain(kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.UnionType):
        return all(map(_is_plain, kind.types))
    if isinstance(kind, inspect.Metadata):
        return _is_plain(kind.type)
    if isinstance(kind, inspect.ListType):
        return _is_plain(kind.item_type)
    return isinstance(kind, _PLAIN_TYPES)


def _plain_rows() -> dict[str, Callable[[msgspec.Raw], Params]]:
    """Return what decodes the parameters of each row whose type alone keeps them plain."""
    return {
        name: msgspec.msgpack.Decoder(row.params).decode
        for name, row in CALLS.items()
        if all(_is_plain(field.type) for field in cast("inspect.StructType", inspect.type_info(row.params)).fields)
    }


_ROWS = _plain_rows()
use_library()
