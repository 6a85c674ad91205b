"""Whose turn it is to boot: each rule by an example, and what holds for any order of events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentd.agents.boots import Boots
from agentd.agents.line import Cost, Line, Party, Room, Ticket
from agentd.agents.profile import Boot, Profile
from agentd.config import AgentsConfig

MB = 1_000_000
ROOM = Room(cores=2.0, memory_free_bytes=1000 * MB, memory_reserve_bytes=300 * MB)
NODE = Cost(1.0, 200 * MB)
NOTHING = Cost()


def tickets(party: str, number: int, cost: Cost = NODE) -> list[Ticket]:
    return [Ticket(f"{party}{each}", cost) for each in range(number)]


def admitted(line: Line, booting: Sequence[Cost] = (), room: Room = ROOM) -> list[str]:
    return [ticket.id for ticket in line.admit(booting, room)]


def one_by_one(line: Line) -> Iterator[str]:
    """Yield whose turn it is while each boot is over before the next begins."""
    while len(line):
        yield from admitted(line, (), Room(1.0, 1000 * MB, 0))


# -- room


@pytest.mark.parametrize(
    ("cost", "booting", "why"),
    [
        (NODE, [NODE], ""),
        (NODE, [NODE, NODE], "2 cores"),
        (Cost(1.5), [Cost(0.5)], ""),
        (Cost(1.5), [Cost(0.6)], "2 cores"),
        (Cost(64.0, 90_000 * MB), [], ""),  # the only one always may
        (Cost(64.0, 90_000 * MB), [NOTHING], ""),
        (NOTHING, [NODE] * 9, ""),
        (Cost(0.1, 500 * MB), [Cost(0.1, 200 * MB)], ""),
        (Cost(0.1, 501 * MB), [Cost(0.1, 200 * MB)], "1000 MB of memory free"),
        (Cost(0.1), [Cost(0.1)] * 19, ""),  # tenths add up to two, in floating point too
    ],
)
def test_what_has_room_beside_what_boots(cost: Cost, booting: list[Cost], why: str):
    assert ROOM.hindrance(cost, booting) == why


def test_one_core_is_one_core():
    assert Room(1.0, 0, 0).hindrance(NODE, [NODE]) == "1 core"


# -- turns


def test_parties_take_turns_and_wait_in_order_within():
    line, big, small, other = Line(), Party(), Party(), Party()
    line.join(big, tickets("big", 4))
    line.join(small, tickets("small", 1))
    line.join(other, tickets("other", 2))
    assert list(one_by_one(line)) == ["big0", "small0", "other0", "big1", "other1", "big2", "big3"]


def test_a_party_that_comes_later_is_not_behind_all_of_another():
    line, big, late = Line(), Party(), Party()
    line.join(big, tickets("big", 100))
    assert admitted(line) == ["big0", "big1"]
    line.join(late, tickets("late", 1))
    assert admitted(line, [NODE]) == ["big2"]
    assert admitted(line, [NODE]) == ["late0"]


def test_refills_wait_for_every_user_and_then_have_their_turn():
    line, user = Line(), Party()
    line.join(Party(), tickets("refill", 1), refill=True)
    line.join(user, tickets("user", 3))
    assert admitted(line) == ["user0", "user1"]
    assert admitted(line, [NODE]) == ["user2"]
    assert admitted(line, [NODE, NODE]) == []
    assert admitted(line, [NODE]) == ["refill0"]


def test_nobody_passes_one_who_has_no_room_yet():
    line, large, small = Line(), Party(), Party()
    line.join(large, tickets("large", 1, Cost(2.0)))
    line.join(small, tickets("small", 1, Cost(0.1)))
    assert admitted(line, [NODE]) == []
    assert line.hindrance([NODE], ROOM) == "2 cores"
    assert admitted(line) == ["large0"]


def test_who_leaves_has_no_turn():
    line, party = Line(), Party()
    line.join(party, tickets("a", 3))
    line.leave({"a0", "a1"})
    assert (len(line), line.waiting(party)) == (1, 1)
    assert admitted(line) == ["a2"]
    assert (len(line), line.waiting(party), line.hindrance([], ROOM)) == (0, 0, "")


# -- any order of events

COSTS = st.builds(Cost, st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]), st.sampled_from([0, 100 * MB, 400 * MB, 2000 * MB]))
ROOMS = st.builds(Room, st.sampled_from([1.0, 2.0, 4.0]), st.integers(0, 3000).map(MB.__mul__), st.just(300 * MB))
EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("join"), st.integers(0, 3), st.lists(COSTS, min_size=1, max_size=4)),
        st.tuples(st.just("refill"), COSTS),
        st.tuples(st.just("end"), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("room"), ROOMS),
    ),
    max_size=40,
)


@dataclass
class World:
    """A line, what boots, and who waits since when: the plain bookkeeping that the line is checked by."""

    line: Line = field(default_factory=Line)
    booting: dict[str, Cost] = field(default_factory=dict)
    users: dict[Party, list[str]] = field(default_factory=dict)
    refills: list[str] = field(default_factory=list)
    costs: dict[str, Cost] = field(default_factory=dict)
    overtaken: dict[tuple[Party, Party], int] = field(default_factory=dict)  # how often while both waited

    def admit(self, room: Room) -> None:
        before = list(self.booting.values())
        for id_, cost in self.line.admit(before, room):
            assert not room.hindrance(cost, list(self.booting.values()))
            self.booting[id_] = cost
            self._took(id_)
        costs = list(self.booting.values())
        if len(costs) > 1 and len(costs) > len(before):
            assert sum(each.cores for each in costs) <= room.cores + 1e-6
            assert room.memory_free_bytes - sum(each.memory_bytes for each in costs) >= room.memory_reserve_bytes
        assert self.booting or not len(self.line), "somebody waits and nobody boots"
        assert self.line.admit(costs, room) == [], "all that had room had their turn"
        assert len(self.line) == len(self.refills) + sum(map(len, self.users.values()))

    def leave(self, number: int) -> None:
        waiting = [id_ for ids in (*self.users.values(), self.refills) for id_ in ids]
        if not waiting:
            return
        gone = waiting[number % len(waiting)]
        self.line.leave({gone})
        for ids in (*self.users.values(), self.refills):
            if gone in ids:
                ids.remove(gone)
        self.overtaken = {pair: times for pair, times in self.overtaken.items() if self.users[pair[1]]}

    def _took(self, id_: str) -> None:
        party = next((party for party, ids in self.users.items() if id_ in ids), None)
        if party is None:
            assert not any(self.users.values()), "a refill went before a user"
            assert self.refills.pop(0) == id_
            return
        assert self.users[party].pop(0) == id_, "out of order within its party"
        for other, waiting in self.users.items():
            if other is not party and waiting:
                self.overtaken[party, other] = self.overtaken.get((party, other), 0) + 1
                assert self.overtaken[party, other] <= 1, "twice in a row before a party that waits"
            self.overtaken.pop((other, party), None)


@settings(deadline=None, max_examples=200)
@given(EVENTS, ROOMS)
def test_turns_are_fair_within_the_room_and_never_stuck(events: list[tuple], room: Room):
    world, parties, numbers = World(), [Party() for _ in range(4)], count()
    for event, *what in events:
        match event:
            case "join":
                which, costs = what
                new = [Ticket(f"t{next(numbers)}", cost) for cost in costs]
                world.line.join(parties[which], new)
                world.users.setdefault(parties[which], []).extend(ticket.id for ticket in new)
            case "refill":
                world.refills.append(f"t{next(numbers)}")
                world.line.join(Party(), [Ticket(world.refills[-1], what[0])], refill=True)
            case "end" if world.booting:
                world.booting.pop(sorted(world.booting)[what[0] % len(world.booting)])
            case "leave":
                world.leave(what[0])
            case "room":
                room = what[0]
        world.admit(room)
    while world.booting:
        world.booting.pop(next(iter(world.booting)))
        world.admit(room)
    assert not len(world.line), "all have their turn in the end"


# -- waiting for a turn

PROFILE = Profile(name="node", command="node", boot=Boot(timeout_s=20.0, cores=1.0, memory_mb=0))
FREE = Profile(name="free", command="sh", boot=Boot(cores=0.0, memory_mb=0))


def boots(**settings: float) -> Boots:
    return Boots(AgentsConfig(**{"boots_cores": 1.0, "boots_reserve_mb": 0} | settings))


@pytest.mark.anyio
async def test_a_turn_comes_when_a_boot_ends():
    gate = boots()
    with gate.turns(Party(), {"a": PROFILE, "b": PROFILE}) as turns, anyio.fail_after(10):
        assert await turns.next() == ["a"]
        assert turns.left == {"b"}
        assert gate.hindrance() == "1 core"
        gate.ended("a")
        assert await turns.next() == ["b"]
        assert await turns.next() == []


@pytest.mark.anyio
async def test_what_costs_nothing_has_its_turn_at_once():
    gate = boots()
    with gate.turns(Party(), {"a": PROFILE}) as first:
        assert await first.next() == ["a"]
        with gate.turns(Party(), {"b": PROFILE, "c": FREE, "d": FREE}) as second:
            assert await second.next() == ["c", "d"]


@pytest.mark.anyio
async def test_a_boot_counts_no_longer_than_its_profile_gives_it():
    gate, short = boots(), Profile(name="short", command="x", boot=Boot(timeout_s=0.2, cores=1.0))
    with gate.turns(Party(), {"a": short, "b": short}) as turns, anyio.fail_after(10):
        assert await turns.next() == ["a"]
        assert await turns.next() == ["b"]


@pytest.mark.anyio
async def test_a_deadline_leaves_time_to_say_who_was_left():
    gate = boots()
    with anyio.fail_after(0.4), gate.turns(Party(), {"a": PROFILE, "b": PROFILE}) as turns:
        assert await turns.next() == ["a"]
        assert await turns.next() == []
        assert turns.left == {"b"}
        assert turns.too_late().message.endswith("in the time allowed (1 core)")
    gate.ended("a")
    with gate.turns(Party(), {"c": PROFILE}) as turns, anyio.fail_after(10):
        assert await turns.next() == ["c"], "who was left waits no more"


@pytest.mark.anyio
async def test_a_caller_who_goes_away_gives_back_every_turn():
    """Also one that had come and was not taken yet."""
    gate = boots(boots_cores=2.0)
    with gate.turns(Party(), {"a": PROFILE, "b": PROFILE, "c": PROFILE}):
        pass
    with gate.turns(Party(), {"d": PROFILE, "e": PROFILE}) as turns:
        assert await turns.next() == ["d", "e"]


@pytest.mark.anyio
async def test_one_that_is_given_up_while_it_waits_has_no_turn():
    gate = boots()
    with gate.turns(Party(), {"a": PROFILE}) as first, gate.turns(Party(), {"b": PROFILE}, refill=True) as second:
        assert await first.next() == ["a"]
        gate.give_up(["b"])
        with anyio.fail_after(10):
            assert await second.next() == []


@pytest.mark.anyio
async def test_memory_that_is_short_lets_one_boot_at_a_time():
    gate = boots(boots_cores=64.0, boots_reserve_mb=1_000_000)
    with gate.turns(Party(), {"a": PROFILE, "b": PROFILE}) as turns, anyio.fail_after(10):
        assert await turns.next() == ["a"]
        assert gate.hindrance().endswith(" MB of memory free")
        gate.ended("a")
        assert await turns.next() == ["b"]


@pytest.mark.anyio
async def test_those_that_were_booting_before_count():
    gate = boots()
    gate.count("old", PROFILE)
    gate.count("shell", FREE)
    with gate.turns(Party(), {"a": PROFILE}) as turns, anyio.fail_after(10):
        assert gate.hindrance() == "1 core"
        gate.ended("old")
        assert await turns.next() == ["a"]
