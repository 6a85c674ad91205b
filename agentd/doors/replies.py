"""The frames that the daemon sends, packed by msgspec, which knows dataclasses, structs and enums."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

import msgspec
from msgspec import Raw

from agentd.errors import AgentdError, OverLimit
from agentd.wire import ERROR, HELLO, NOTE, PONG, RESULT
from agentd.wire.items import Items

_encode = msgspec.msgpack.Encoder().encode
_size = Struct(">I").pack  # what every frame begins with


def framed(body: list[Any]) -> bytes:
    """Return a body as a frame."""
    packed = _encode(body)
    return _size(len(packed)) + packed


def result(call_id: int, value: Any, max_reply_bytes: int) -> bytes:
    """Return the answer to a call; raises OverLimit when it is more than the client takes."""
    if type(value) is Raw:
        return _result_packed(call_id, value, max_reply_bytes)
    packed = _encode((RESULT, call_id, value))
    if len(packed) > max_reply_bytes:
        raise too_large(len(packed), max_reply_bytes)
    return _size(len(packed)) + packed


def _result_packed(call_id: int, value: Raw, max_reply_bytes: int) -> bytes:
    """Return the same of what is packed already: it may be long, and is copied once."""
    head = _encode([RESULT, call_id, None])[:-1]  # without the byte of None
    size_bytes = len(head) + len(value)
    if size_bytes > max_reply_bytes:
        raise too_large(size_bytes, max_reply_bytes)
    return b"".join((_size(size_bytes), head, value))


def items(payloads: Sequence[Any]) -> Items:
    """Return items as frames for any stream."""
    return Items([payload if type(payload) is Raw else _encode(payload) for payload in payloads])


def error(call_id: int, fault: AgentdError) -> bytes:
    """Return a call's error, or with id 0 the connection's."""
    return framed([ERROR, call_id, fault.code, fault.message, fault.data()])


def hello(values: dict[str, Any]) -> bytes:
    """Return the answer to HELLO."""
    return framed([HELLO, values])


def note(method: str, params: dict[str, Any]) -> bytes:
    """Return what needs no answer."""
    return framed([NOTE, method, params])


def pong(value: Any) -> bytes:
    """Return the answer to PING."""
    return framed([PONG, value])


def too_large(size_bytes: int, max_reply_bytes: int) -> OverLimit:
    return OverLimit(
        f"the answer is {size_bytes} bytes long and the client takes {max_reply_bytes}", hint="ask for less at a time"
    )
