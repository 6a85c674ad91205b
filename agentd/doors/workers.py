"""The tasks that make calls which wait."""

from __future__ import annotations

import asyncio
from typing import Protocol

import anyio
from anyio.abc import TaskGroup

MOST_IDLE = 1024


class Job(Protocol):
    """What a worker does."""

    async def run(self, scope: anyio.CancelScope) -> None:
        """Do it; raises nothing, but may be cancelled by the scope, which is its own until it returns."""

    def cancelled(self) -> None:
        """Take note that the scope ended it."""


NextJob = asyncio.Future[Job | None]  # None: there is none, go home


class Workers:
    """Does jobs in tasks of the group, each of which waits for another job.

    A new task costs more than most jobs, and so does a new scope: one serves until a job is cancelled.
    """

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._idle: list[NextJob] = []

    def start(self, job: Job) -> None:
        """Do a job soon."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():  # cancelled: the group ends
                idle.set_result(job)
                return
        self._tasks.start_soon(self._work, job)

    def thin(self) -> None:
        """Send half of the idle ones home, the longest idle first; called every now and then."""
        home = -(-len(self._idle) // 2)
        for idle in self._idle[:home]:
            if not idle.done():
                idle.set_result(None)
        del self._idle[:home]

    async def _work(self, job: Job | None) -> None:
        loop = asyncio.get_running_loop()
        while job is not None:
            with anyio.CancelScope() as scope:
                while job is not None:
                    await job.run(scope)
                    job = None  # an idle worker holds on to nobody's connection
                    if scope.cancel_called:
                        break
                    job = await self._next(loop)
            if job is not None:
                job.cancelled()
            if scope.cancel_called:
                job = await self._next(loop)

    async def _next(self, loop: asyncio.AbstractEventLoop) -> Job | None:
        if len(self._idle) >= MOST_IDLE:
            return None
        job: NextJob = loop.create_future()
        self._idle.append(job)
        return await job
