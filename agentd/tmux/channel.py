"""What takes commands for a tmux server and gives their replies: an open control connection, or a process for each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from agentd.tmux.failures import TmuxRefused
from agentd.tmux.notation import Reply, command


class Channel(ABC):
    """One way to one server; each command has its own deadline and its own reply."""

    async def run(self, *arguments: str, timeout_s: float | None) -> list[str]:
        """Run one command and return the lines of its reply."""
        reply = await self.ask(command(*arguments), timeout_s=timeout_s)
        if not reply.ok:
            raise TmuxRefused(arguments[0], text_of(reply))
        return lines_of(reply)

    @abstractmethod
    async def ask(self, line: str, *, timeout_s: float | None) -> Reply:
        """Send one line with one command and return its reply, whatever it says."""

    @abstractmethod
    async def capture(self, line: str, facts: str, target: str, *, timeout_s: float | None) -> Reply:
        """Send a capture and a format about the same pane at once; `frame` of the reply is the expanded format."""

    @abstractmethod
    async def frame(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Send commands that together give any number of blocks, and return all their lines as one reply."""

    @abstractmethod
    async def sequence(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Send commands of which each runs only if the one before did; `frame` of the reply is the error of the last.

        Lines are those of the commands that ran.
        """


def text_of(reply: Reply) -> str:
    """Return what a reply says, as one line."""
    return " ".join(lines_of(reply)).strip()


def lines_of(reply: Reply) -> list[str]:
    """Return the lines of a reply."""
    return [line.decode("utf-8", "replace") for line in reply.lines]
