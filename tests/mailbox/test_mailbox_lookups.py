"""How messages hang together, as the mailbox tells it: origins, the last one received, conversations."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import Clock, draft, open_box, put_ids, take

from agentd.mailbox.ids import seq_of, shard_of
from agentd.records import Priority

pytestmark = pytest.mark.anyio


async def test_origins_are_those_that_are_there_without_their_bodies(tmp_path: Path):
    async with open_box(tmp_path / "box", shards=4) as box:
        drafts = [draft(f"{n}", to=f"a{n}", trace="m1", hops=n, thread="m2") for n in range(20)]
        ids = await put_ids(box, *drafts)
        assert len({shard_of(seq_of(id_)) for id_ in ids}) > 1
        found = await box.origins([*ids, ids[0], "m000000000000", "nonsense"])
        assert sorted(found) == sorted(ids)
        told = [(message.body, message.to, message.trace, message.hops, message.thread) for message in found.values()]
        assert sorted(told) == sorted(("", f"a{n}", "m1", n, "m2") for n in range(20))
        assert await box.origins([]) == {}


async def test_the_last_one_received_is_the_newest_that_was_handed_out(tmp_path: Path):
    async with open_box(tmp_path / "box") as box:
        assert await box.last_received("a") is None
        ids = await put_ids(box, *(draft(f"{n}") for n in range(5)), draft("low", priority=Priority.LOW))
        assert await box.last_received("a") is None  # nothing was handed out yet
        taken = await take(box, limit=3)

        async def last() -> str | None:
            message = await box.last_received("a")
            return message.id if message else None

        assert await last() == ids[2]
        await box.deliver(taken[:2])
        assert await last() == ids[2]
        await box.release(taken[2:])
        assert await last() == ids[1]
        await box.ack(ids[:1], "a")
        assert await last() == ids[1]
        await box.ack(ids[:2], "a")
        assert await last() == ids[1]
        await box.nack(await take(box, limit=1), 5.0, "later", 1)
        assert await last() == ids[1]  # a dead letter was not received


async def test_a_conversation_is_read_from_all_shards_oldest_first(tmp_path: Path):
    clock = Clock()
    async with open_box(tmp_path / "box", clock, shards=4) as box:
        [first] = await put_ids(box, draft("0", to="a", sender="b"))
        ids = [first]
        for n in range(1, 10):
            clock.forward(0.001)
            to, sender = ("b", "a") if n % 3 else ("c", "a")
            ids += await put_ids(box, draft(f"{n}", to=to, sender=sender, reply_to=ids[-1], thread=first))
            await put_ids(box, draft("another", to=to, sender=sender))
        assert [message.id for message in await box.thread(first, 100)] == ids
        assert [message.id for message in await box.thread(first, 4)] == ids[:4]
        seen = await box.thread(first, 100, party="c")
        assert [message.body for message in seen] == ["3", "6", "9"]
        assert [message.id for message in await box.thread(first, 100, party="a")] == ids
