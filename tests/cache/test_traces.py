"""Hit ratios and what guessing adds, on the traces of the bench: deterministic, so they may be asserted."""

from __future__ import annotations

import pytest

from bench._traces import Replayed, Trace, dashboard, human, replay, script


def both(trace: Trace) -> tuple[Replayed, Replayed]:
    """Replay without guesses and with them."""
    return replay(trace, prefetch=False), replay(trace, prefetch=True)


@pytest.mark.parametrize("trace", [dashboard(length_s=40), script(length_s=600)], ids=lambda trace: trace.name)
def test_a_trace_with_structure_is_served_and_guessing_spares_most_of_what_memory_lacks(trace):
    without, guessing = both(trace)
    assert guessing.hit_ratio >= 0.95
    assert guessing.memory_misses <= 0.6 * without.memory_misses
    assert guessing.asks <= 1.1 * without.asks
    assert guessing.stats["prefetch"]["precision"] >= 0.9


def test_a_person_is_served_all_but_what_changed_and_guessing_does_no_harm():
    without, guessing = both(human())
    for got in (without, guessing):
        assert got.tiers["tmux"] <= 1.2 * got.news  # the rest are answers older than the third tier serves
        assert got.hit_ratio >= 0.65
    assert guessing.hit_ratio >= without.hit_ratio
    assert guessing.asks <= 1.1 * without.asks


def test_a_replay_gives_the_same_each_time():
    first, second = (replay(script(length_s=200)) for _ in range(2))
    assert (first.tiers, first.asks, first.wait_ms) == (second.tiers, second.asks, second.wait_ms)
