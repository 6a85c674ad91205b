"""HELLO: which version, and who is it."""

from __future__ import annotations

from typing import Any

from structlog.typing import FilteringBoundLogger

from agentd.config import MAX_FRAME_LIMIT_BYTES
from agentd.doors.peers import Peer
from agentd.doors.shared import Identify
from agentd.errors import AgentdError, InternalError, InvalidValue, Unauthenticated, VersionMismatch
from agentd.records import Caller
from agentd.wire import HELLO, PROTOCOL


def greeted(frame: list[Any], peer: Peer, identify: Identify, log: FilteringBoundLogger) -> tuple[Caller, int]:
    """Return the caller that a first frame makes of a peer, and the largest reply it takes, in bytes."""
    if frame[0] != HELLO:
        raise Unauthenticated("the first frame must be HELLO", hint="send [0, {v: [1], client: name}] first")
    versions, token, max_reply_bytes = (frame[1].get(name) for name in ("v", "token", "max_frame"))
    if not isinstance(versions, list) or PROTOCOL not in versions:
        raise VersionMismatch(
            f"this agentd speaks protocol versions [{PROTOCOL}] and you speak {versions!r}"[:200],
            hint="use a client of the same version as the daemon",
        )
    if not isinstance(token, str | None) or not isinstance(max_reply_bytes, int | None):
        raise InvalidValue("HELLO: token is a text and max_frame a number", field="$.token")
    if max_reply_bytes is None:
        max_reply_bytes = MAX_FRAME_LIMIT_BYTES
    return _identified(peer, token, identify, log), min(max(max_reply_bytes, 0), MAX_FRAME_LIMIT_BYTES)


def _identified(peer: Peer, token: str | None, identify: Identify, log: FilteringBoundLogger) -> Caller:
    try:
        return identify(peer, token)
    except AgentdError:
        raise
    except Exception as error:
        log.error("rpc.identify_failed", pid=peer.pid, exc_info=True)
        raise InternalError(f"agentd could not tell who you are: {error}; see the daemon's log") from error
