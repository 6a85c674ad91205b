"""Demand: quick to believe more, slow to believe less, and never wrong for longer than its half-lives."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.agents.demand import (
    BURST_HALF_LIFE_S,
    BURST_HELD_S,
    FIRST_BOOT_S,
    LONGEST_BOOT_S,
    MOST_ASKINGS,
    Demand,
)

NOW_S = 5000.0


def steady(per_s: float, seconds: float, boot_s: float = 2.0) -> Demand:
    """Return what was asked for evenly until NOW_S."""
    demand = Demand()
    demand.booted(boot_s)
    number = round(seconds * per_s)
    for n in range(number):
        demand.asked(NOW_S - (number - n) / per_s)
    return demand


def test_nothing_asked_for_wants_nothing():
    assert Demand().wanted(NOW_S) == (0, "nothing asked for lately, boots take 5.0 s")


def test_it_says_what_it_counted():
    demand = steady(0.05, 3600.0, boot_s=4.1)
    demand.asked(NOW_S, 10)
    number, why = demand.wanted(NOW_S + 3600.0 - BURST_HALF_LIFE_S - 1100.0)
    assert number == 10
    assert why.startswith("0.")
    assert why.endswith("asked for a minute, boots take 4.1 s, bursts of 10")


@pytest.mark.parametrize(("per_s", "boot_s"), [(0.02, 2.0), (0.5, 2.0), (0.5, 12.0), (3.0, 2.0)])
def test_a_steady_rate_is_estimated_and_met_with_room(per_s: float, boot_s: float):
    demand = steady(per_s, 3600.0, boot_s)
    number, _ = demand.wanted(NOW_S)
    assert demand.per_s == pytest.approx(per_s, rel=0.3)
    assert per_s * boot_s < number <= 2 + 2 * per_s * boot_s + 3 * math.sqrt(per_s * boot_s)


def test_more_is_believed_within_a_minute_and_less_only_after_minutes():
    demand = steady(0.1, 3600.0)
    for n in range(60):
        demand.asked(NOW_S + n)
    assert demand.per_s > 0.6
    demand.wanted(NOW_S + 60.0 + 120.0)
    assert demand.per_s > 0.1
    demand.wanted(NOW_S + 60.0 + 1800.0)
    assert demand.per_s < 0.01


def test_slow_boots_want_more_at_the_same_rate():
    assert steady(0.5, 600.0, boot_s=12.0).wanted(NOW_S).number > steady(0.5, 600.0).wanted(NOW_S).number


def test_a_burst_is_what_was_asked_for_within_one_boot_time():
    together, apart = steady(1.0, 0.0), steady(1.0, 0.0)
    for n in range(10):
        together.asked(NOW_S + 0.19 * n)
        apart.asked(NOW_S + 30.0 * n)
    assert together.wanted(NOW_S + 2.0).number == 10
    assert apart.wanted(NOW_S + 300.0).number <= 2


def test_a_burst_is_held_whole_then_halves_then_is_nothing():
    demand = Demand()
    demand.asked(NOW_S, 16)
    later = [demand.wanted(NOW_S + BURST_HELD_S + n * BURST_HALF_LIFE_S).number for n in range(7)]
    assert later == [16, 8, 4, 2, 1, 0, 0]


def test_a_smaller_burst_takes_over_only_when_the_larger_has_faded():
    demand = Demand()
    demand.asked(NOW_S, 16)
    demand.asked(NOW_S + BURST_HELD_S, 7)
    assert demand.wanted(NOW_S + BURST_HELD_S).number == 16
    later_s = NOW_S + BURST_HELD_S + 1.5 * BURST_HALF_LIFE_S
    demand.asked(later_s, 7)
    assert demand.wanted(later_s + BURST_HELD_S).number == 7


def test_the_boot_time_follows_the_slow_ones():
    demand = Demand()
    for _ in range(30):
        for took_s in (2.0, 2.0, 2.0, 2.0, 4.0):
            demand.booted(took_s)
    assert 2.5 < demand.boot_s < 4.0
    for _ in range(100):
        demand.booted(1.0)
    assert demand.boot_s < 1.1


@pytest.mark.parametrize("took_s", [-1.0, math.nan, math.inf, LONGEST_BOOT_S + 1])
def test_a_boot_time_that_cannot_be_is_left_out(took_s: float):
    demand = Demand()
    demand.booted(took_s)
    assert demand.boot_s == FIRST_BOOT_S


def test_a_flood_is_remembered_in_bounds():
    demand = Demand()
    for _ in range(3 * MOST_ASKINGS):
        demand.asked(NOW_S)
    assert demand.wanted(NOW_S).number >= MOST_ASKINGS
    assert len(demand._askings) == MOST_ASKINGS


def test_a_clock_that_is_set_back_stands_still_and_goes_on():
    demand = Demand()
    demand.asked(NOW_S, 16)
    assert demand.wanted(NOW_S - 1e6).number == 16
    assert demand.wanted(NOW_S - 1e6 + BURST_HELD_S + BURST_HALF_LIFE_S).number == 8


jumps_s = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(jumps_s, st.integers(0, 30), st.floats(0, LONGEST_BOOT_S)), max_size=30), jumps_s)
@settings(deadline=None)
def test_whatever_the_clock_does_it_wants_a_number_and_forgets(
    steps: list[tuple[float, int, float]], last_jump_s: float
):
    demand, now_s, most = Demand(), NOW_S, 0
    for jump_s, number, took_s in steps:
        now_s += jump_s
        if number:
            demand.asked(now_s, number)
        demand.booted(took_s)
        most += number
        now = demand.wanted(now_s)
        assert now == demand.wanted(now_s)  # asking for it changes nothing
        assert now.number >= 0
        assert now.number <= 3 + most + demand.per_s * demand.boot_s + 3 * math.sqrt(most + demand.boot_s)
    now_s += last_jump_s
    before = demand.wanted(now_s).number
    assert demand.wanted(now_s + 60.0).number <= before
    forgotten_s = BURST_HELD_S + BURST_HALF_LIFE_S * (2 + math.log2(max(1, most)))
    assert demand.wanted(now_s + 60.0 + forgotten_s).number == 0
