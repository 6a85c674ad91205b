"""The way from the event loop into one thread and back."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from agentd.errors import Busy, Unavailable

GATHER_STEP_S: Final = 0.0003


class Costed(Protocol):
    """Work that says how much it is, and whether it may be refused."""

    @property
    def cost(self) -> int:
        """Return the cost, 1 for the smallest piece."""

    @property
    def sends(self) -> bool:
        """Tell whether it is refused while too much waits."""


C = TypeVar("C", bound=Costed)


@dataclass(eq=False, slots=True)
class Job(Generic[C]):
    """A command and the future that its caller awaits."""

    command: C
    future: asyncio.Future[Any]


class Handover(Generic[C]):
    """A bounded queue of jobs into a thread; outcomes of many come back in one wake-up of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, most_waiting: int, gather_s: float) -> None:
        self._loop = loop
        self._most_waiting = most_waiting
        self._gather_s = gather_s
        self._crowded = False  # the last drain took several jobs: more are likely on their way
        self._queue: queue.SimpleQueue[Job[C] | None] = queue.SimpleQueue()
        self._held: Job[C] | None = None  # taken from the queue, too much for that drain
        self._stopping = False
        self.waiting = 0  # cost of what was submitted and is not settled; loop side only

    # -- in the loop

    def submit(self, command: C) -> asyncio.Future[Any]:
        """Queue a command; raises Busy when too much waits and Unavailable once closed."""
        if self._stopping:
            raise Unavailable("the mailbox is closed")
        if command.sends and self.waiting and self.waiting + command.cost > self._most_waiting:
            raise Busy(
                f"{self.waiting} messages wait for the disk already; this one was not accepted",
                hint="send again in a moment",
                retry_after_ms=100,
            )
        job = Job(command, self._loop.create_future())
        self.waiting += command.cost
        self._queue.put(job)
        return job.future

    def stop(self) -> None:
        """Let the thread finish what is queued, and then end."""
        self._stopping = True
        self._queue.put(None)

    # -- in the thread

    def take(self, most_cost: int, timeout_s: float | None) -> list[Job[C]] | None:
        """Wait for a job and take what is queued behind it, up to a cost; [] after the timeout, None at the end."""
        first = self._next(timeout_s)
        if not isinstance(first, Job):
            return first
        if self._crowded:
            self._gather()
        jobs, cost = [first], first.command.cost
        while cost < most_cost and not self._queue.empty():
            job = self._queue.get()
            if job is None:
                self._queue.put(None)
                break
            cost += job.command.cost
            if cost > most_cost:
                self._held = job
                break
            jobs.append(job)
        self._crowded = len(jobs) > 1
        return jobs

    def _gather(self) -> None:
        """Let more come as long as some does, up to a limit: fewer and larger commits for many callers at once."""
        deadline_s = time.monotonic() + self._gather_s
        before = -1
        while (now := self._queue.qsize()) != before and time.monotonic() < deadline_s:
            before = now
            time.sleep(GATHER_STEP_S)

    def _next(self, timeout_s: float | None) -> Job[C] | list[Job[C]] | None:
        if self._held is not None:
            job, self._held = self._held, None
            return job
        try:
            return self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return []

    def settle(self, jobs: Sequence[Job[C]], outcomes: Sequence[object], first: Callable[[], None]) -> None:
        """Let the loop run `first` and then give each job its outcome; an exception is raised where it is awaited."""

        def arrive() -> None:
            try:
                first()
            finally:  # a fault of who is told first is the loop's to report, and keeps nobody waiting
                for job, outcome in zip(jobs, outcomes, strict=True):
                    self.waiting -= job.command.cost
                    _resolve(job.future, outcome)

        self.tell(arrive)

    def tell(self, what: Callable[[], None]) -> None:
        """Run something in the loop; a loop that has ended has nobody left to be told."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():  # its caller was cancelled; what was asked is done all the same
        return
    if isinstance(outcome, BaseException):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
