"""The protocol, sans-I/O: bytes in, objects out, and the table of calls."""

from __future__ import annotations

PROTOCOL = 1
MAX_FRAME_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 16 * 1024 * 1024  # what a client accepts from its daemon
HELLO, CALL, RESULT, ERROR, ITEM, CREDIT, CANCEL, NOTE, PING, PONG = range(10)  # what a frame's first entry is
