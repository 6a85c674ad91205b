"""The breaker of a profile: opens after three, waits longer each time, and always lets one boot try again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.agents.breaker import FAILURES, LONGEST_S, Breaker


def failing(times: int, now_s: float = 0.0, chance: float = 0.5) -> tuple[Breaker, float]:
    """Return a breaker after so many failures, each as soon as one may boot again, and when the last one was."""
    breaker = Breaker()
    for _ in range(times):
        now_s += breaker.left_s(now_s)
        breaker = breaker.failed(now_s, chance, "exit status 1")
    return breaker, now_s


def test_two_failures_leave_it_closed_and_a_success_forgets_them():
    breaker, _ = failing(2)
    assert breaker.closed
    breaker = breaker.worked()
    assert breaker.failed(0.0, 0.5, "x").failed(0.0, 0.5, "x").closed


def test_it_opens_for_longer_each_time_and_never_for_more_than_five_minutes():
    waits = [failing(FAILURES + n)[0].wait_s for n in range(60)]
    assert waits[:9] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert set(waits[9:]) == {LONGEST_S}


def test_failures_of_boots_that_began_before_it_opened_do_not_lengthen_the_wait():
    breaker, now_s = failing(FAILURES)
    assert breaker.failed(now_s, 0.5, "another") == breaker


def test_after_the_wait_one_may_try_and_a_success_closes_it():
    breaker, now_s = failing(FAILURES + 3)
    assert breaker.left_s(now_s + 7.9) > 0
    assert breaker.left_s(now_s + 8.0) == 0
    assert not breaker.closed
    assert breaker.worked().closed


def test_what_is_told_of_it():
    breaker, now_s = failing(FAILURES + 4)
    assert breaker.told(now_s + 4) == "quarantined for another 12 s after 7 boots that failed: exit status 1"
    assert breaker.told(now_s + 60) == "tries one boot after 7 boots that failed: exit status 1"
    assert breaker.worked().told(now_s) == ""


@pytest.mark.parametrize("jump_s", [-1e6, -1.0, 1e6])
def test_a_clock_that_jumps_never_makes_the_wait_longer(jump_s: float):
    breaker, now_s = failing(20)
    assert breaker.left_s(now_s + jump_s) <= breaker.wait_s


@given(st.integers(FAILURES, 400), st.floats(0, 1), st.floats(-1e7, 1e7))
@settings(deadline=None)
def test_it_can_always_close_again(times: int, chance: float, now_s: float):
    breaker, now_s = failing(times, now_s, chance)
    assert 0 < breaker.wait_s <= LONGEST_S
    assert breaker.left_s(now_s + LONGEST_S) == 0
    assert breaker.worked() == Breaker()
