"""What the cache promises its callers: ages, one ask for many, nothing overtaken, every switch."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import anyio
import pytest
from floor import ONE, OTHER, Setting, Shelf

from agentd.cache.query import Query
from agentd.errors import InvalidValue

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def under_way(*calls: Callable[[], Awaitable[object]]):
    """Have calls wait for their answer in here; gives the list in which their results appear."""
    results = []

    async def one(call):
        results.append(await call())

    async with anyio.create_task_group() as tasks:
        for call in calls:
            tasks.start_soon(one, call)
        await anyio.wait_all_tasks_blocked()
        yield results


# -- tiers and ages


async def test_an_answer_tells_its_tier_its_age_and_its_bound():
    at = Setting()
    assert await at.cache.get(ONE) == (1, "tmux", 0, 0)
    at.clocks.now_s += 2.5
    assert await at.cache.get(ONE) == (1, "l1", 2500, 15_000)
    at.clocks.now_s += 13
    assert (await at.cache.get(ONE)).value == 2


async def test_age_counts_from_before_the_question_was_asked():
    at = Setting()
    at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)) as results:
        at.clocks.now_s += 3
        at.asked.gate.set()
    assert results == [(1, "tmux", 3000, 3000)]
    assert (await at.cache.get(ONE)).age_ms == 3000


async def test_peek_answers_from_memory_at_once_and_does_not_count_a_miss():
    at = Setting()
    assert at.cache.peek(ONE) is None
    await at.cache.get(ONE)
    at.clocks.now_s += 1
    assert at.cache.peek(ONE) == (1, "l1", 1000, 15_000)
    assert at.cache.peek(ONE, max_age_s=0.5) is None
    assert at.cache.peek(OTHER) is None
    at.cache.drop("%1")
    assert at.cache.peek(ONE) is None
    assert at.cache.stats()["l1"]["misses"] == 1
    assert at.cache.stats()["l1"]["dropped"] == 1


async def test_max_age_bounds_every_tier():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    at.clocks.now_s += 4
    assert await at.cache.get(ONE, max_age_s=4) == (1, "l1", 4000, 4000)
    assert (await at.cache.get(ONE, max_age_s=3)).value == 2
    at.cache.set("l1", on=False)
    at.clocks.now_s += 4
    assert await at.cache.get(ONE, max_age_s=4) == (2, "l3", 4000, 4000)
    assert (await at.cache.get(ONE, max_age_s=3)).value == 3


async def test_fresh_asks_whatever_is_kept_and_keeps_the_answer():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    assert (await at.cache.get(ONE, fresh=True)).value == 2
    assert (await at.cache.get(ONE))[:2] == (2, "l1")


async def test_fresh_does_not_join_who_asked_before():
    at = Setting()
    at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE), lambda: at.cache.get(ONE, fresh=True)) as results:
        at.asked.gate.set()
    assert sorted(answer.value for answer in results) == [1, 2]


async def test_who_wants_it_young_does_not_join_who_asked_long_ago():
    at = Setting()
    at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)):
        at.clocks.now_s += 2
        async with under_way(lambda: at.cache.get(ONE, max_age_s=1), lambda: at.cache.get(ONE)) as young:
            at.asked.gate.set()
    assert [answer.value for answer in young] == [2, 2]


async def test_a_late_answer_does_not_replace_that_of_a_later_question():
    at = Setting()
    first = at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)):
        at.clocks.now_s += 1
        at.asked.gate = None
        await at.cache.get(ONE, fresh=True)
        first.set()
    assert (await at.cache.get(ONE)).value == 2


async def test_the_least_recently_used_goes_when_there_is_no_room():
    at = Setting(l1_size=2)
    for query in (ONE, OTHER, ONE, Query("capture", ("%3",))):
        await at.cache.get(query)
    assert (await at.cache.get(ONE)).tier == "l1"
    assert (await at.cache.get(OTHER)).tier == "tmux"
    assert at.cache.stats()["l1"]["evicted"] == 2


# -- no such thing


async def test_that_there_is_no_such_thing_is_kept_for_a_short_time():
    at = Setting(Shelf())
    at.asked.answers = [None]
    assert (await at.cache.get(ONE)).value is None
    at.clocks.now_s += 2
    assert await at.cache.get(ONE) == (None, "l1", 2000, 2000)
    assert at.cache.stats()["negative_hits"] == 1
    at.clocks.now_s += 0.01
    assert (await at.cache.get(ONE)).value == 2


async def test_that_there_is_no_such_thing_is_dropped_like_any_answer():
    at = Setting()
    at.asked.answers = [None]
    await at.cache.get(ONE)
    at.cache.drop("%1")
    assert (await at.cache.get(ONE)).value == 2


# -- one ask for many


async def test_a_hundred_misses_at_once_are_one_ask():
    at = Setting(Shelf())
    at.asked.gate = anyio.Event()
    async with under_way(*[lambda: at.cache.get(ONE)] * 100) as results:
        at.asked.gate.set()
    assert [answer.value for answer in results] == [1] * 100
    assert at.asked.count == 1
    assert at.cache.stats()["joins"] == 99


@pytest.mark.parametrize("cancelled", [0, 1])
async def test_a_cancelled_caller_leaves_the_others_their_answer(cancelled):
    at = Setting()
    at.asked.gate = anyio.Event()
    scopes = [anyio.CancelScope() for _ in range(4)]

    async def ask(scope):
        with scope:
            return (await at.cache.get(ONE)).value

    async with under_way(*[lambda scope=scope: ask(scope) for scope in scopes]) as values:
        scopes[cancelled].cancel()
        await anyio.wait_all_tasks_blocked()
        at.asked.gate.set()
    asks = 2 - cancelled  # whoever took over asked again, once for all
    assert values == [None, asks, asks, asks]
    assert at.asked.count == asks


async def test_an_error_goes_to_everybody_as_it_is_and_is_not_kept():
    at = Setting()
    at.asked.gate, error = anyio.Event(), LookupError("gone")
    at.asked.answers = [error]

    async def ask():
        try:
            return await at.cache.get(ONE)
        except LookupError as seen:
            return seen

    async with under_way(ask, ask, ask) as results:
        at.asked.gate.set()
    assert results == [error] * 3
    assert (await at.cache.get(ONE)).value == 2


# -- changes


async def test_a_change_drops_what_carries_its_tag_and_nothing_else():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    await at.cache.get(OTHER)
    at.cache.drop("%1", "unheard of")
    assert (await at.cache.get(ONE))[:2] == (3, "tmux")
    assert (await at.cache.get(OTHER)).tier == "l1"
    at.cache.drop("capture")
    assert (await at.cache.get(OTHER)).tier == "tmux"
    at.cache.drop_all()
    assert (await at.cache.get(ONE)).tier == "tmux"
    assert at.cache.stats()["invalidations"] == 3


async def test_an_answer_under_way_during_a_change_is_given_but_not_kept():
    at = Setting(Shelf())
    at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)) as results:
        at.cache.drop("%1")
        at.asked.gate.set()
    assert results[0].value == 1
    assert (await at.cache.get(ONE))[:2] == (2, "tmux")


async def test_who_asks_after_a_change_does_not_join_who_asked_before():
    at = Setting()
    old = at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)):
        at.cache.drop("%1")
        at.asked.gate = None
        assert (await at.cache.get(ONE))[:2] == (2, "tmux")
        old.set()
    assert (await at.cache.get(ONE)).value == 2


async def test_a_change_while_the_third_tier_is_asked_is_not_overlooked():
    shelf = Shelf()
    at = Setting(shelf, l1=False)
    await at.cache.get(ONE)
    shelf.mode = "slow"
    async with under_way(lambda: at.cache.get(ONE)) as results:
        at.cache.drop("%1")
        shelf.gate.set()
    assert results[0][:2] == (2, "tmux")


async def test_more_tags_than_are_remembered_only_cost_asks():
    at = Setting()
    await at.cache.get(ONE)
    for number in range(25_000):
        at.cache.drop(f"tag {number}")
    assert (await at.cache.get(ONE)).tier == "tmux"
    assert (await at.cache.get(ONE)).tier == "l1"


async def test_while_deaf_nothing_old_is_served_and_afterwards_nothing_from_before():
    at = Setting(Shelf(), deaf_ttl_s=1.0)
    await at.cache.get(ONE)
    at.cache.deaf()
    at.clocks.now_s += 1
    assert await at.cache.get(ONE) == (1, "l1", 1000, 1000)
    at.clocks.now_s += 0.01
    assert (await at.cache.get(ONE)).value == 2
    at.cache.hearing()
    assert (await at.cache.get(ONE)).value == 3
    assert (await at.cache.get(ONE))[1:] == ("l1", 0, 15_000)


# -- switches


async def test_each_tier_can_be_turned_off_and_on():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    at.cache.set("l1", on=False)
    assert (await at.cache.get(ONE)).tier == "l3"
    assert at.cache.peek(ONE) is None
    at.cache.set("l3", on=False)
    assert (await at.cache.get(ONE)).tier == "tmux"
    at.cache.set("l1", on=True)
    await at.cache.get(ONE)
    assert (await at.cache.get(ONE)).tier == "l1"
    with pytest.raises(InvalidValue, match="no switch `l4`"):
        at.cache.set("l4", on=True)


async def test_the_switches_begin_as_configured():
    at = Setting(Shelf(), l1=False, l3=False)
    await at.cache.get(ONE)
    assert (await at.cache.get(ONE)).tier == "tmux"
    stats = at.cache.stats()
    assert [stats[name]["on"] for name in ("l1", "l2", "l3", "prefetch")] == [False, True, False, True]


# -- the third tier


async def test_the_third_tier_serves_what_the_first_no_longer_may_and_gives_it_back_to_it():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    at.clocks.now_s += 100
    assert await at.cache.get(ONE) == (1, "l3", 100_000, 300_000)
    at.clocks.now_s += 10
    assert await at.cache.get(ONE) == (1, "l1", 110_000, 300_000)
    at.clocks.now_s += 190.5
    assert (await at.cache.get(ONE)).value == 2


async def test_a_value_that_is_not_plain_data_is_kept_in_memory_only():
    at = Setting(Shelf())
    at.asked.answers = [(1, 2)]
    await at.cache.get(ONE)
    assert (await at.cache.get(ONE))[:2] == ((1, 2), "l1")
    at.cache.set("l1", on=False)
    assert (await at.cache.get(ONE)).tier == "tmux"


async def test_after_a_restart_only_what_is_vouched_for_is_served():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    await at.cache.get(OTHER)
    at.clocks.now_s += 30
    cache, seen = at.start(), []
    cache.revive(lambda query, asked_at_s: seen.append((query, asked_at_s)) or query == ONE)
    assert await cache.get(ONE) == (1, "l3", 30_000, 300_000)
    assert (await cache.get(OTHER)).tier == "tmux"
    assert seen == [(query, at.clocks.wall() - 30) for query in (ONE, OTHER)]


async def test_without_a_revival_nothing_from_before_is_served():
    at = Setting(Shelf())
    await at.cache.get(ONE)
    assert (await at.start().get(ONE)).tier == "tmux"


async def test_what_was_revived_is_dropped_by_a_change_like_the_rest():
    at = Setting(Shelf(), l1=False)
    await at.cache.get(ONE)
    cache = at.start()
    cache.revive(lambda _query, _asked_at_s: True)
    assert (await cache.get(ONE)).tier == "l3"
    cache.drop("%1")
    assert (await cache.get(ONE)).tier == "tmux"


async def test_nothing_of_another_server_is_served():
    at = Setting(Shelf(), l1=False)
    await at.cache.get(ONE)
    at.source = "another server"
    at.cache.revive(lambda _query, _asked_at_s: True)
    assert (await at.cache.get(ONE)).tier == "tmux"


async def test_an_answer_of_a_server_that_was_replaced_meanwhile_is_not_kept():
    at = Setting(Shelf())
    at.asked.gate = anyio.Event()
    async with under_way(lambda: at.cache.get(ONE)):
        at.source = "another server"
        at.asked.gate.set()
    assert (await at.cache.get(ONE)).tier == "tmux"


@pytest.mark.parametrize("jump_s", [-7200.0, 7200.0])
async def test_a_wall_clock_that_was_set_changes_no_age_and_revives_nothing(jump_s):
    at = Setting(Shelf())
    await at.cache.get(ONE)
    at.clocks.now_s += 20
    at.clocks.wall_offset_s += jump_s
    assert await at.cache.get(ONE) == (1, "l3", 20_000, 300_000)
    cache = at.start()
    cache.revive(lambda _query, _asked_at_s: True)
    assert (await cache.get(ONE)).tier == "tmux"


# -- the rest


async def test_keys_differ_for_whatever_differs():
    queries = [
        Query("a", ("b,c",)),
        Query("a", ("b", "c")),
        Query("a,b", ("c",)),
        Query("a", (1,)),
        Query("a", ("1",)),
        Query("a"),
        Query("a", ("",)),
        Query("a", ("é\udc80\n",)),
    ]
    assert len({str(query) for query in queries}) == len(queries)
    assert all(str(query).isascii() and "\n" not in str(query) for query in queries)


async def test_figures_tell_what_a_look_and_an_ask_cost():
    at = Setting(Shelf())
    for _ in range(100):
        await at.cache.get(ONE)
    stats = at.cache.stats()
    assert (stats["l1"]["hits"], stats["l1"]["misses"], stats["asks"]) == (99, 1, 1)
    assert stats["l1"]["lookup_us"] > 0
    assert stats["l3"]["lookup_us"] > 0
    assert stats["ask_us"] == 0.0  # by the clock that stands still here
    assert stats["l2"]["lookup_us"] is None
