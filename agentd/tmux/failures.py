"""What can go wrong with tmux."""

from __future__ import annotations

from agentd.errors import AgentdError, AgentGone, DeadlineExceeded, Unavailable


class TmuxUnavailable(Unavailable):
    """Raised when the tmux server cannot be reached; a command that was under way may or may not have happened."""


class TmuxTimeout(DeadlineExceeded):
    """Raised when tmux did not answer in time; what was asked may still happen."""


class TmuxRefused(AgentdError):
    """Raised when tmux answered a command with an error; nothing was done."""

    def __init__(self, command: str, text: str) -> None:
        super().__init__(f"tmux refused {command}: {text or 'it gave no reason'}")
        self.command = command
        self.text = text

    @property
    def missing(self) -> bool:
        """Tell whether the thing it was asked about does not exist (any more)."""
        return self.text.startswith(("can't find", "no such", "no current"))


class PaneDead(AgentGone):
    """Raised when the pane's program has ended, or the pane is gone."""


class Desync(AgentdError):
    """Raised when a control connection says something that no tmux says; the connection must be dropped."""
