"""A shard: one file, one writer thread, and everything that waits behind it merged into one commit."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from asyncio import Future
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import apsw

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, StorageError
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.commands import Command, Put
from agentd.mailbox.compaction import Compact
from agentd.mailbox.handover import Handover, Job
from agentd.mailbox.health import OK, Health, Standing
from agentd.mailbox.ids import text_of
from agentd.mailbox.inboxes import Inboxes, Snapshot
from agentd.mailbox.space import Space, full
from agentd.mailbox.store import Commit, Store
from agentd.mailbox.transaction import Arrivals, Effect, Step
from agentd.records import Change, Delivery, Draft, Receipt

DRAIN_COST: Final = 1000  # most messages in one commit; about 15 ms
MOST_WAITING: Final = 10_000  # messages that may wait for the disk before sends are refused
IDLE_S: Final = 0.2  # after this the log is written back into the file
LONGEST_WAIT_S: Final = 3600.0

T = TypeVar("T")
OnChanges = Callable[[Sequence[Change]], None]


class Shard:
    """The messages of some inboxes: commands go in, outcomes come back after their commit."""

    def __init__(
        self,
        index: int,
        path: Path,
        config: MailboxConfig,
        clock: SteadyClock,
        on_changes: OnChanges,
        report: Callable[[str], None],
        on_standing: Callable[[Standing], None],
    ) -> None:
        self.index = index
        self.inboxes = Inboxes()
        self.recovered: list[Delivery] = []
        self.standing = Standing(path.name, OK)
        self.commits = 0
        self.damaged = 0
        self._path = path
        self._config = config
        self._clock = clock
        self._on_changes = on_changes
        self._report = report
        self._on_standing = on_standing
        self._health = Health(path, clock.wall_ns)
        self._handover: Handover[Put | Command[Any]] = Handover(
            asyncio.get_running_loop(), MOST_WAITING, config.batch_wait_ms / 1000
        )
        self._space = Space(path.parent, config.reserve_mb * 1_000_000)
        self._thread = threading.Thread(target=self._run, name=f"mailbox-{path.stem}", daemon=True)
        self._store: Store | None = None
        self._expected = False
        self._doubtful = False
        self._told_seq: int | None = None  # the newest message before the disk failed
        self._promised_seq = 0  # the newest that is known to be on disk while it fails

    # -- in the loop

    async def open(self, *, expected: bool) -> None:
        """Open the file through recovery, or for reading when the disk takes no writes, and start the writer.

        Raises what Store does when the file cannot even be read.
        """
        self._expected = expected
        snapshot, self.recovered, self.standing = await anyio.to_thread.run_sync(self._begin)
        self.inboxes.load(snapshot)
        self._thread.start()

    def put(self, drafts: Sequence[Draft], cost: int) -> Future[list[Receipt | AgentdError]]:
        """Accept messages; the future has their receipts once they are on disk, or what the disk had against it."""
        return self._handover.submit(Put(drafts, cost))

    def do(self, command: Command[T]) -> Future[T]:
        """Run a command; the future has its result once it is on disk, or what the command or disk had against it."""
        return self._handover.submit(command)

    @property
    def path(self) -> Path:
        """Return the path of its file."""
        return self._path

    @property
    def waiting(self) -> int:
        """Return how many messages wait for the disk."""
        return self._handover.waiting

    async def close(self) -> None:
        """Finish what is queued and close the file."""
        self._handover.stop()
        if self._thread.ident is None:
            self._close_store(clean=False)
        else:
            await anyio.to_thread.run_sync(self._thread.join)

    def _arrive(self, commit: Commit) -> None:
        self.commits += 1
        self.damaged += len(commit.damaged)
        for seq in commit.damaged:
            self._report(f"{self._path.name}: message {text_of(seq)} is damaged")
        self.inboxes.apply(commit.effects)

    def _tell_changes(self, effects: Sequence[Effect]) -> None:
        changes: list[Change] = []
        for effect in effects:
            if isinstance(effect, Arrivals):
                changes += effect.changes
            elif isinstance(effect, Step):
                changes.append(effect.change)
        if changes:
            self._on_changes(changes)

    # -- in the thread

    def _open_store(self, *, reading: bool = False) -> Store:
        store = Store(
            self.index,
            self._path,
            self._config,
            self._clock,
            self._report_later,
            expected=self._expected,
            thorough=self._doubtful,
            reading=reading,
        )
        self._doubtful = self._doubtful and reading
        return store

    def _report_later(self, text: str) -> None:
        self._handover.tell(lambda: self._report(text))

    def _begin(self) -> tuple[Snapshot, list[Delivery], Standing]:
        try:
            self._store = self._open_store()
        except (apsw.Error, OSError) as error:
            self._store = self._open_for_reading(error)
        self._expected = True
        return self._store.snapshot(), self._store.delivering(), self._health.standing()

    def _open_for_reading(self, error: Exception) -> Store:
        self._health.failed(error)
        store = self._open_store(reading=True)
        self._told_seq = store.last_seq
        self._report_later(f"{self._path.name} is read-only: {error}")
        return store

    def _run(self) -> None:
        most = DRAIN_COST if self._config.group_commit else 1
        while (jobs := self._handover.take(most, self._patience_s())) is not None:
            if not self._health.sound and not self._health.due_in_s():
                self._come_back()
            if jobs:
                self._drain(jobs)
            self._tidy(idle=not jobs)
        self._close_store(clean=self._health.sound)

    def _drain(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        if not self._health.sound:
            self._look(jobs)
            return
        if self._space_short():
            jobs = self._refuse_sends(jobs, full("the disk is nearly full"))
        try:
            self._commit(jobs)
        except apsw.FullError:
            self._commit_without_sends(jobs)
        except Exception as error:  # noqa: BLE001  the writer ends here: whatever it is, the callers must hear of it
            self._fail(jobs, error)

    def _commit(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        if not (jobs and self._store):
            return
        if isinstance(jobs[0].command, Compact):  # never has a neighbour
            self._compact(self._store, jobs)
            return
        commit = self._store.transact([job.command for job in jobs])
        self._settle(jobs, commit)

    def _compact(self, store: Store, jobs: list[Job[Put | Command[Any]]]) -> None:
        outcome: AgentdError | None = None
        try:
            store.compact()
        except AgentdError as error:
            outcome = error
        self._settle(jobs, Commit([outcome]))

    def _commit_without_sends(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        """Let what needs little room go through on a full disk; the reserve is there for it."""
        rest = self._refuse_sends(jobs, full("the disk is full"))
        try:
            self._commit(rest)
        except apsw.FullError:
            self._handover.settle(rest, [full("the disk is full to the brim")] * len(rest), lambda: None)
        except Exception as error:  # noqa: BLE001  as above
            self._fail(rest, error)

    def _refuse_sends(self, jobs: list[Job[Put | Command[Any]]], error: AgentdError) -> list[Job[Put | Command[Any]]]:
        sends = [job for job in jobs if job.command.sends]
        if sends:
            self._handover.settle(sends, [error] * len(sends), lambda: None)
        return [job for job in jobs if not job.command.sends]

    def _settle(self, jobs: list[Job[Put | Command[Any]]], commit: Commit) -> None:
        def arrive() -> None:
            self._arrive(commit)
            self._tell_changes(commit.effects)

        self._handover.settle(jobs, commit.outcomes, arrive)

    def _fail(self, jobs: list[Job[Put | Command[Any]]], error: Exception) -> None:
        """Answer that nothing is known, and go back to what the disk really has."""
        unknown = StorageError(
            f"the disk refused ({error}); whether this was done is not known",
            hint="do it again; a send with the same key is accepted once",
        )
        self._report_later(f"{self._path.name}: {error}; reopening it")
        self._handover.settle(jobs, [unknown] * len(jobs), lambda: None)
        self._doubtful = isinstance(error, apsw.CorruptError)
        self._told_seq = self._store.last_seq if self._store else None
        self._promised_seq = self._told_seq or 0
        self._health.failed(error)
        if self._health.due_in_s():
            self._stay_read_only(error)
        else:
            self._come_back()

    # -- while the disk takes no writes

    def _look(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        """Answer what changes nothing from what the disk has, and refuse the rest."""
        try:
            if self._store is None:
                raise self._health.refusal()
            commit = self._store.look([job.command for job in jobs], self._promised_seq, self._health.refusal)
        except Exception as error:  # noqa: BLE001  the writer ends here, as above; it is opened again in time
            refusal = error if isinstance(error, AgentdError) else self._health.refusal()
            self._handover.settle(jobs, [refusal] * len(jobs), lambda: None)
        else:
            self._settle(jobs, commit)

    def _come_back(self) -> None:
        """Reopen the file through recovery, and believe in it once a write of ours is on disk."""
        try:
            store = self._reopened()
            store.prove()
            snapshot = store.snapshot()
            survivors = [store.accepted_after(self._told_seq)] if self._told_seq is not None else []
        except Exception as error:  # noqa: BLE001  whatever it is, it is tried again in time
            self._health.failed(error)
            self._stay_read_only(error)
            return
        self._health.recovered()

        def arrive() -> None:
            self.inboxes.load(snapshot)
            self._tell_changes(survivors)

        self._handover.tell(arrive)
        self._tell_standing(f"{self._path.name} can be written again")

    def _reopened(self) -> Store:
        if not os.access(self._path, os.W_OK):  # as after a remount; the file could not even be read once it is closed
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        self._close_store(clean=False)
        self._store = self._open_store()
        return self._store

    def _stay_read_only(self, error: Exception) -> None:
        if self._store is None:
            with suppress(Exception):  # then it cannot even be read, and each call is told so
                self._store = self._open_store(reading=True)
        self._tell_standing(f"{self._path.name} is read-only: {error}")

    def _tell_standing(self, text: str) -> None:
        """Tell how the shard is now, if that is not known yet."""
        standing = self._health.standing()

        def arrive() -> None:
            if standing.state != self.standing.state:
                self.standing = standing
                self._report(text)
                self._on_standing(standing)

        self._handover.tell(arrive)

    def _close_store(self, *, clean: bool) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.close(clean=clean)
        except apsw.Error as error:
            if self._health.sound:  # else it is known that the disk fails
                self._report_later(f"{self._path.name}: closing it failed ({error}); the next start recovers it")

    def _tidy(self, *, idle: bool) -> None:
        if self._store is None or not self._health.sound:
            return
        try:
            commit = self._store.tidy(idle=idle)
        except apsw.FullError:
            return  # nothing of it was promised to anybody; it is tried again after the next commit
        except Exception as error:  # noqa: BLE001  as above
            self._fail([], error)
        else:
            if commit.effects:
                self._settle([], commit)

    def _patience_s(self) -> float:
        """Return how long to wait for a command before there is something to tidy."""
        if self._store is None or not self._health.sound:
            return self._health.due_in_s()
        return self._store.patience_s(IDLE_S, LONGEST_WAIT_S)

    def _space_short(self) -> bool:
        try:
            return self._space.short()
        except OSError:  # the directory is gone; the commit will say so
            return False
