"""What each agent received last: the message that it is taken to answer when it does not say which."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from agentd.agents.loops import Cause
from agentd.mailbox.mailbox import Mailbox
from agentd.records import OPERATOR, Change, MessageState

MOST_INBOXES: Final = 10_000  # remembered; of others the mailbox is asked
# An agent may answer before the courier saw that it has the message.
RECEIVED: Final = frozenset({MessageState.DELIVERING, MessageState.DELIVERED, MessageState.ACKED})


@dataclass(slots=True)
class Received:
    """The last message of an inbox."""

    id: str
    at_ns: int  # wall clock
    cause: Cause | None = None  # read when it is needed


class Causes:
    """Remembers the last message of each agent, and after a restart asks the mailbox for it."""

    def __init__(self, mailbox: Mailbox, window_s: float, wall_ns: Callable[[], int]) -> None:
        self._mailbox = mailbox
        self._window_ns = int(window_s * 1e9)
        self._wall_ns = wall_ns
        self._last: LRUCache[str, Received] = LRUCache(MOST_INBOXES)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take in what was handed out or acknowledged."""
        for change in changes:
            if change.state in RECEIVED and change.to != OPERATOR:
                self._last[change.to] = Received(change.id, self._wall_ns())

    async def of(self, agent: str) -> Cause | None:
        """Return what an agent's next message is caused by, None when it received nothing lately."""
        last = self._last.get(agent) or await self._recalled(agent)
        if self._wall_ns() - last.at_ns > self._window_ns:
            return None
        if last.cause is None:
            found = (await self._mailbox.origins([last.id])).get(last.id)
            last.cause = Cause.of(found) if found else None
        return last.cause

    async def _recalled(self, agent: str) -> Received:
        message = await self._mailbox.last_received(agent)
        found = Received(message.id, message.history[-1].at_ns, Cause.of(message)) if message else Received("", 0)
        return self._last.setdefault(agent, found)  # what arrived meanwhile is newer
