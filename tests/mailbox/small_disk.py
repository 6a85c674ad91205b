"""A mailbox on a file system that is full: python small_disk.py MOUNTPOINT RESERVE_MB; prints what it came to as JSON.

Run inside a mount namespace with a small tmpfs at the mount point.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, StorageFull
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Delivery, Draft, MessageState, Receipt

BODY = "x" * 1000
SENDERS = 50
INBOXES = [f"a{n}" for n in range(4)]
ROOM_BYTES = 24_000_000  # taken by somebody else, and given back in the end; more than the logs may have grown by


async def fill(box: Mailbox) -> list[str]:
    """Send until the disk is full; return what was accepted."""
    ids: list[str] = []
    for number in range(10_000):
        drafts = [Draft(to=INBOXES[n % 4], sender=f"s{n}", body=BODY, key=f"{number}-{n}") for n in range(SENDERS)]
        results = await box.put(drafts)
        ids += [result.id for result in results if isinstance(result, Receipt)]
        refused = [result for result in results if isinstance(result, AgentdError)]
        assert all(isinstance(error, StorageFull) for error in refused), refused
        if len(refused) == SENDERS:
            return ids
    raise AssertionError("the disk was never full")


async def settle(box: Mailbox) -> Counter[str]:
    """Take, ack, give back, bury, retry and drop; each one by itself, as agents do."""
    done = Counter[str]()
    for agent in INBOXES:
        taken = await box.reserve(agent, 60, 1 << 30, 60.0)
        for number, delivery in enumerate(taken):
            done[await _settle(box, delivery, number)] += 1
    return done


async def _settle(box: Mailbox, delivery: Delivery, number: int) -> str:
    id_ = delivery.message.id
    if number % 3 == 0:
        assert await box.ack([delivery], "a") == [None]
        return "acked"
    if number % 3 == 1:
        assert await box.nack([delivery], 0.0, "no", 9) == [None]
        return "nacked"
    assert await box.nack([delivery], 0.0, "no", 1) == [None]
    if number % 2:
        assert await box.retry([id_]) == [None]
        return "retried"
    assert await box.drop([id_]) == [None]
    return "dropped"


async def main(place: Path, reserve_mb: int) -> None:
    room = place / "room"
    room.write_bytes(bytes(ROOM_BYTES))
    config = MailboxConfig(reserve_mb=reserve_mb, max_inbox_messages=1_000_000)
    async with Mailbox.open(place / "box", config, lambda _changes: None) as box:
        ids = await fill(box)
        done = await settle(box) if reserve_mb else Counter[str]()
        for id_ in ids[-20:]:
            assert (await box.get(id_)).body == BODY
        room.unlink()
        back_s = await until_accepted(box)
        standings = [found.state for found in box.standings()]
    async with Mailbox.open(place / "box", config, lambda _changes: None) as box:
        found = [message.id for agent in INBOXES for message in await box.inbox(agent, list(MessageState), 1_000_000)]
    lost = len(set(ids) - set(found)) - done["dropped"]
    print(json.dumps({"accepted": len(ids), **done, "back_s": round(back_s, 3), "lost": lost, "standings": standings}))


async def until_accepted(box: Mailbox) -> float:
    """Return how long it takes until a whole batch is accepted again."""
    begun_s = time.monotonic()
    drafts = [
        Draft(to=inbox, sender="late", body=BODY, key=f"{inbox}-{n}") for inbox in INBOXES for n in range(SENDERS)
    ]
    while not all(isinstance(result, Receipt) for result in await box.put(drafts)):
        assert time.monotonic() - begun_s < 20
        await asyncio.sleep(0.01)
    return time.monotonic() - begun_s


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
