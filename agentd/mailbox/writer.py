"""The one thread of a shard: takes what waits, runs it in one transaction, and answers all at once."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import apsw

from agentd.errors import AgentdError, Busy, StorageError, StorageFull
from agentd.failpoint import failpoint
from agentd.mailbox.shard import Shard
from agentd.records import Change

DRAIN_MESSAGES = 1000  # in one commit: bounds it to about 15 ms (mailbox.md §5.2)
QUEUE_MESSAGES = 20_000  # waiting for one shard; beyond that callers are told to come back
IDLE_S = 1.0

Command = Callable[[Shard], Any]


@dataclass(frozen=True, slots=True)
class _Job:
    command: Command
    weight: int
    future: asyncio.Future[Any]


class Writer:
    """Group commit: the batch that piles up behind the running sync is the next batch."""

    def __init__(self, shard: Shard, on_changes: Callable[[Sequence[Change]], None]) -> None:
        self._shard = shard
        self._on_changes = on_changes
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._waiting = 0
        self._thread = threading.Thread(target=self._run, name=f"writer-{shard.path.stem}", daemon=True)
        self.commits = 0
        self._thread.start()

    def submit(self, command: Command, weight: int = 1) -> asyncio.Future[Any]:
        """Have a command run in the next transaction; its result is durable when the future is done."""
        if self._waiting + weight > QUEUE_MESSAGES and self._waiting:
            raise Busy("the mailbox has too much to write at the moment; nothing was accepted", retry_after_ms=100)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting += weight
        self._jobs.put(_Job(command, weight, future))
        return future

    async def close(self) -> None:
        """Finish what was submitted and close the shard."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while True:
            jobs, last = self._next_jobs()
            if jobs:
                self._commit(jobs)
            elif not last:
                self._idle()
            if last:
                self._shard.close()
                return

    def _next_jobs(self) -> tuple[list[_Job], bool]:
        jobs: list[_Job] = []
        weight = 0
        try:
            job = self._jobs.get(timeout=IDLE_S)
            while True:
                if job is None:
                    return jobs, True
                jobs.append(job)
                weight += job.weight
                if weight >= DRAIN_MESSAGES:
                    return jobs, False
                job = self._jobs.get_nowait()
        except queue.Empty:
            return jobs, False

    def _commit(self, jobs: Sequence[_Job]) -> None:
        shard = self._shard
        changes: Sequence[Change] = ()
        try:
            shard.begin()
            results = [shard.attempt(job.command) for job in jobs]
            failpoint("mailbox.before_commit")
            changes = shard.commit()
            failpoint("mailbox.after_commit")
            self.commits += 1
        except apsw.Error as error:
            results = [self._recover(error)] * len(jobs)
        except Exception as error:  # noqa: BLE001  the callers get it; the thread must go on for the others
            shard.rollback()
            results = [error] * len(jobs)
        self._loop.call_soon_threadsafe(self._answer, jobs, results, changes)
        if shard.wal_long:
            shard.checkpoint()

    def _recover(self, error: apsw.Error) -> AgentdError:
        shard = self._shard
        if isinstance(error, apsw.FullError):
            shard.rollback()
            return StorageFull("the disk is full; nothing of this call was accepted", hint="free some space and repeat")
        shard.reports.append(f"{shard.path.name}: {error}; reopened")
        try:
            shard.rollback()
            shard.reopen()
        except (apsw.Error, AgentdError, OSError) as again:
            shard.reports.append(f"{shard.path.name} could not be reopened: {again}")
        return StorageError(
            f"the disk failed ({error}); whether this call was written is not known",
            hint="repeat it with the same key: at most one copy is kept",
        )

    def _answer(self, jobs: Sequence[_Job], results: Sequence[Any], changes: Sequence[Change]) -> None:
        for job, result in zip(jobs, results, strict=True):
            self._waiting -= job.weight
            if job.future.done():  # its caller has gone
                continue
            if isinstance(result, BaseException):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
        if changes:
            self._on_changes(changes)

    def _idle(self) -> None:
        shard = self._shard
        try:
            shard.begin()
            shard.tidy()
            changes = shard.commit()
            shard.checkpoint()
        except apsw.Error as error:
            self._recover(error)
            return
        if changes:
            self._loop.call_soon_threadsafe(self._on_changes, changes)
