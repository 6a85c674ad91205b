"""The client's side of one connection, sans-I/O; the blocking and the asynchronous client share it."""

from __future__ import annotations

from agentd.errors import AgentdError, VersionMismatch, from_wire
from agentd.wire import CALL, CANCEL, ERROR, HELLO, ITEM, MAX_REPLY_BYTES, NOTE, PING, PONG, PROTOCOL, RESULT, opening
from agentd.wire.frames import FrameReader, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Conversation:
    """Turns requests to bytes, and bytes to each request's frames."""

    def __init__(self, token: str | None) -> None:
        self._opening = encode(opening(token))
        self._reader = FrameReader(MAX_REPLY_BYTES)
        self._last_id = 0
        self._waiting: dict[int, list[list[Any]]] = {}  # request -> its frames that nobody took yet
        self.server: dict[str, Any] = {}
        self.leaving = False  # the daemon said goaway
        self.to_send = b""  # what reading made necessary to answer

    @property
    def under_way(self) -> int:
        """Return how many requests have no last frame yet that somebody took."""
        return len(self._waiting)

    def request(self, method: str, params: Any, options: dict[str, Any] | None = None) -> tuple[int, bytes]:
        """Return a new request's id and bytes."""
        call_id = self._last_id + 1
        frame = encode([CALL, call_id, method, params, options] if options else [CALL, call_id, method, params])
        self._last_id = call_id
        self._waiting[call_id] = []
        return call_id, frame

    def opened(self, data: bytes) -> bytes:
        """Return what to write, HELLO in front of the very first; which need not be the first request."""
        opening, self._opening = self._opening, b""
        return opening + data

    def forget(self, call_id: int) -> bytes:
        """Drop a request that nobody waits for any more; returns the frame that tells the daemon."""
        return encode([CANCEL, call_id]) if self._waiting.pop(call_id, None) is not None else b""

    def received(self, data: bytes) -> None:
        """Take bytes from the daemon; raises ProtocolError, and the error that the daemon ends the connection with."""
        for frame in self._reader.feed(data):
            kind = frame[0]
            if kind in (RESULT, ERROR, ITEM):
                if frame[1] in self._waiting:
                    self._waiting[frame[1]].append(frame)
                elif kind == ERROR and not frame[1]:
                    raise _as_error(frame)
            elif kind == HELLO:
                self.server = _spoken(frame[1])
            elif kind == NOTE and frame[1] == "goaway":
                self.leaving = True
            elif kind == PING:
                self.to_send += encode([PONG, frame[1]])

    def take(self, call_id: int) -> list[Any] | None:
        """Return the request's next frame, None when there is none yet; the last one ends the request."""
        frames = self._waiting[call_id]
        if not frames:
            return None
        frame = frames.pop(0)
        if frame[0] != ITEM:
            del self._waiting[call_id]
        return frame


def outcome(frame: list[Any]) -> Any:
    """Return the result in a RESULT frame; raises what an ERROR frame says."""
    if frame[0] == ERROR:
        raise _as_error(frame)
    return frame[2]


def _spoken(server: dict[str, Any]) -> dict[str, Any]:
    """Return what the daemon says of itself; raises VersionMismatch when it chose a version that was not offered."""
    if server.get("v") != PROTOCOL:
        raise VersionMismatch(
            f"the daemon speaks protocol version {server.get('v')!r} and this client [{PROTOCOL}]"[:200],
            hint="use the client that came with the daemon, or `agentd restart` after an upgrade",
        )
    return server


def _as_error(frame: list[Any]) -> AgentdError:
    data = frame[4] if len(frame) > 4 and isinstance(frame[4], dict) else {}
    return from_wire(frame[2], frame[3], data)
