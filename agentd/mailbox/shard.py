"""A shard: one file, one writer thread, and everything that waits behind it merged into one commit."""

from __future__ import annotations

import asyncio
import threading
from asyncio import Future
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import apsw

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, StorageError
from agentd.mailbox.clock import SteadyClock
from agentd.mailbox.commands import Command, Put
from agentd.mailbox.handover import Handover, Job
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
    ) -> None:
        self.index = index
        self.inboxes = Inboxes()
        self.recovered: list[Delivery] = []
        self.commits = 0
        self.damaged = 0
        self._path = path
        self._config = config
        self._clock = clock
        self._on_changes = on_changes
        self._report = report
        self._handover: Handover[Put | Command[Any]] = Handover(
            asyncio.get_running_loop(), MOST_WAITING, config.batch_wait_ms / 1000
        )
        self._space = Space(path.parent, config.reserve_mb * 1_000_000)
        self._thread = threading.Thread(target=self._run, name=f"mailbox-{path.stem}", daemon=True)
        self._store: Store | None = None
        self._expected = False
        self._doubtful = False

    # -- in the loop

    async def open(self, *, expected: bool) -> None:
        """Open the file through recovery and start the writer; raises what Store does."""
        self._expected = expected
        self._store = await anyio.to_thread.run_sync(self._open_store)
        self._expected = True
        snapshot, self.recovered = await anyio.to_thread.run_sync(self._read_memory, self._store)
        self.inboxes.load(snapshot)
        self._thread.start()

    def put(self, drafts: Sequence[Draft], cost: int) -> Future[list[Receipt | AgentdError]]:
        """Accept messages; the future has their receipts once they are on disk, or what the disk had against it."""
        return self._handover.submit(Put(drafts, cost))

    def do(self, command: Command[T]) -> Future[T]:
        """Run a command; the future has its result once it is on disk, or what the command or disk had against it."""
        return self._handover.submit(command)

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

    def _open_store(self) -> Store:
        store = Store(
            self.index,
            self._path,
            self._config,
            self._clock,
            self._report_later,
            expected=self._expected,
            thorough=self._doubtful,
        )
        self._doubtful = False
        return store

    def _report_later(self, text: str) -> None:
        self._handover.tell(lambda: self._report(text))

    @staticmethod
    def _read_memory(store: Store) -> tuple[Snapshot, list[Delivery]]:
        return store.snapshot(), store.delivering()

    def _run(self) -> None:
        while (jobs := self._handover.take(DRAIN_COST, self._patience_s())) is not None:
            if jobs:
                self._drain(jobs)
            self._tidy(idle=not jobs)
        self._close_store(clean=True)

    def _drain(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        if self._space_short():
            jobs = self._refuse_sends(jobs, full("the disk is nearly full"))
        try:
            self._commit(jobs)
        except apsw.FullError:
            self._commit_without_sends(jobs)
        except Exception as error:  # noqa: BLE001  the writer ends here: whatever it is, the callers must hear of it
            self._fail(jobs, error)

    def _commit(self, jobs: list[Job[Put | Command[Any]]]) -> None:
        if not jobs:
            return
        commit = self._opened().transact([job.command for job in jobs])
        self._settle(jobs, commit)

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
        self._reopen()

    def _reopen(self) -> None:
        last_seq = self._store.last_seq if self._store else None
        self._close_store(clean=False)
        try:
            store = self._opened()
        except Exception as error:  # noqa: BLE001  as above; the next call tries again and is told
            self._report_later(f"{self._path.name}: it cannot be opened ({error}); trying again at the next call")
            return
        snapshot = store.snapshot()
        survivors = [store.accepted_after(last_seq)] if last_seq is not None else []

        def arrive() -> None:
            self.inboxes.load(snapshot)
            self._tell_changes(survivors)

        self._handover.tell(arrive)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._open_store()
        return self._store

    def _close_store(self, *, clean: bool) -> None:
        store, self._store = self._store, None
        if store is None:
            return
        try:
            store.close(clean=clean)
        except apsw.Error as error:
            self._report_later(f"{self._path.name}: closing it failed ({error}); the next start recovers it")

    def _tidy(self, *, idle: bool) -> None:
        if self._store is None:
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
        return LONGEST_WAIT_S if self._store is None else self._store.patience_s(IDLE_S, LONGEST_WAIT_S)

    def _space_short(self) -> bool:
        try:
            return self._space.short()
        except OSError:  # the directory is gone; the commit will say so
            return False
