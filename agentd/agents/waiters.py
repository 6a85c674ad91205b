"""Those who wait for what becomes of a message or an agent: small records resolved by what happens, not tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from agentd.errors import AgentdError
from agentd.records import Change, Event

Outcome = Change | Event | AgentdError | bool  # what ended a wait; True: its time; False: it has not ended


class Wait(ABC):
    """One wait of a call, without a task: it ends once, by what happens, by its time, or by an error.

    A kind of wait says what it waits for (`wanted`) and what its call answers (`look`). The call returns it by
    `begin`; from then on a door holds it, sets `on_end`, sees to its time, and makes the answer with `look`.
    """

    __slots__ = ("_waiters", "call_id", "deadline_s", "due_s", "key", "on_end", "outcome", "timeout_s")
    method = ""  # the call that it is made for

    def __init__(self, waiters: Waiters, key: str, timeout_s: float) -> None:
        self._waiters = waiters
        self.key = key  # an id that what may end it is about
        self.timeout_s = timeout_s
        self.outcome: Outcome = False
        self.on_end: Callable[[Wait], None] | None = None
        self.call_id = 0
        self.deadline_s: float | None = None  # what the door allows, where that is less than timeout_s
        self.due_s = 0.0

    def __lt__(self, other: Wait) -> bool:
        """Order by the time at which they are over."""
        return self.due_s < other.due_s

    @abstractmethod
    def wanted(self, what: Change | Event) -> bool:
        """Tell whether what happened ends the wait."""

    @abstractmethod
    async def look(self, *, over: bool) -> Any:
        """Return the call's answer, None while there is none; when the wait is over, that or an error that says so."""

    async def begin(self) -> Any:
        """Return the answer when it is there already, else this record; nothing is missed in between."""
        self._waiters.add(self)
        try:
            answer = await self.look(over=False)
        except BaseException:
            self._waiters.remove(self)
            raise
        if answer is None:
            return self
        self.end(True)
        return answer

    def end(self, outcome: Outcome) -> None:
        """End the wait, unless it has ended."""
        if self.outcome is not False:
            return
        self.outcome = outcome
        self._waiters.remove(self)
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end(self)

    async def whole(self) -> Any:
        """Wait here, in the task that asks, and return the answer."""
        ended = anyio.Event()
        self.on_end = lambda _wait: ended.set()
        try:
            if self.outcome is False:
                with anyio.move_on_after(self.timeout_s):
                    await ended.wait()
        finally:
            self.end(True)
        return await self.look(over=True)


class Waiters:
    """Waits by what they are about: a message, the message it answers, who sent it, whose inbox it is in, an agent."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, list[Wait]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(len(waits) for waits in self._waiting.values())

    def add(self, wait: Wait) -> None:
        """Let changes end a wait."""
        self._waiting[wait.key].append(wait)

    def remove(self, wait: Wait) -> None:
        """Forget a wait."""
        waits = self._waiting[wait.key]
        waits.remove(wait)
        if not waits:
            del self._waiting[wait.key]

    def on_changes(self, changes: Sequence[Change]) -> None:
        """End the waits for these changes."""
        if not self._waiting:
            return
        for change in changes:
            for key in {change.id, change.reply_to or "", change.sender, change.to}:
                self._happened(key, change)

    def on_event(self, event: Event) -> None:
        """End the waits for what an event says of an agent."""
        if self._waiting and event.type == "agent.state":
            self._happened(str(event.data["agent"]), event)

    def _happened(self, key: str, what: Change | Event) -> None:
        for wait in tuple(self._waiting.get(key, ())):
            if wait.wanted(what):
                wait.end(what)
