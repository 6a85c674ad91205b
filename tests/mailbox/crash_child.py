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

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, StorageError
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, MessageState, Receipt

T = TypeVar("T")
AGENTS = 4
LEASE_S = 1.0  # of those taken by a reserve whose answer was lost
INBOXES = [f"agent-{n}" for n in range(AGENTS)]


class Ledger:
    """Lines on disk."""

    def __init__(self, path: str) -> None:
        # O_DSYNC and not fdatasync, which is what fails here.
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_DSYNC)

    def write(self, *lines: str) -> None:
        os.write(self._fd, "".join(line + "\n" for line in lines).encode())


async def send(box: Mailbox, ledger: Ledger, keys: list[str]) -> None:
    """Send one message for each key, three at a time; what fails is tried again with the same keys."""
    for start in range(0, len(keys), 3):
        group = keys[start : start + 3]
        ledger.write(*(f"try {key}" for key in group))
        for _ in range(200):
            drafts = [Draft(to=inbox_of(key), sender="s", body=f"body of {key}", key=key) for key in group]
            results = await box.put(drafts)
            done = [(key, r.id) for key, r in zip(group, results, strict=True) if isinstance(r, Receipt)]
            ledger.write(*(f"sent {key} {id_}" for key, id_ in done))
            ledger.write(*(f"refused {r.code}" for r in results if isinstance(r, AgentdError)))
            group = [key for key, r in zip(group, results, strict=True) if not isinstance(r, Receipt)]
            if not group:
                break
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
    for _ in range(200):
        try:
            return await call()
        except StorageError:
            await asyncio.sleep(0.005)
    return await call()


async def main(directory: str, ledger_path: str, life: str, sends: int) -> None:
    ledger = Ledger(ledger_path)
    lines = Path(ledger_path).read_text().split("\n")
    sent = {line.split()[1] for line in lines if line.startswith("sent ")}
    unsure = [line.split()[1] for line in lines if line.startswith("try ") and line.split()[1] not in sent]
    keys = [*unsure, *(f"{life}-{n}" for n in range(sends))]
    config = MailboxConfig(reserve_mb=0, shards=2, max_inbox_messages=1_000_000)
    async with Mailbox.open(directory, config, lambda _changes: None) as box:
        print("open", flush=True)
        recovered = box.recover()
        await insist(lambda: box.release(recovered))
        for agent in INBOXES:  # shown to a program that ended before it answered
            shown = [message.id for message in await box.inbox(agent, [MessageState.DELIVERED], 1 << 20)]
            await insist(lambda: box.nack(shown, 0.0, "again", 1 << 20))  # noqa: B023  called at once
        done = asyncio.Event()
        receivers = [asyncio.create_task(receive(box, ledger, agent, done)) for agent in INBOXES]
        await asyncio.gather(*(send(box, ledger, keys[n::5]) for n in range(5)))
        deadline = time.monotonic() + 20
        while box.depths() and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        done.set()
        await asyncio.gather(*receivers)
        ledger.write(*(f"report {report}" for report in box.reports))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
