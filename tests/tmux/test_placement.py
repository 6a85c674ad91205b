"""Where a new agent goes: decided by counts alone."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.config import SERVERS
from agentd.tmux.placement import AUTO, AUTO_SERVERS, bounds, place, wanted

LOADS = st.dictionaries(st.integers(0, 15), st.integers(0, 12), max_size=12)
INDICES = st.frozensets(st.integers(0, 15), max_size=6)
SETTING = st.sampled_from(SERVERS)
FULL = st.integers(1, 10)
# Agents that come (True) and go, each from the server with this place in the row.
LIFE = st.lists(st.tuples(st.booleans(), st.integers(0, 15)), max_size=120)


def lived(life: Sequence[tuple[bool, int]], servers: str, full: int) -> list[tuple[dict[int, int], int]]:
    """Return the loads before each agent that came, and where it went."""
    loads: dict[int, int] = {0: 0}
    came = []
    for comes, where in life:
        if comes:
            index = place(loads, (), *bounds(servers, full))
            came.append((dict(loads), index))
            loads[index] = loads.get(index, 0) + 1
        elif loads.get(where):
            loads[where] -= 1
    return came


@given(life=LIFE, full=FULL)
def test_auto_never_passes_the_cap_while_another_server_can_be_started(life: list[tuple[bool, int]], full: int) -> None:
    for loads, index in lived(life, AUTO, full):
        assert loads.get(index, 0) < full or len(loads) == AUTO_SERVERS
        assert index in loads or min(loads.values()) >= full, "a server more than was needed"
        assert 0 <= index < AUTO_SERVERS


@given(life=LIFE, count=st.integers(1, 16))
def test_a_number_spreads_the_agents_over_so_many(life: list[tuple[bool, int]], count: int) -> None:
    for loads, index in lived(life, str(count), 1):
        assert 0 <= index < count
        assert index not in loads or loads[index] == 0 or len(loads) == count, "a server was not started"
    only_come = lived([(True, 0)] * (3 * count), str(count), 1)
    assert sorted(index for _, index in only_come) == sorted([*range(count)] * 3)


@given(loads=LOADS, resting=INDICES, servers=SETTING, full=FULL)
def test_the_least_loaded_of_those_that_may_be_used(
    loads: dict[int, int], resting: frozenset[int], servers: str, full: int
) -> None:
    allowed, cap = bounds(servers, full)
    index = place(loads, resting, allowed, cap)
    usable = {i: load for i, load in loads.items() if i in allowed and i not in resting}
    assert index in allowed
    if index in usable:
        assert (usable[index], index) == min((load, i) for i, load in usable.items())
    elif usable:
        assert index not in loads
        assert index not in resting
    shuffled = dict(sorted(loads.items(), key=lambda item: -item[0]))
    assert place(shuffled, resting, allowed, cap) == index, "the order in which servers were started decides"


@pytest.mark.parametrize(
    ("loads", "resting", "servers", "where"),
    [
        ({0: 3}, (), "auto", 0),
        ({0: 4}, (), "auto", 1),
        ({0: 4, 2: 4}, (), "auto", 1),
        ({0: 4}, (1,), "auto", 0),  # one more could not be started a moment ago
        ({0: 4, 1: 0}, (1,), "auto", 2),  # a server that has just died and is being started again
        ({0: 0}, (0,), "auto", 1),
        (dict.fromkeys(range(8), 4), (), "auto", 0),
        ({0: 2, 1: 9, 2: 0}, (), "1", 0),  # what an earlier setting started is left alone
        ({0: 0}, (0,), "1", 0),  # there is no other: the caller is told what is the matter with it
        ({0: 1}, (), "3", 1),
        ({0: 5}, (1,), "3", 0),
    ],
)
def test_cases(loads: dict[int, int], resting: tuple[int, ...], servers: str, where: int) -> None:
    assert place(loads, resting, *bounds(servers, 4)) == where


@given(
    st.dictionaries(st.integers(0, 7), st.integers(0, 50), max_size=8),
    st.integers(0, 400),
    st.integers(1, 50),
)
def test_as_many_servers_are_wanted_as_the_agents_fill(loads: dict[int, int], more: int, full: int):
    new = wanted(loads, more, range(8), full)
    assert len(new) == len(set(new))
    assert not set(new) & set(loads)
    there = len(loads) + len(new)
    assert there <= 8
    agents = sum(loads.values()) + more
    assert there * full >= agents or there == 8, "room for all, as far as there may be servers"
    assert not new or (there - 1) * full < agents, "none more than that"
