"""Every error: one class, one sentence, one wire code, retryable or not, one exit code.

Imported by the thin client, so it imports nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # what typing.TYPE_CHECKING is, without importing typing
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, ClassVar

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NO_DAEMON = 3
EXIT_PARTIAL = 4
EXIT_NOT_FOUND = 5
EXIT_TIMED_OUT = 6
EXIT_NOT_ALLOWED = 7


class AgentdError(Exception):
    """Raised when agentd cannot do what was asked; the root of every error of ours.

    `message` says what was wrong and what was kept, `hint` what to do next, `field` which parameter is meant.
    """

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False
    exit_code: ClassVar[int] = EXIT_FAILED

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        field: str | None = None,
        retry_after_ms: int | None = None,
    ) -> None:
        self.message = _one_line(message)
        super().__init__(self.message)
        self.hint = hint
        self.field = field
        self.retry_after_ms = retry_after_ms

    def data(self) -> dict[str, Any]:
        """Return what the wire carries beside code and message."""
        values: dict[str, Any] = {"retryable": self.retryable}
        for name in ("hint", "field", "retry_after_ms"):
            value = getattr(self, name)
            if value is not None:
                values[name] = value
        return values

    def as_json(self) -> dict[str, Any]:
        """Return the error object that `--json` promises."""
        return {"code": self.code, "message": self.message, "hint": self.hint, "retryable": self.retryable}


def _one_line(text: str) -> str:
    """Return the text on one line: it may quote what somebody gave, newlines, escape sequences and all."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class UsageError(AgentdError):
    """Raised when a command line cannot be understood."""

    code = "usage"
    exit_code = EXIT_USAGE


class UnknownMethod(AgentdError):
    """Raised when a call names no method of the table."""

    code = "unknown_method"
    exit_code = EXIT_USAGE


class InvalidValue(AgentdError):
    """Raised when a parameter, file or configuration value cannot be accepted."""

    code = "invalid"
    exit_code = EXIT_USAGE


class NotFound(AgentdError):
    """Raised when a named thing (message, team, profile) does not exist."""

    code = "not_found"
    exit_code = EXIT_NOT_FOUND


class UnknownTarget(AgentdError):
    """Raised when a TARGET names no agent."""

    code = "unknown_target"
    exit_code = EXIT_NOT_FOUND


class AlreadyExists(AgentdError):
    """Raised when a name is taken."""

    code = "exists"


class Denied(AgentdError):
    """Raised when the caller may not do this."""

    code = "denied"
    exit_code = EXIT_NOT_ALLOWED


class Unauthenticated(AgentdError):
    """Raised when a token is unknown or no longer valid."""

    code = "unauthenticated"
    exit_code = EXIT_NOT_ALLOWED


class OverLimit(AgentdError):
    """Raised when a size or count is over a configured limit."""

    code = "over_limit"
    exit_code = EXIT_NOT_ALLOWED


class QuotaExceeded(AgentdError):
    """Raised when an inbox or a sender has used up its share."""

    code = "quota"
    exit_code = EXIT_NOT_ALLOWED


class Busy(AgentdError):
    """Raised when a bounded queue is full for the moment."""

    code = "busy"
    retryable = True


class Conflict(AgentdError):
    """Raised when the thing is not in a state that allows this."""

    code = "conflict"


class DeadlineExceeded(AgentdError):
    """Raised when something did not happen in the time allowed."""

    code = "deadline"
    retryable = True
    exit_code = EXIT_TIMED_OUT


class Cancelled(AgentdError):
    """Raised when the caller withdrew the call."""

    code = "cancelled"
    retryable = True


class Unavailable(AgentdError):
    """Raised when the daemon, or a part that it needs, cannot be reached."""

    code = "unavailable"
    retryable = True
    exit_code = EXIT_NO_DAEMON


class StorageError(AgentdError):
    """Raised when the disk refused; nothing of the call was acknowledged."""

    code = "storage"
    retryable = True


class StorageFull(StorageError):
    """Raised when the disk has no room for more messages."""

    code = "storage_full"
    exit_code = EXIT_NOT_ALLOWED


class LoopLimit(AgentdError):
    """Raised when messages between agents go round in a loop."""

    code = "loop_limit"
    exit_code = EXIT_NOT_ALLOWED


class RateLimit(AgentdError):
    """Raised when an agent answers another, or a caller calls, more often than is allowed."""

    code = "rate_limit"
    retryable = True
    exit_code = EXIT_NOT_ALLOWED


class StaleTarget(AgentdError):
    """Raised when a pane id belongs to an earlier tmux server."""

    code = "stale_target"


class AgentGone(AgentdError):
    """Raised when the agent's program is no longer running."""

    code = "agent_gone"


class NotDelivered(AgentdError):
    """Raised when a message could not be submitted to its agent; it is kept."""

    code = "not_delivered"


class VersionMismatch(AgentdError):
    """Raised when the peer or a file speaks a version we do not."""

    code = "version"


class InternalError(AgentdError):
    """Raised when agentd itself is at fault."""

    code = "internal"


def _tree(root: type[AgentdError]) -> list[type[AgentdError]]:
    return [root, *(below for child in root.__subclasses__() for below in _tree(child))]


WIRE_CODES: dict[str, type[AgentdError]] = {
    cls.code: cls for cls in reversed(_tree(AgentdError)) if cls is not AgentdError
}


def from_wire(code: str, message: str, data: Mapping[str, Any] | None = None) -> AgentdError:
    """Return the error that a reply carries; a code we do not know becomes InternalError with the code in it."""
    values = data or {}
    cls = WIRE_CODES.get(code)
    if cls is None:
        cls, message = InternalError, f"{code}: {message}"
    return cls(
        message,
        hint=values.get("hint"),
        field=values.get("field"),
        retry_after_ms=values.get("retry_after_ms"),
    )
