"""The tasks that make calls which wait."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from anyio.abc import TaskGroup

MOST_IDLE = 1024
Job = tuple[Callable[[Any], Awaitable[None]], Any]  # an asynchronous function that raises nothing, and its argument
NextJob = asyncio.Future[Job | None]  # None: there is none, go home


class Workers:
    """Does jobs in tasks of the group, each of which waits for another job: a new task costs more than most jobs."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks
        self._idle: list[NextJob] = []

    def start(self, function: Callable[[Any], Awaitable[None]], argument: Any) -> None:
        """Do a job soon."""
        while self._idle:
            idle = self._idle.pop()
            if not idle.done():  # cancelled: the group ends
                idle.set_result((function, argument))
                return
        self._tasks.start_soon(self._work, (function, argument))

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
            function, argument = job
            await function(argument)
            del job, function, argument  # an idle worker holds on to nobody's connection
            if len(self._idle) >= MOST_IDLE:
                return
            next_job: NextJob = loop.create_future()
            self._idle.append(next_job)
            job = await next_job
