"""How much waits in each inbox of a shard, and whose it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from agentd.config import MailboxConfig
from agentd.errors import QuotaExceeded
from agentd.records import OPERATOR

_MB: Final = 1_000_000


@dataclass(slots=True)
class Depth:
    """One inbox."""

    messages: int = 0
    size_bytes: int = 0
    by_sender: dict[str, int] = field(default_factory=dict)


class Depths:
    """The inboxes of one shard as its writer knows them; what a failed command added can be taken back."""

    def __init__(self, rows: Iterable[tuple[str, str, int, int]], config: MailboxConfig) -> None:
        """Start from rows of inbox, sender, messages and bytes."""
        self._most_messages = config.max_inbox_messages
        self._most_bytes = config.max_inbox_mb * _MB
        self._most_of_one = max(1, int(config.max_inbox_messages * config.max_sender_share))
        self._inboxes: dict[str, Depth] = {}
        self._log: list[tuple[str, str, int, int]] = []
        for row in rows:
            self.add(*row)
        self.settle()

    def messages(self) -> dict[str, int]:
        """Return how many messages wait in each inbox that is not empty."""
        return {agent: depth.messages for agent, depth in self._inboxes.items() if depth.messages}

    def admit(self, agent: str, sender: str, size_bytes: int) -> QuotaExceeded | None:
        """Count a new message in, or return why its inbox cannot take it."""
        depth = self._inboxes.get(agent)
        if depth is None:
            depth = self._inboxes[agent] = Depth()
        mine = depth.by_sender.get(sender, 0)
        if depth.messages >= self._most_messages:
            return _full(agent, f"{depth.messages} undelivered messages", "max_inbox_messages")
        if depth.messages and depth.size_bytes + size_bytes > self._most_bytes:
            return _full(agent, f"{depth.size_bytes} undelivered bytes", "max_inbox_mb")
        if mine >= self._most_of_one and sender != OPERATOR:
            return _full(agent, f"{mine} undelivered messages of yours", "max_sender_share")
        depth.messages += 1
        depth.size_bytes += size_bytes
        depth.by_sender[sender] = mine + 1
        self._log.append((agent, sender, 1, size_bytes))
        return None

    def add(self, agent: str, sender: str, messages: int, size_bytes: int) -> None:
        """Count messages in, or out with negative numbers."""
        self._log.append((agent, sender, messages, size_bytes))
        self._count(agent, sender, messages, size_bytes)

    def _count(self, agent: str, sender: str, messages: int, size_bytes: int) -> None:
        depth = self._inboxes.get(agent)
        if depth is None:
            depth = self._inboxes[agent] = Depth()
        depth.messages += messages
        depth.size_bytes += size_bytes
        depth.by_sender[sender] = depth.by_sender.get(sender, 0) + messages

    def mark(self) -> int:
        """Return how much was counted since the last commit."""
        return len(self._log)

    def back_to(self, mark: int) -> None:
        """Take back what was counted since a mark."""
        for agent, sender, messages, size_bytes in self._log[mark:]:
            self._count(agent, sender, -messages, -size_bytes)
        del self._log[mark:]

    def settle(self) -> None:
        """Keep what was counted, and forget inboxes and senders of whom nothing waits."""
        for agent, sender, _, _ in self._log:
            depth = self._inboxes.get(agent)
            if depth is None:
                continue
            if not depth.by_sender.get(sender, 1):
                del depth.by_sender[sender]
            if not depth.messages:
                del self._inboxes[agent]
        self._log.clear()


def _full(agent: str, what: str, setting: str) -> QuotaExceeded:
    return QuotaExceeded(
        f"the inbox of {agent} holds {what}; this one was not accepted",
        hint=f"wait until it is read, or raise mailbox.{setting}",
    )
