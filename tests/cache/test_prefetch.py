"""Guesses: made when they are likely, within the budget, counted honestly, and paused while they are not worth it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import asynccontextmanager

import anyio
import pytest
from floor import Clocks, Setting, Shelf
from hypothesis import given
from hypothesis import strategies as st

from agentd.cache.prefetch import AHEAD, Prefetch, Transitions, decide
from agentd.cache.query import Query
from agentd.config import CacheConfig

A, B, C, D = (Query("capture", (name,)) for name in "abcd")


def everything(_query: Query) -> bool:
    return True


def walked(transitions: Transitions, *walks: Iterable[Query], caller: str = "me") -> None:
    for walk in walks:
        for query in walk:
            transitions.observe(caller, query)


# -- the model


def test_a_next_query_is_likely_after_five_times_and_not_before():
    transitions = Transitions(0.7)
    walked(transitions, *[(A, B, A)] * 4)
    assert list(transitions.ahead("me", A)) == []
    walked(transitions, (A, B))
    assert next(transitions.ahead("me", A)) == B
    assert list(transitions.ahead("somebody else", A)) == []


def test_a_next_query_below_the_confidence_is_no_guess():
    transitions = Transitions(0.7)
    walked(transitions, *[(A, B, A, B, A, C)] * 10)
    assert list(transitions.ahead("me", A)) == []
    assert next(transitions.ahead("me", B)) == A


def test_it_looks_several_steps_ahead_while_all_of_them_together_are_likely():
    transitions = Transitions(0.7)
    walked(transitions, *[(A, B, C, D)] * 20)
    assert list(transitions.ahead("me", A))[:5] == [B, C, D, A, B]
    assert len(list(transitions.ahead("me", A))) == AHEAD


def test_old_habits_fade():
    transitions = Transitions(0.7)
    walked(transitions, *[(A, B)] * 1000, *[(A, C)] * 60)
    assert next(transitions.ahead("me", A)) == C


@given(st.lists(st.tuples(st.sampled_from("uvw"), st.integers(0, 400)), max_size=600))
def test_what_is_remembered_is_bounded_and_likelihoods_are_too(walk):
    transitions = Transitions(0.5)
    for caller, number in walk:
        transitions.observe(caller, Query("capture", (number % 40,)))
    for counts in transitions._after.values():
        assert len(counts) <= 8
        assert all(0 < count <= 32 for count in counts.values())


def test_callers_and_queries_beyond_the_bound_are_forgotten():
    transitions = Transitions(0.7)
    for number in range(30_000):
        transitions.observe(f"caller {number}", A)
        transitions.observe("one who asks a lot", Query("capture", (number,)))
    assert len(transitions._last) <= 1_000
    assert len(transitions._after) <= 20_000


# -- the decision


def test_the_nearest_missing_query_is_decided_for():
    assert decide([A, B, C], lambda query: query != A, 1.0, at_rest=False) == B
    assert decide([A], lambda _query: False, 1.0, at_rest=False) is None
    assert decide([A], everything, 0.9, at_rest=False) is None
    assert decide([A], everything, 1.0, at_rest=True) is None


# -- budget and worth


class Guessing:
    """A prefetch that has learned A, B, C, D, A ..."""

    def __init__(self, **settings: float) -> None:
        self.clocks = Clocks()
        self.prefetch = Prefetch(CacheConfig(**settings), self.clocks.monotonic)
        self.learn(*[A, B, C, D] * 10, A)

    def learn(self, *queries: Query) -> None:
        for query in queries:
            self.prefetch.observe("me", query)

    def next(self) -> Query | None:
        return self.prefetch.next(everything, at_rest=False)

    def resolve(self, count: int, used: bool) -> None:
        for _ in range(count):
            self.learn(A)
            self.clocks.now_s += 1
            guess = self.next()
            assert guess is not None
            self.prefetch.resolved(guess, used=used)


def test_each_guess_is_made_once_until_it_is_resolved():
    at = Guessing()
    assert [at.next() for _ in range(5)] == [B, C, D, A, None]
    at.prefetch.resolved(C, used=True)
    at.learn(B)
    assert at.next() == C


def test_no_more_guesses_than_the_budget_allows():
    at = Guessing(prefetch_per_s=2.0)
    assert [at.next() for _ in range(3)] == [B, C, None]
    at.clocks.now_s += 0.5
    at.learn(A)
    assert [at.next() for _ in range(2)] == [D, None]


def test_precision_counts_used_and_wasted_and_those_nobody_asked_for():
    at = Guessing()
    guesses = [at.next() for _ in range(4)]
    at.prefetch.resolved(guesses[0], used=True)
    at.prefetch.resolved(guesses[1], used=False)
    at.prefetch.resolved(Query("never guessed"), used=True)
    at.clocks.now_s += 61
    at.prefetch.next(lambda _query: False, at_rest=False)
    stats = at.prefetch.stats()
    assert (stats["predicted"], stats["used"], stats["wasted"]) == (4, 1, 3)
    assert stats["precision"] == 0.25


def test_bad_guesses_pause_it_and_a_while_later_it_tries_again():
    at = Guessing(prefetch_precision=0.5)
    at.resolve(20, used=False)
    assert at.prefetch.stats()["paused"]
    at.learn(A)
    assert at.next() is None
    at.clocks.now_s += 61
    at.learn(A)
    assert at.next() is not None
    assert not at.prefetch.stats()["paused"]


def test_after_a_pause_bad_guesses_pause_it_again_and_good_ones_do_not():
    at = Guessing(prefetch_precision=0.5)
    at.resolve(20, used=False)
    at.clocks.now_s += 61
    at.resolve(20, used=False)
    assert at.prefetch.stats()["pauses"] == 2
    at.clocks.now_s += 61
    at.resolve(300, used=True)
    assert at.prefetch.stats()["pauses"] == 2
    assert at.prefetch.stats()["precision"] == 1.0


def test_good_guesses_long_ago_do_not_outweigh_bad_ones_for_long():
    at = Guessing(prefetch_precision=0.5)
    at.resolve(5_000, used=True)
    bad = 0
    while not at.prefetch.stats()["paused"]:
        at.resolve(1, used=False)
        bad += 1
    assert bad < 300


# -- in the cache


@asynccontextmanager
async def running(at: Setting):
    """Have the cache make guesses in here, with a habit of asking A, B, C already learned."""
    for _ in range(6):
        for query in (A, B, C):
            await at.cache.get(query, "me")
    at.cache.drop_all()
    async with anyio.create_task_group() as tasks:
        await tasks.start(at.cache.run)
        await anyio.wait_all_tasks_blocked()
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_guessed_answer_waits_in_the_second_tier_and_moves_up_when_it_is_used():
    at = Setting(Shelf())
    async with running(at):
        assert (await at.cache.get(A, "me")).tier == "l2"  # guessed from C
        assert (await at.cache.get(A, "somebody else")).tier == "l1"
        await anyio.wait_all_tasks_blocked()
        assert (await at.cache.get(B, "me"))[1:] == ("l2", 0, 60_000)
    stats = at.cache.stats()["prefetch"]
    assert (stats["predicted"], stats["used"], stats["wasted"]) == (3, 2, 0)


@pytest.mark.anyio
async def test_a_guess_that_a_change_overtook_is_wasted():
    at = Setting()
    async with running(at):
        at.cache.drop("b")
        assert (await at.cache.get(B, "me")).tier == "tmux"
    assert at.cache.stats()["prefetch"]["wasted"] == 1


@pytest.mark.anyio
async def test_who_joins_a_guess_under_way_uses_it():
    at = Setting()
    for _ in range(6):
        for query in (A, B, C):
            await at.cache.get(query, "me")
    at.cache.drop_all()
    at.asked.gate = anyio.Event()
    answers = []

    async def ask() -> None:
        answers.append(await at.cache.get(A, "me"))

    async with anyio.create_task_group() as tasks:
        await tasks.start(at.cache.run)
        await anyio.wait_all_tasks_blocked()
        tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        at.asked.gate.set()
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert answers[0].tier == "tmux"
    assert at.cache.stats()["prefetch"]["used"] == 1


@pytest.mark.anyio
async def test_a_guess_that_fails_hurts_nobody():
    at = Setting()
    at.asked.answers = [1, 2, 3, LookupError("no")]
    async with running(at):
        assert (await at.cache.get(A, "me")).tier == "tmux"
    assert at.cache.stats()["prefetch"]["wasted"] == 1


@pytest.mark.anyio
@pytest.mark.parametrize("hindrance", ["off", "l2 off", "deaf", "slow", "not running"])
async def test_no_guesses_when_it_is_no_time_for_them(hindrance):
    at = Setting()
    if hindrance in ("off", "l2 off"):
        at.cache.set("prefetch" if hindrance == "off" else "l2", on=False)
    if hindrance == "deaf":
        at.cache.deaf()
    if hindrance == "slow":
        at.cache._flights.timing.lately_s = 1.0
    if hindrance == "not running":
        for _ in range(6):
            for query in (A, B, C):
                await at.cache.get(query, "me")
    else:
        async with running(at):
            pass
    assert at.cache.stats()["prefetch"]["predicted"] == 0


@pytest.mark.anyio
async def test_what_the_third_tier_has_is_not_asked_again():
    at = Setting(Shelf())
    async with running(at):
        at.clocks.now_s += 61
        asks = at.asked.count
        for query in (A, B, C):
            await at.cache.get(query, "me")
            await anyio.wait_all_tasks_blocked()
    assert at.asked.count == asks
    assert at.cache.stats()["l2"]["hits"] == 2
