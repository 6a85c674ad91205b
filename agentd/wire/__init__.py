"""The protocol, sans-I/O: bytes in, objects out, and the table of calls."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PROTOCOL = 1
MAX_FRAME_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 16 * 1024 * 1024  # what a client accepts from its daemon
SMALL_BYTES = 4096  # a body up to that is decoded by shorter ways
DEFAULT_TIMEOUT_S = 30.0  # how long a client waits for an answer
HELLO, CALL, RESULT, ERROR, ITEM, CREDIT, CANCEL, NOTE, PING, PONG = range(10)  # what a frame's first entry is


def opening(token: str | None) -> list[Any]:
    """Return what a client says first; with a token it comes as an agent."""
    hello: dict[str, Any] = {"v": [PROTOCOL], "client": "agentd-python", "max_frame": MAX_REPLY_BYTES}
    if token is not None:
        hello["token"] = token
    return [HELLO, hello]


def framed(packed: bytes) -> bytes:
    """Return a packed body as a frame."""
    return len(packed).to_bytes(4, "big") + packed
