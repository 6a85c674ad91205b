"""The tasks that make calls which wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import anyio

MOST_IDLE = 1024


class Job(Protocol):
    """What a worker does."""

    async def run(self, scope: anyio.CancelScope) -> None:
        """Do it; raises nothing, but may be cancelled by the scope, which is its own until it returns."""

    def cancelled(self) -> None:
        """Take note that the scope ended it."""


NextJob = asyncio.Future[Job | None]  # None: there is none, go home


class Workers:
    """Does jobs in tasks, each of which waits for another job, while the block runs; its end cancels what is not done.

    A new task costs more than most jobs, and so does a new scope: one serves until a job is cancelled. The tasks are of
    no group, whose way to start one costs more than all the rest of a call.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scopes: set[anyio.CancelScope] = set()
        self._idle: list[NextJob] = []
        self._closed = False

    async def __aenter__(self) -> Workers:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel all jobs, those that come from now on too, and wait until they have ended."""
        self._closed = True
        self._send_home(len(self._idle))
        for scope in self._scopes:
            scope.cancel()
        with anyio.CancelScope(shield=True):
            while self._tasks:
                await asyncio.wait(self._tasks)

    def start(self, job: Job) -> None:
        """Do a job soon."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():  # cancelled: the block ends
                idle.set_result(job)
                return
        task = self._loop.create_task(self._work(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def thin(self) -> None:
        """Send half of the idle ones home, the longest idle first; called every now and then."""
        self._send_home(-(-len(self._idle) // 2))

    def _send_home(self, count: int) -> None:
        for idle in self._idle[:count]:
            if not idle.done():
                idle.set_result(None)
        del self._idle[:count]

    async def _work(self, job: Job | None) -> None:
        while job is not None:
            with self._scope() as scope:
                if self._closed:
                    scope.cancel()
                while job is not None:
                    await job.run(scope)
                    job = None  # an idle worker holds on to nobody's connection
                    if scope.cancel_called:
                        break
                    job = await self._next()
            if job is not None:
                job.cancelled()
            if scope.cancel_called:
                job = await self._next()

    @contextmanager
    def _scope(self) -> Iterator[anyio.CancelScope]:
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    async def _next(self) -> Job | None:
        if self._closed or len(self._idle) >= MOST_IDLE:
            return None
        job: NextJob = self._loop.create_future()
        self._idle.append(job)
        return await job
