"""Kept answers are never older than they say, and never outlive a change that was heard."""

from __future__ import annotations

import anyio
import pytest

from agentd.cache.tiers import Tiers

pytestmark = pytest.mark.anyio


class Source:
    """Something that is asked, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def __call__(self) -> int:
        self.asked += 1
        return self.asked


async def test_a_kept_answer_tells_its_tier_and_age():
    now = [100.0]
    tiers, source = Tiers(clock=lambda: now[0]), Source()
    first = await tiers.get("sessions", source)
    assert (first.value, first.tier, first.age_ms) == (1, "tmux", 0)
    now[0] += 2.5
    second = await tiers.get("sessions", source)
    assert (second.value, second.tier, second.age_ms) == (1, "l1", 2500)
    now[0] += 13
    assert (await tiers.get("sessions", source)).value == 2
    assert tiers.stats()["l1"] == {"hits": 1, "misses": 2, "drops": 0, "size": 1}


async def test_a_change_drops_what_is_kept():
    tiers, source = Tiers(), Source()
    await tiers.get("sessions", source)
    tiers.drop()
    assert (await tiers.get("sessions", source)).tier == "tmux"


async def test_an_answer_under_way_during_a_change_is_not_kept():
    tiers, go, asked = Tiers(), anyio.Event(), []

    async def slow() -> str:
        asked.append(1)
        await go.wait()
        return "old"

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(tiers.get, "sessions", slow)
        await anyio.wait_all_tasks_blocked()
        tiers.drop()
        go.set()
    source = Source()
    assert (await tiers.get("sessions", source)).value == 1
    assert source.asked == 1


async def test_nothing_is_kept_while_events_do_not_reach_us():
    tiers, source = Tiers(), Source()
    tiers.deaf()
    assert [(await tiers.get("k", source)).value for _ in range(2)] == [1, 2]
    tiers.hearing()
    assert [(await tiers.get("k", source)).value for _ in range(2)] == [3, 3]
