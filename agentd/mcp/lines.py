"""JSON-RPC on lines: bytes <-> checked messages, sans-I/O. Whatever comes in, what is wrong with it has a code."""

from __future__ import annotations

import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
MOST_LINE_BYTES = 8 * 1024 * 1024  # a message of 1 MB whose every character is escaped fits


class Fault(Exception):
    """Raised when a line, or a message on it, cannot be understood; `id` is of the request that it answers, if any."""

    def __init__(self, code: int, message: str, id_: Any = None, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.id = id_
        self.data = data

    def reply(self) -> dict[str, Any]:
        """Return the answer that tells of it."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.data is not None:
            error["data"] = self.data
        return {"jsonrpc": "2.0", "id": self.id, "error": error}


class Lines:
    """Cuts a stream of bytes into lines; of one that is too long nothing is kept but that it was."""

    def __init__(self, most_bytes: int = MOST_LINE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._begun = bytearray()
        self._skipping = False  # within a line that is too long

    def feed(self, data: bytes) -> list[bytes | None]:
        """Return the lines that are whole now, without empty ones; None stands for one that was too long."""
        *ends, rest = data.split(b"\n")
        found = [line for line in map(self._ended, ends) if line is None or line.strip()]
        self._add(rest)
        return found

    def _ended(self, end: bytes) -> bytes | None:
        self._add(end)
        line = None if self._skipping else bytes(self._begun)
        self._begun, self._skipping = bytearray(), False
        return line

    def _add(self, part: bytes) -> None:
        if self._skipping or len(self._begun) + len(part) > self._most_bytes:
            self._skipping = True
            self._begun = bytearray()
        else:
            self._begun += part


def read(line: bytes | None) -> Any:
    """Return what stands on a line: an object, or a list of what is to be checked one by one; raises Fault."""
    if line is None:
        raise Fault(INVALID_REQUEST, f"a message is longer than {MOST_LINE_BYTES} bytes")
    try:
        value = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise Fault(PARSE_ERROR, f"the line is not JSON: {error}"[:300]) from None
    if not isinstance(value, (dict, list)):
        raise Fault(INVALID_REQUEST, "a message is a JSON object")
    return value


def check(message: Any) -> Any:
    """Return the id of a request that is well formed, None for a message that wants no answer; raises Fault."""
    if not isinstance(message, dict):
        raise Fault(INVALID_REQUEST, "a message is a JSON object")
    id_ = message.get("id")
    answerable = id_ if is_id(id_) else None
    if message.get("jsonrpc") != "2.0":
        raise Fault(INVALID_REQUEST, 'a message says "jsonrpc": "2.0"', answerable)
    if "method" not in message and ("result" in message or "error" in message):
        return None  # an answer: we ask nothing, so that it is to nothing
    if not isinstance(message.get("method"), str):
        raise Fault(INVALID_REQUEST, "a message has a method, which is a text", answerable)
    if "id" in message and answerable is None:
        raise Fault(INVALID_REQUEST, "an id is a text or a whole number")
    if answerable is not None and not isinstance(params_of(message), dict):
        raise Fault(INVALID_PARAMS, "params is an object", answerable)
    return answerable


def params_of(message: dict[str, Any]) -> Any:
    """Return a message's parameters; none at all, and null, are no parameters."""
    params = message.get("params")
    return {} if params is None else params


def is_id(value: Any) -> bool:
    """Tell whether a value can be a request's id."""
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def result(id_: Any, value: dict[str, Any]) -> dict[str, Any]:
    """Return the answer to a request."""
    return {"jsonrpc": "2.0", "id": id_, "result": value}


def encode(reply: Any) -> bytes:
    """Return a reply, or a list of them, as one line; nothing in it is a raw control character or not ASCII."""
    return json.dumps(reply, separators=(",", ":")).encode() + b"\n"


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")
