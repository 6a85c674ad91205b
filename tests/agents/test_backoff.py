"""Back-off doubles, is spread by a fifth either way, and has an end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.backoff import LONGEST_S, backoff_s


@pytest.mark.parametrize(("attempt", "chance", "wait_s"), [(1, 0.5, 2.0), (1, 0.0, 1.6), (1, 1.0, 2.4), (4, 0.5, 16.0)])
def test_it_doubles_and_is_spread(attempt: int, chance: float, wait_s: float):
    assert backoff_s(2.0, attempt, chance) == pytest.approx(wait_s)


@given(st.floats(0.01, 300), st.integers(1, 100), st.floats(0, 1))
def test_it_has_an_end(first_s: float, attempt: int, chance: float):
    assert 0.8 * min(first_s, LONGEST_S) <= backoff_s(first_s, attempt, chance) * 1.0000001
    assert backoff_s(first_s, attempt, chance) <= 1.2000001 * LONGEST_S
