"""What is known about each inbox without asking the disk."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from agentd.mailbox.rows import WAITING
from agentd.mailbox.transaction import Arrivals, Effect, Step
from agentd.records import Change

_NOBODY: frozenset[str] = frozenset()


@dataclass(slots=True)
class Inbox:
    """One agent's waiting messages."""

    depth: int = 0
    due_ns: dict[int, int] = field(default_factory=dict)  # of those that are leased or in back-off
    behind: frozenset[str] = _NOBODY  # senders whose waiting messages stand behind such a one; empty: not known


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The inboxes of one shard as its file has them."""

    depths: dict[str, int]
    delayed: list[tuple[str, int, int]]  # agent, seq, due_ns


class Inboxes:
    """The inboxes of one shard; lives in the event loop and learns of each commit before the commit's callers do."""

    def __init__(self) -> None:
        self.version = 0  # another one after whatever changed
        self._inboxes: dict[str, Inbox] = {}

    def load(self, snapshot: Snapshot) -> None:
        """Start from what the file says."""
        self.version += 1
        self._inboxes = {agent: Inbox(depth) for agent, depth in snapshot.depths.items()}
        for agent, seq, due_ns in snapshot.delayed:
            self._inboxes[agent].due_ns[seq] = due_ns

    def apply(self, effects: Iterable[Effect]) -> None:
        """Take in a commit, in the order in which it came about."""
        self.version += 1
        for effect in effects:
            if isinstance(effect, Arrivals):
                self._arrive(effect.changes)
            elif isinstance(effect, Step):
                self._step(effect)
            elif inbox := self._inboxes.get(effect.agent):
                inbox.behind = effect.senders

    def _arrive(self, changes: Iterable[Change]) -> None:
        for change in changes:
            inbox = self._inboxes.get(change.to)
            if inbox is None:
                inbox = self._inboxes[change.to] = Inbox()
            inbox.depth += 1
            if inbox.behind and change.sender not in inbox.behind:
                inbox.behind = _NOBODY

    def _step(self, step: Step) -> None:
        agent = step.change.to
        inbox = self._inboxes.get(agent)
        if inbox is None:
            inbox = self._inboxes[agent] = Inbox()
        waits = step.change.state in WAITING
        inbox.depth += waits - (step.was in WAITING)
        if waits and step.due_ns:
            inbox.due_ns[step.seq] = step.due_ns
        else:
            inbox.due_ns.pop(step.seq, None)
        inbox.behind = _NOBODY
        if not inbox.depth:
            del self._inboxes[agent]

    def depth(self, agent: str) -> int:
        """Return how many messages of an inbox wait or are being delivered."""
        inbox = self._inboxes.get(agent)
        return inbox.depth if inbox else 0

    def depths(self) -> dict[str, int]:
        """Return the depth of every inbox that is not empty."""
        return {agent: inbox.depth for agent, inbox in self._inboxes.items()}

    def next_due_ns(self, agent: str) -> int | None:
        """Return when a message of the inbox may be reserved: 0 for now, None when it is empty."""
        inbox = self._inboxes.get(agent)
        if inbox is None:
            return None
        if not inbox.due_ns or (len(inbox.due_ns) < inbox.depth and not inbox.behind):
            return 0
        return min(inbox.due_ns.values())
