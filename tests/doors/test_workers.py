"""Tasks that stay for the next call."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from agentd.doors import workers as module
from agentd.doors.workers import Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Jobs:
    """Jobs that say which task they ran in, and how many are done."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task | None] = []
        self.gate = anyio.Event()

    async def at_once(self, _: object) -> None:
        self.tasks.append(asyncio.current_task())

    async def held(self, _: object) -> None:
        self.tasks.append(asyncio.current_task())
        await self.gate.wait()

    async def until(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.tasks) < count:
                await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()


async def test_one_job_after_another_is_done_in_one_task():
    async with anyio.create_task_group() as group:
        workers, jobs = Workers(group), Jobs()
        for count in range(1, 6):
            workers.start(jobs.at_once, None)
            await jobs.until(count)
        assert len(set(jobs.tasks)) == 1
        group.cancel_scope.cancel()


async def test_jobs_at_the_same_time_have_a_task_each():
    async with anyio.create_task_group() as group:
        workers, jobs = Workers(group), Jobs()
        for _ in range(5):
            workers.start(jobs.held, None)
        await jobs.until(5)
        assert len(set(jobs.tasks)) == 5
        group.cancel_scope.cancel()


async def test_idle_ones_go_home_and_jobs_are_done_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "MOST_IDLE", 3)
    before = len(asyncio.all_tasks())
    async with anyio.create_task_group() as group:
        workers, jobs = Workers(group), Jobs()
        for _ in range(5):
            workers.start(jobs.held, None)
        await jobs.until(5)
        jobs.gate.set()
        for left in (3, 1, 0, 0):  # as many as may, then half of them each time
            with anyio.fail_after(5):
                while len(asyncio.all_tasks()) > before + left:
                    await anyio.lowlevel.checkpoint()
            assert len(asyncio.all_tasks()) == before + left
            workers.thin()
        workers.start(jobs.at_once, None)
        await jobs.until(6)
        group.cancel_scope.cancel()


async def test_a_job_that_comes_while_the_group_ends_finds_no_dead_worker():
    async with anyio.create_task_group() as group:
        workers, jobs = Workers(group), Jobs()
        workers.start(jobs.at_once, None)
        await jobs.until(1)
        group.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0)
            await anyio.sleep(0)
            workers.start(jobs.at_once, None)
