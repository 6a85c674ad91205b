"""decide(): each rule by a snapshot that needs it, and what holds for any snapshot."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pool_world import FREE, HERE, LIMITS, MB, THERE, slots, snapshot, view

from agentd.agents.breaker import FAILURES, Breaker
from agentd.agents.shares import shares
from agentd.agents.sizing import Action, Boot, Decision, End, decide
from agentd.agents.slots import Place, Slot, SlotState
from agentd.agents.snapshot import PlaceView

TIGHT = replace(FREE, memory_free_bytes=1100 * MB)  # less than a slot above the reserve
SCARCE = replace(FREE, memory_free_bytes=100 * MB)  # far below the reserve
LOADED = replace(FREE, load_per_core=2.5)


def booted(decision: Decision) -> list[Place]:
    return [action.place for action in decision.actions if isinstance(action, Boot)]


def ended(decision: Decision) -> dict[str, str]:
    return {action.slot_id: action.why for action in decision.actions if isinstance(action, End)}


def broken(failures: int = FAILURES, now_s: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(failures):
        breaker = breaker.failed(now_s - 0.5, 0.5, "exit status 1")
    return breaker


# -- boots


def test_what_is_short_is_booted_as_far_as_may_at_once():
    decision = decide(snapshot(view(want=10, has=slots(1) + slots(1, SlotState.BOOTING, since_s=90.0))))
    assert decision.actions == [Boot(HERE)] * 3
    assert decision.places[0].target == 10
    assert decision.places[0].why == "4 are booting, which is as many as may at once; 10 asked for"


@pytest.mark.parametrize(
    ("want", "floor", "ceiling", "target"), [(3, 5, 9, 5), (30, 5, 9, 9), (7, 5, 9, 7), (7, 5, 0, 0)]
)
def test_the_target_is_between_floor_and_ceiling(want: int, floor: int, ceiling: int, target: int):
    assert decide(snapshot(view(want=want, floor=floor, ceiling=ceiling))).places[0].target == target


@pytest.mark.parametrize(
    ("changes", "boots", "why"),
    [
        ({"boots_left": 2}, 2, "boots are spread out"),
        ({"boots_left": 0}, 0, "boots are spread out"),
        (
            {"machine": TIGHT},
            0,
            "paused: 1100 MB of memory are free, 1000 MB are reserved and a slot takes 300 MB",
        ),
        ({"machine": replace(FREE, memory_free_bytes=1700 * MB)}, 2, "paused: 1700 MB of memory are free"),
        ({"machine": LOADED}, 0, "paused: the load is 2.5 a core, of 2.0"),
        ({"machine": replace(FREE, users_booting=3)}, 1, "waits: 3 that users asked for are booting"),
        (
            {"machine": replace(FREE, users_booting=3, load_per_core=1.5)},
            0,
            "waits: 3 that users asked for are booting",
        ),
        ({"machine": replace(FREE, agents_live=998)}, 2, "2 wanted"),
        ({"machine": replace(FREE, agents_live=1000)}, 0, "10 wanted, 0 is its share of the pool"),
        ({"limits": replace(LIMITS, max_slots=3)}, 3, "10 wanted, 3 is its share of the pool"),
    ],
)
def test_what_holds_boots_back_is_told(changes: dict[str, object], boots: int, why: str):
    decision = decide(snapshot(view(want=10), **changes))  # type: ignore[arg-type]
    assert len(booted(decision)) == boots
    assert why.removeprefix("2 wanted") in decision.places[0].why


def test_floors_are_booted_first_then_where_the_smallest_part_is_there():
    places = [view(want=10, has=slots(5)), view(THERE, want=4, floor=1, has=[])]
    assert booted(decide(snapshot(*places))) == [THERE, THERE, HERE, THERE]

    places = [view(want=10, has=slots(1)), view(THERE, want=4, floor=4, has=slots(2, place=THERE))]
    assert booted(decide(snapshot(*places)))[:2] == [THERE, THERE]


def test_what_is_ending_still_takes_its_place():
    ending = slots(2, SlotState.ENDING)
    decision = decide(snapshot(view(floor=3, ceiling=3, has=slots(1) + ending)))
    assert decision.actions == []
    assert decision.places[0].why.startswith("waits for 2 to end")
    decision = decide(snapshot(view(floor=3, has=ending), limits=replace(LIMITS, max_slots=3)))
    assert booted(decision) == [HERE]
    assert decision.places[0].why.startswith("the pool has 3 slots, which is as many as it may")


def test_held_slots_are_their_holders_affair():
    decision = decide(snapshot(view(floor=1, has=slots(3, SlotState.HELD))))
    assert decision.actions == [Boot(HERE)]


# -- quarantine


def test_a_profile_whose_boots_fail_is_left_alone_and_the_others_are_not():
    breakers = {HERE.profile: broken()}
    decision = decide(snapshot(view(want=2), view(THERE, want=2), breakers=breakers))
    assert booted(decision) == [THERE, THERE]
    assert decision.places[0].why.startswith("quarantined for another 0 s after 3 boots that failed: exit status 1; ")


def test_after_the_wait_one_boot_tries_wherever_the_profile_is_kept():
    elsewhere = Place(HERE.profile, "/elsewhere")
    breakers = {HERE.profile: broken()}
    places = [view(want=2), view(elsewhere, want=2)]
    assert booted(decide(snapshot(*places, breakers=breakers, now_s=105.0))) == [HERE]
    trying = [view(want=2), view(elsewhere, want=2, has=slots(1, SlotState.BOOTING, elsewhere, since_s=104.0))]
    assert booted(decide(snapshot(*trying, breakers=breakers, now_s=105.0))) == []


# -- ends


def test_what_is_unhealthy_or_never_gets_ready_is_ended_at_once():
    sick = Slot("sick", HERE, SlotState.UNHEALTHY, 99.0, why="its screen does not change")
    slow = Slot("slow", HERE, SlotState.BOOTING, 39.0)
    decision = decide(snapshot(view(floor=2, has=[sick, slow])))
    assert ended(decision) == {"sick": "its screen does not change", "slow": "it was not ready within 60 s"}
    assert len(booted(decision)) == 2


def test_a_place_that_is_closed_is_emptied_at_once_whatever_it_wants():
    closed = replace(view(floor=3, want=5, has=slots(2) + slots(1, SlotState.BOOTING, since_s=90.0)), closed="drained")
    decision = decide(snapshot(closed))
    assert set(ended(decision).values()) == {"drained"}
    assert len(decision.actions) == 3
    assert (decision.places[0].target, decision.places[0].why) == (0, "drained")


def test_what_is_above_the_ceiling_goes_at_once_the_oldest_first():
    decision = decide(snapshot(view(ceiling=2, want=9, has=slots(5))))
    assert list(ended(decision)) == [slot.id for slot in slots(3)]


def test_what_there_is_no_room_for_goes_at_once_from_where_there_is_too_much():
    machine = replace(FREE, agents_live=1003)  # users have taken what was the pool's
    decision = decide(snapshot(view(want=2, has=slots(2)), view(THERE, has=slots(6, place=THERE)), machine=machine))
    assert list(ended(decision)) == [slot.id for slot in slots(3, place=THERE)]


def test_under_hard_pressure_the_oldest_go_down_to_the_floors():
    mine, theirs = slots(5, since_s=50.0), slots(5, place=THERE)
    places = [view(floor=1, want=5, has=mine), view(THERE, floor=4, want=5, has=theirs)]
    decision = decide(snapshot(*places, machine=SCARCE))
    assert list(ended(decision)) == [theirs[0].id, mine[0].id, mine[1].id]  # 900 MB are missing
    assert set(ended(decision).values()) == {"only 100 MB of memory are free"}
    floors = [view(floor=5, has=mine), view(THERE, floor=5, has=theirs)]
    assert decide(snapshot(*floors, machine=SCARCE)).actions == []


def test_what_ends_already_counts_when_memory_is_short():
    sick = Slot("sick", HERE, SlotState.UNHEALTHY, 99.0, why="it asks for a login")
    has = [sick, *slots(1, SlotState.ENDING), *slots(5)]
    assert list(ended(decide(snapshot(view(want=5, has=has), machine=SCARCE)))) == ["sick", slots(1)[0].id]


def over(now_s: float, since_s: float | None, want: int = 2, has: int = 5) -> Decision:
    return decide(snapshot(replace(view(want=want, has=slots(has)), over_since_s=since_s), now_s=now_s))


def test_when_fewer_are_wanted_the_oldest_goes_after_the_grace_and_one_in_each():
    first = over(100.0, None)
    assert (first.actions, first.places[0].over_since_s) == ([], 100.0)
    assert over(129.0, 100.0).actions == []
    due = over(130.0, 100.0)
    assert ended(due) == {slots(1)[0].id: "2 are enough by now"}
    assert due.places[0].over_since_s == 130.0
    assert over(131.0, 100.0, want=5).places[0].over_since_s is None  # wanted again
    assert over(50.0, 100.0).places[0].over_since_s == 50.0  # the clock was set back


# -- age

OLD_S = LIMITS.max_age_s + 100.0


def test_an_old_one_is_replaced_new_one_first_and_one_at_a_time():
    old = slots(2)
    assert decide(snapshot(view(floor=2, has=old), now_s=OLD_S)).actions == [Boot(HERE)]
    new = Slot("new", HERE, SlotState.BOOTING, OLD_S)
    assert decide(snapshot(view(floor=2, has=[*old, new]), now_s=OLD_S)).actions == []
    ready = replace(new, state=SlotState.READY)
    decision = decide(snapshot(view(floor=2, has=[*old, ready]), now_s=OLD_S))
    assert decision.actions == [End(old[0].id, "it had been ready for 4.0 h")]
    going = replace(old[0], state=SlotState.ENDING)
    assert decide(snapshot(view(floor=2, has=[going, old[1], ready]), now_s=OLD_S)).actions == []


def test_without_room_for_both_the_old_one_goes_first():
    decision = decide(snapshot(view(floor=2, ceiling=2, has=slots(2)), now_s=OLD_S))
    assert list(ended(decision)) == [slots(1)[0].id]
    assert booted(decision) == []


def test_what_is_being_replaced_is_not_replaced_twice():
    new = Slot("new", HERE, SlotState.BOOTING, OLD_S)
    assert decide(snapshot(view(floor=3, has=[*slots(2), new]), now_s=OLD_S)).actions == []


def test_the_last_room_is_given_once():
    places = [view(floor=1, has=slots(1)), view(THERE, floor=1, has=slots(1, place=THERE))]
    machine = replace(FREE, agents_live=999)
    decision = decide(snapshot(*places, now_s=OLD_S, machine=machine))
    assert booted(decision) == [HERE]
    assert list(ended(decision)) == [slots(1, place=THERE)[0].id]


def test_a_place_without_worktrees_does_not_stop_its_profile_elsewhere():
    """What is wrong there is the repository or its setup command; it is tried by itself, too."""
    elsewhere = replace(HERE, cwd="/elsewhere")
    places = (replace(view(want=2), breaker=broken()), view(elsewhere, want=2))
    decision = decide(snapshot(*places))
    assert booted(decision) == [elsewhere] * 2
    assert "quarantined" in decision.places[0].why
    assert "quarantined" not in decision.places[1].why
    later = decide(snapshot(*places, now_s=105.0))
    assert Counter(booted(later)) == {HERE: 1, elsewhere: 2}, "one to try"


@pytest.mark.parametrize("changes", [{"machine": LOADED}, {"breakers": {HERE.profile: broken(now_s=OLD_S)}}])
def test_an_old_one_is_kept_while_nothing_can_replace_it(changes: dict[str, object]):
    full = view(floor=2, ceiling=2, has=slots(2))
    assert decide(snapshot(full, now_s=OLD_S, **changes)).actions == []  # type: ignore[arg-type]


# -- shares

places_of_the_pool = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 30)), max_size=8)


@given(places_of_the_pool, st.integers(0, 60))
@settings(deadline=None)
def test_shares_are_fair(asked: list[tuple[int, int]], most: int):
    floors, goals = [floor for floor, _ in asked], [floor + more for floor, more in asked]
    given_ = shares(floors, goals, most)
    assert sum(given_) == min(most, sum(goals))
    assert all(share <= goal for share, goal in zip(given_, goals, strict=True))
    if any(share < floor for share, floor in zip(given_, floors, strict=True)):
        assert all(share <= floor for share, floor in zip(given_, floors, strict=True))
    for mine, my_floor, my_goal in zip(given_, floors, goals, strict=True):
        for share, floor, goal in zip(given_, floors, goals, strict=True):
            if mine < my_goal and mine >= my_floor and share > floor:  # I could have had the other's last one
                assert (share - 1) / goal <= mine / my_goal + 1e-9


# -- whatever the snapshot

states = st.sampled_from(list(SlotState))
times_s = st.floats(0, 200).map(lambda s: round(s, 1))
numbers = st.integers(0, 12)


@st.composite
def views(draw: st.DrawFn, place: Place) -> PlaceView:
    found = draw(st.lists(st.tuples(states, times_s), max_size=12))
    has = [Slot(f"{place.cwd}{n}", place, state, since_s) for n, (state, since_s) in enumerate(found)]
    made = view(place, floor=draw(numbers), ceiling=draw(numbers), want=draw(numbers), has=has)
    closed = draw(st.sampled_from(["", "", "", "drained"]))
    return replace(made, closed=closed, over_since_s=draw(st.none() | times_s))


@st.composite
def snapshots(draw: st.DrawFn):
    wheres = [HERE, THERE, Place(HERE.profile, "/elsewhere")]
    machine = replace(
        FREE,
        memory_free_bytes=draw(st.sampled_from([0, 400, 900, 1300, 2300, 64_000])) * MB,
        load_per_core=draw(st.sampled_from([0.1, 1.5, 2.5])),
        users_booting=draw(st.integers(0, 2)),
        agents_max=draw(st.integers(1, 40)),
    )
    limits = replace(LIMITS, max_slots=draw(st.integers(0, 30)), max_age_s=draw(st.sampled_from([20.0, 3600.0])))
    all_ = [draw(views(place)) for place in wheres]
    live = sum(len(one.slots) for one in all_) + draw(numbers)
    machine = replace(machine, agents_live=max(1, live))
    breakers = draw(st.sampled_from([{}, {HERE.profile: broken()}, {HERE.profile: broken(now_s=90.0)}]))
    return snapshot(*all_, machine=machine, limits=limits, breakers=breakers, boots_left=draw(st.integers(0, 6)))


def carried_out(before, decision: Decision):
    """Return the snapshot as it is when everything has begun that was decided, and nothing has come to its end."""
    rows = {row.place: row for row in decision.places}
    ends, boots = ended(decision), booted(decision)
    after = []
    for number, one in enumerate(before.places):
        left = [replace(s, state=SlotState.ENDING) if s.id in ends else s for s in one.slots]
        new = [
            Slot(f"new{number}-{n}", one.place, SlotState.BOOTING, before.now_s) for n in range(boots.count(one.place))
        ]
        after.append(replace(one, slots=(*left, *new), over_since_s=rows[one.place].over_since_s))
    machine = replace(before.machine, agents_live=before.machine.agents_live + len(boots))
    return replace(before, places=after, machine=machine, boots_left=before.boots_left - len(boots))


def alive(one: PlaceView, ends: dict[str, str]) -> int:
    fit = (SlotState.BOOTING, SlotState.READY)
    return sum(slot.state in fit and slot.id not in ends for slot in one.slots)


@given(snapshots())
@settings(deadline=None, max_examples=200)
def test_what_was_decided_is_enough_and_stays_within_the_limits(before):
    decision = decide(before)
    actions: list[Action] = list(decision.actions)
    assert decide(before) == decision
    after = carried_out(before, decision)
    assert decide(after).actions == []

    ends, boots = ended(decision), booted(decision)
    assert len(ends) + len(boots) == len(actions)  # nothing is ended twice
    assert sum(row.target for row in decision.places) <= before.limits.max_slots
    for one, row in zip(before.places, decision.places, strict=True):
        assert row.target <= (0 if one.closed else one.ceiling)
        assert alive(one, ends) + boots.count(one.place) <= one.ceiling
        assert not [s for s in one.slots if s.id in ends and s.state in (SlotState.HELD, SlotState.ENDING)]
        assert row.why
    if boots:
        unheld = sum(slot.state is not SlotState.HELD for one in after.places for slot in one.slots)
        booting = sum(s.state is SlotState.BOOTING for one in after.places for s in one.slots)
        assert unheld <= before.limits.max_slots
        assert after.machine.agents_live <= before.machine.agents_max
        users, most = before.machine.users_booting, before.limits.boots_at_once
        assert booting <= (max(1, most - users) if users else most)
        assert before.machine.load_per_core < before.limits.load_max
        assert after.boots_left >= 0
        assert before.machine.memory_free_bytes >= 1300 * MB
