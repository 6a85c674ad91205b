"""The tasks that make calls which wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

MOST_IDLE = 256
Job = tuple[Callable[[Any], Awaitable[None]], Any]  # an asynchronous function that raises nothing, and its argument


class Workers:
    """Does jobs in tasks of the group, each of which waits for another job: a new task costs more than most jobs."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._idle: list[asyncio.Future[Job]] = []

    def start(self, function: Callable[[Any], Awaitable[None]], argument: Any) -> None:
        """Do a job soon."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():  # cancelled: the group ends
                idle.set_result((function, argument))
                return
        self._tasks.start_soon(self._work, (function, argument))

    async def _work(self, job: Job) -> None:
        loop = asyncio.get_running_loop()
        while True:
            function, argument = job
            await function(argument)
            del job, function, argument  # an idle worker holds on to nobody's connection
            if len(self._idle) >= MOST_IDLE:
                return
            next_job: asyncio.Future[Job] = loop.create_future()
            self._idle.append(next_job)
            job = await next_job
