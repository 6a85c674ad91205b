"""Leases held by those who pull: extended, settled by `id#attempt`, and over when they ran out."""

from __future__ import annotations

from pathlib import Path

import pytest
from boxes import Clock, bodies, draft, open_box, put_ids, state_of, take

from agentd.errors import Conflict, NotFound
from agentd.records import MessageState

pytestmark = pytest.mark.anyio


async def test_an_extended_lease_is_not_offered_again(tmp_path: Path):
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        [id_] = await put_ids(box, draft())
        await take(box, lease_s=30)
        for _ in range(3):
            clock.forward(29)
            assert await box.extend([f"{id_}#1"], 30.0) == [None]
            assert await take(box) == []
        assert box.next_due("a") == pytest.approx(30.0)
        assert await box.ack([f"{id_}#1"], "a") == [None]
        message = await box.get(id_)
        told = [(entry.state, entry.detail) for entry in message.history]
        assert told[1] == (MessageState.DELIVERING, "attempt 1, held longer")  # once, however often
        assert [state for state, _ in told] == ["accepted", "delivering", "delivered", "acked"]


async def test_a_lease_that_ran_out_is_over_even_before_somebody_else_has_it(tmp_path: Path):
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        [id_] = await put_ids(box, draft())
        await take(box, lease_s=30)
        clock.forward(30)
        late = f"{id_}#1"
        told = [
            *await box.extend([late], 30.0),
            *await box.extend([id_], 30.0),
            *await box.ack([late], "a"),
            *await box.nack([late], 0.0, "", 5),
        ]
        assert [type(error) for error in told] == [Conflict] * 4
        assert all(id_ in str(error) and "attempt 1" in str(error) for error in told)
        assert [delivery.attempt for delivery in await take(box)] == [2]
        [error] = await box.ack([late], "a")
        assert isinstance(error, Conflict)
        assert "attempt 1" in error.message
        assert await box.nack([f"{id_}#2"], 0.0, "", 5) == [None]


async def test_an_acknowledgement_said_twice_does_no_harm(tmp_path: Path):
    async with open_box(tmp_path / "box") as box:
        [id_] = await put_ids(box, draft())
        await take(box)
        assert [await box.ack([f"{id_}#1"], "a") for _ in range(2)] == [[None], [None]]
        [error] = await box.ack([f"{id_}#2"], "a")
        assert isinstance(error, Conflict)


async def test_what_cannot_be_extended(tmp_path: Path):
    async with open_box(tmp_path / "box") as box:
        waiting, taken = await put_ids(box, draft(sender="s"), draft(sender="t"))
        await box.release((await take(box))[:1])
        odd = [waiting, f"{waiting}#1", f"{taken}#2", f"{taken}#", f"{taken}#x", f"{taken}#-1", "m1#1", taken]
        errors = await box.extend(odd, 30.0)
        expected = [Conflict, Conflict, Conflict, NotFound, NotFound, NotFound, NotFound, type(None)]
        assert [type(error) for error in errors] == expected
        [error] = await box.extend([taken], 30.0, agent="b")
        assert isinstance(error, NotFound)


async def test_after_its_last_lease_a_message_is_a_dead_letter(tmp_path: Path):
    clock = Clock()
    async with open_box(tmp_path / "box", clock) as box:
        [id_] = await put_ids(box, draft("lost"))
        for attempt in (1, 2, 3):
            taken = await box.reserve("a", 9, 1 << 30, 30.0, max_attempts=3)
            assert [delivery.attempt for delivery in taken] == [attempt]
            clock.forward(30)
        await put_ids(box, draft("next"))
        assert bodies(await box.reserve("a", 9, 1 << 30, 30.0, max_attempts=3)) == ["next"]
        assert await state_of(box, id_) is MessageState.DEAD
        assert (await box.get(id_)).history[-1].detail == "the lease of attempt 3 ran out, it was the last one"
