"""The one call of a process that makes no other, without the client, whose modules take longer than the call.

Only what nearly always happens happens here. Where a daemon is to be started, waited for or asked again, the client
does it, which is told by NotMade; what the client would not do twice is not done twice by this either.
"""

from __future__ import annotations

import os
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812  the public class costs the hot commands 4 ms

from agentd.errors import Unavailable
from agentd.paths import socket_path
from agentd.wire import (
    CALL,
    DEFAULT_TIMEOUT_S,
    ERROR,
    HELLO,
    MAX_REPLY_BYTES,
    PROTOCOL,
    RESULT,
    SMALL_BYTES,
    framed,
    opening,
    plain,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_READ_BYTES = 65_536
_ID = 1


class NotMade(Exception):
    """Raised when nothing was done, or nothing that cannot be done again."""


def ask(method: str, params: dict[str, Any]) -> Any:
    """Make a call that waits for nothing, and return its answer.

    Raises the error it ended with, and NotMade when the client is to make it.
    """
    try:
        request = b"".join(framed(plain.packed(body)) for body in (opening(_token()), [CALL, _ID, method, params]))
        sock = Socket(AF_UNIX, SOCK_STREAM)
    except (OSError, UnicodeError, plain.NotPlain):
        raise NotMade from None
    try:
        try:
            sock.settimeout(DEFAULT_TIMEOUT_S)
            sock.connect(socket_path(os.environ))
            sock.sendall(request)
        except OSError:  # not all of it went out, so it is no call
            raise NotMade from None
        return _answer(sock, method, params)
    finally:
        sock.close()


def _token() -> str | None:
    token_file = os.environ.get("AGENTD_TOKEN_FILE")
    if not token_file:
        return None
    with open(token_file, encoding="ascii") as file:
        return file.read().strip()


def _answer(sock: Socket, method: str, params: dict[str, Any]) -> Any:
    why: Unavailable | None = None
    try:
        for frame in _frames(sock):
            if frame[0] == RESULT and frame[1] == _ID:
                return frame[2]
            if frame[0] == HELLO and frame[1].get("v") != PROTOCOL:
                raise NotMade
            if frame[0] == ERROR:
                from agentd.wire.conversation import outcome

                outcome(frame)
    except TimeoutError:
        from agentd.calling import too_late

        raise too_late(method) from None
    except OSError:  # as good as an end
        pass
    except Unavailable as error:
        why = error
    from agentd.calling import may_repeat, outcome_unknown

    if may_repeat(method, params):
        raise NotMade
    raise why or outcome_unknown()


def _frames(sock: Socket) -> Iterator[list[Any]]:
    """Yield the frames that come, until the end."""
    buffer = bytearray()
    while data := sock.recv(_READ_BYTES):
        buffer += data
        while len(buffer) >= 4:
            end = 4 + int.from_bytes(buffer[:4], "big")
            if len(buffer) < end <= 4 + MAX_REPLY_BYTES:
                break
            yield _decoded(bytes(buffer[:end]))
            del buffer[:end]


def _is_usual(body: list[Any]) -> bool:
    """Tell whether it is a whole HELLO or RESULT; any other frame is for the reader of them all."""
    if len(body) == 2:
        return body[0] == HELLO and type(body[1]) is dict
    return len(body) == 3 and body[0] == RESULT


def _decoded(frame: bytes) -> list[Any]:
    if len(frame) <= SMALL_BYTES:
        try:
            body = plain.unpacked(frame[4:])
        except plain.NotPlain:
            body = None
        if type(body) is list and _is_usual(body):
            return body
    from agentd.wire.frames import FrameReader

    [body] = FrameReader(MAX_REPLY_BYTES).feed(frame)
    return body
