"""A mailbox under load in a process that will be killed: python crash_child.py DIRECTORY LEDGER LIFE SENDS.

The ledger is the client's own, on disk before the next step: what was promised to it, line by line.

    try KEY          about to send
    sent KEY ID      the receipt arrived
    got ID           a delivery was handed over
    acked ID         the ack returned
    refused CODE     a send failed, and will be tried again
    report TEXT      what the mailbox reported in this life
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import faulty_vfs

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, StorageError
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, MessageState, Receipt

T = TypeVar("T")
AGENTS = 4
LEASE_S = 1.0  # of those taken by a reserve whose answer was lost
INBOXES = [f"agent-{n}" for n in range(AGENTS)]
GAVE_UP = 9  # the exit code of a life in which the disk refused for too long


def deadline_at_s() -> float:
    """Return until when a disk that refuses is asked again."""
    return time.monotonic() + float(os.environ.get("AGENTD_TEST_PATIENCE_S", "15"))


class Ledger:
    """Lines on disk."""

    def __init__(self, path: str) -> None:
        # O_DSYNC and not fdatasync, which is what fails here.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DSYNC)

    def write(self, *lines: str) -> None:
        os.write(self._fd, "".join(line + "\n" for line in lines).encode())


class GaveUp(Exception):
    """Raised when the disk refused for too long."""


async def send(box: Mailbox, ledger: Ledger, keys: list[str]) -> None:
    """Send one message for each key, three at a time; what fails is tried again with the same keys."""
    for start in range(0, len(keys), 3):
        group = keys[start : start + 3]
        ledger.write(*(f"try {key}" for key in group))
        deadline = deadline_at_s()
        while True:
            drafts = [Draft(to=inbox_of(key), sender="s", body=f"body of {key}", key=key) for key in group]
            results = await box.put(drafts)
            done = [(key, r.id) for key, r in zip(group, results, strict=True) if isinstance(r, Receipt)]
            ledger.write(*(f"sent {key} {id_}" for key, id_ in done))
            ledger.write(*(f"refused {r.code}" for r in results if isinstance(r, AgentdError)))
            group = [key for key, r in zip(group, results, strict=True) if not isinstance(r, Receipt)]
            if not group:
                break
            if time.monotonic() > deadline:
                raise GaveUp
            await asyncio.sleep(0.002)
        print("sent", flush=True)


def inbox_of(key: str) -> str:
    return INBOXES[sum(key.encode()) % AGENTS]


async def receive(box: Mailbox, ledger: Ledger, agent: str, done: asyncio.Event) -> None:
    """Take, deliver and ack until the senders are through."""
    while not done.is_set():
        deliveries = await insist(lambda: box.reserve(agent, 10, 1 << 20, LEASE_S))
        if not deliveries:
            await asyncio.sleep(0.005)
            continue
        ids = [delivery.message.id for delivery in deliveries]
        ledger.write(*(f"got {id_}" for id_ in ids))
        await insist(lambda: box.deliver(deliveries, "shown"))  # noqa: B023  called at once
        errors = await insist(lambda: box.ack(ids, agent))  # noqa: B023  likewise
        ledger.write(*(f"acked {id_}" for id_, error in zip(ids, errors, strict=True) if error is None))


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Call again while the disk refuses."""
    deadline = deadline_at_s()
    while True:
        try:
            return await call()
        except StorageError:
            if time.monotonic() > deadline:
                raise GaveUp from None
            await asyncio.sleep(0.005)


async def main(directory: str, ledger_path: str, life: str, sends: int) -> None:
    ledger = Ledger(ledger_path)
    lines = Path(ledger_path).read_text().split("\n")
    sent = {line.split()[1] for line in lines if line.startswith("sent ")}
    unsure = [line.split()[1] for line in lines if line.startswith("try ") and line.split()[1] not in sent]
    keys = [*unsure, *(f"{life}-{n}" for n in range(sends))]
    shards = int(os.environ.get("AGENTD_TEST_SHARDS", "2"))
    config = MailboxConfig(reserve_mb=0, shards=shards, max_inbox_messages=1_000_000)
    async with Mailbox.open(directory, config, lambda _changes: None) as box:
        print("open", flush=True)
        try:
            await live(box, ledger, keys)
        finally:
            ledger.write(*(f"report {report}" for report in box.reports))


async def live(box: Mailbox, ledger: Ledger, keys: list[str]) -> None:
    """Take up what the last life left, and send and receive until all is acknowledged."""
    recovered = box.recover()
    await insist(lambda: box.release(recovered))
    for agent in INBOXES:  # shown to a program that ended before it answered
        shown = [message.id for message in await box.inbox(agent, [MessageState.DELIVERED], 1 << 20)]
        await insist(lambda: box.nack(shown, 0.0, "again", 1 << 20))  # noqa: B023  called at once
    done = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            for agent in INBOXES:
                tasks.create_task(receive(box, ledger, agent, done))
            await asyncio.gather(*(send(box, ledger, keys[n::5]) for n in range(5)))
            deadline = time.monotonic() + 20
            while box.depths() and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
            done.set()
    except ExceptionGroup as group:  # not `except*`, which wraps what is raised in it, or not, as versions differ
        if not group.subgroup(GaveUp):
            raise
        gave_up = True
    else:
        gave_up = False
    if gave_up:
        raise GaveUp


def run(words: list[str]) -> int:
    """Live once, on the disk that the environment describes."""
    sys.unraisablehook = lambda _fault: None  # what a failing disk says where SQLite does not listen
    with faulty_vfs.as_planned(os.environ.get(faulty_vfs.VARIABLE)):
        try:
            asyncio.run(main(words[0], words[1], words[2], int(words[3])))
        except (GaveUp, StorageError):  # the latter when the mailbox could not even be opened
            return GAVE_UP
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
