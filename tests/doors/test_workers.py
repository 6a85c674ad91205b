"""Tasks that stay for the next call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import anyio
import pytest

from agentd.doors import workers as module
from agentd.doors.workers import Job, Workers

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Jobs:
    """Jobs that say which task they ran in, and how many are done."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task | None] = []
        self.gate = anyio.Event()

    @property
    def at_once(self) -> Job:
        """A job that is done when it has begun."""
        return OneJob(self, held=False)

    @property
    def held(self) -> OneJob:
        """A job that waits for the gate."""
        return OneJob(self, held=True)

    async def until(self, count: int) -> None:
        with anyio.fail_after(5):
            while len(self.tasks) < count:
                await anyio.lowlevel.checkpoint()
            await anyio.lowlevel.checkpoint()


class OneJob:
    def __init__(self, jobs: Jobs, *, held: bool, shielded: bool = False) -> None:
        self._jobs = jobs
        self._held = held
        self._shielded = shielded
        self.scope: anyio.CancelScope | None = None
        self.ended = ""

    async def run(self, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self._jobs.tasks.append(asyncio.current_task())
        if self._held:
            with anyio.CancelScope(shield=self._shielded):
                await self._jobs.gate.wait()
        self.ended = "done"

    def cancelled(self) -> None:
        self.ended = "cancelled"


async def cancelled_after(jobs: Jobs, workers: Workers, last: Callable[[], None] = lambda: None) -> OneJob:
    """Return a job that was cancelled as it waited, right after the last thing was done."""
    job = jobs.held
    workers.start(job)
    await jobs.until(1)
    last()
    assert job.scope is not None
    job.scope.cancel()
    await jobs.until(1)
    return job


async def test_a_cancelled_job_is_told_and_its_worker_does_the_next_one():
    async with Workers() as workers:
        jobs = Jobs()
        first = await cancelled_after(jobs, workers)
        assert first.ended == "cancelled"
        second = jobs.held
        workers.start(second)
        await jobs.until(2)
        assert second.ended == ""
        jobs.gate.set()
        await jobs.until(2)
        assert second.ended == "done"
        assert second.scope is not first.scope
        assert len(set(jobs.tasks)) == 1


async def test_the_end_comes_also_where_the_last_job_was_cancelled():
    with anyio.fail_after(5):
        async with Workers() as workers:
            await cancelled_after(Jobs(), workers)


async def test_a_job_that_ends_in_spite_of_its_cancellation_has_ended():
    async with Workers() as workers:
        jobs = Jobs()
        job = await cancelled_after(jobs, workers, jobs.gate.set)  # its task runs before the cancellation can reach it
        assert job.ended == "done"
        workers.start(jobs.at_once)
        await jobs.until(2)


async def test_one_job_after_another_is_done_in_one_task():
    async with Workers() as workers:
        jobs = Jobs()
        for count in range(1, 6):
            workers.start(jobs.at_once)
            await jobs.until(count)
        assert len(set(jobs.tasks)) == 1


async def test_jobs_at_the_same_time_have_a_task_each():
    async with Workers() as workers:
        jobs = Jobs()
        for _ in range(5):
            workers.start(jobs.held)
        await jobs.until(5)
        assert len(set(jobs.tasks)) == 5


async def test_idle_ones_go_home_and_jobs_are_done_all_the_same(monkeypatch):
    monkeypatch.setattr(module, "MOST_IDLE", 3)
    before = len(asyncio.all_tasks())
    async with Workers() as workers:
        jobs = Jobs()
        for _ in range(5):
            workers.start(jobs.held)
        await jobs.until(5)
        jobs.gate.set()
        for left in (3, 1, 0, 0):  # as many as may, then half of them each time
            with anyio.fail_after(5):
                while len(asyncio.all_tasks()) > before + left:
                    await anyio.lowlevel.checkpoint()
            assert len(asyncio.all_tasks()) == before + left
            workers.thin()
        workers.start(jobs.at_once)
        await jobs.until(6)


async def test_the_end_cancels_all_but_what_is_shielded_and_waits_for_that():
    jobs, before = Jobs(), len(asyncio.all_tasks())
    held, shielded, late = jobs.held, OneJob(jobs, held=True, shielded=True), jobs.held
    begun = anyio.Event()
    workers = Workers()

    async def use() -> None:
        async with workers:
            workers.start(jobs.at_once)
            await jobs.until(1)
            workers.start(held)
            workers.start(shielded)
            await jobs.until(3)
            begun.set()

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await begun.wait()
        while held.ended != "cancelled":
            await anyio.lowlevel.checkpoint()
        assert shielded.ended == ""
        workers.start(late)
        jobs.gate.set()
    assert shielded.ended == "done"
    assert late.ended == "cancelled"
    assert len(asyncio.all_tasks()) == before
