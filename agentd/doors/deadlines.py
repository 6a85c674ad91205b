"""When waits are over: one heap and one timer for all of a door's."""

from __future__ import annotations

import asyncio
from heapq import heapify, heappop, heappush

from agentd.agents.waiters import Wait
from agentd.errors import DeadlineExceeded

_FEW = 64  # that have ended and still lie in the heap


class Deadlines:
    """Ends each wait at its time."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._heap: list[Wait] = []
        self._ended = 0
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, wait: Wait, deadline_s: float, until_s: float) -> None:
        """End a wait after its own time, or with DeadlineExceeded when its call's deadline comes first."""
        wait.due_s = self._loop.time() + wait.timeout_s
        if until_s < wait.due_s:
            wait.deadline_s, wait.due_s = deadline_s, until_s
        heappush(self._heap, wait)
        if self._heap[0] is wait:
            self._set_timer()

    def ended(self) -> None:
        """Take note that one ended before its time; now and then those that did are thrown out."""
        self._ended += 1
        if self._ended > max(_FEW, len(self._heap) // 2):
            self._heap = [wait for wait in self._heap if wait.outcome is False]
            heapify(self._heap)
            self._ended = 0

    def close(self) -> None:
        """End none any more."""
        self._heap.clear()
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(self._heap[0].due_s, self._ring) if self._heap else None

    def _ring(self) -> None:
        self._timer = None
        while self._heap and (self._heap[0].outcome is not False or self._heap[0].due_s <= self._loop.time()):
            wait = heappop(self._heap)
            self._ended -= 1  # it lies there no more, whether it ended before or does now
            wait.end(True if wait.deadline_s is None else late(wait.method, wait.deadline_s))
        self._set_timer()


def late(method: str, deadline_s: float) -> DeadlineExceeded:
    """Return the error for a call that was not done within its time."""
    return DeadlineExceeded(f"{method} did not end within its {deadline_s:g} s", hint="allow more time, or ask again")
