"""P8: whatever happens, nobody holds what another holds, and in the end the pool is what it should be.

What was held never becomes free again, so a release is the end of its agent; nobody waits, so there is no queue.
"""

from __future__ import annotations

import math
import os
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from pool_world import FREE, HERE, LIMITS, MB, THERE, Setting, World, wanted

from agentd.agents.sizing import Boot, Decision, End, decide
from agentd.agents.slots import Place, SlotState

LONG = os.environ.get("AGENTD_FAULTS") == "long"
ELSEWHERE = Place(HERE.profile, "/elsewhere", repo="/elsewhere", trusted=True)
PLACES = (HERE, THERE, ELSEWHERE)
MACHINE = replace(FREE, agents_max=40)
SMALL = replace(LIMITS, max_slots=16)
TICK_S = 10.0  # while it settles
SETTLED_S = 8 * SMALL.grace_s  # without anything to do
LONGEST_S = 3600.0  # until it has settled: the longest quarantine, and sixteen slots that go one by one

places = st.sampled_from(PLACES)
picks = st.integers(0, 1 << 16)
numbers = st.integers(0, 8)


class Pool(RuleBasedStateMachine):
    """Slots, decide() and a world that does not behave."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(limits=SMALL, machine=MACHINE)
        self.world.settings = {place: Setting(ceiling=6) for place in PLACES}
        self.over: set[str] = set()  # ids of slots that were about to be ended, or died
        self.claimed: dict[str, int] = {}  # fences of slots that somebody was slow to take

    @initialize(wants=st.tuples(numbers, numbers, numbers), floor=st.integers(0, 2))
    def it_has_run_for_a_while(self, wants: tuple[int, int, int], floor: int) -> None:
        for place, want in zip(PLACES, wants, strict=True):
            self.more_or_fewer_are_wanted(place, want)
            self.it_is_set(place, floor, 8)
        self.time_passes(20, 1.0)

    # -- what the pool does

    def act(self, decision: Decision) -> None:
        world = self.world
        before = {slot.id: slot for slot in world.books}
        world.carry_out(decision)
        for place in PLACES:
            present = [slot for slot in world.books.of(place) if slot.state is not SlotState.HELD]
            booted = [slot for slot in present if slot.id not in before]
            assert not booted or len(present) <= world.settings[place].ceiling
        self.over |= {slot.id for slot in world.books if slot.state is SlotState.ENDING}

    @rule()
    def decides(self) -> None:
        self.act(decide(self.world.snapshot()))
        assert decide(self.world.snapshot()).actions == []

    @rule(number=st.integers(1, 3))
    def decides_while_somebody_claims(self, number: int) -> None:
        decision = decide(self.world.snapshot())
        for place in PLACES * number:
            self.somebody_claims_and_is_slow(place)
        self.act(replace(decision, actions=[one for one in decision.actions if isinstance(one, End)]))

    # -- what happens to it

    @rule(place=places, number=st.integers(1, 5))
    def asks(self, place: Place, number: int) -> None:
        for _ in range(number):
            ready = self.world.ready(place)
            fence = max([slot.fence for slot in self.world.given] + list(self.claimed.values()), default=0)
            held = self.world.ask(place)
            assert (held is not None) == bool(ready)
            assert held is None or held.fence > fence
            if held:
                assert held.id in {slot.id for slot in ready if slot.since_s == min(one.since_s for one in ready)}

    @rule(steps=st.sampled_from([1, 3, 20]), step_s=st.sampled_from([1.0, 4.0]))
    def time_passes(self, steps: int, step_s: float) -> None:
        for _ in range(steps):
            self.decides()
            self.world.pass_time(step_s)

    @rule(place=places)
    def somebody_claims_and_is_slow(self, place: Place) -> None:
        held = self.world.claim(place)
        if held:
            self.claimed[held.id] = held.fence

    @rule()
    def what_was_claimed_is_handed_out(self) -> None:
        for slot in self.world.held():
            self.world.hand_out(slot)

    @rule(seconds=st.sampled_from([2.0, 400.0]))
    def time_passes_while_the_daemon_is_busy(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(jump_s=st.sampled_from([-1e5, -60.0, 60.0, 1e5]))
    def the_clock_jumps(self, jump_s: float) -> None:
        self.world.now_s += jump_s
        self.world.due_s = {id_: due_s + jump_s for id_, due_s in self.world.due_s.items()}

    @rule(pick=picks)
    def a_slot_dies(self, pick: int) -> None:
        found = list(self.world.books)
        if found:
            dead = found[pick % len(found)]
            self.world.books.remove(dead.id)
            self.over.add(dead.id)
            self.world.save()

    @rule(pick=picks)
    def a_slot_gets_sick(self, pick: int) -> None:
        found = list(self.world.books)
        if found:
            self.world.books.unhealthy(found[pick % len(found)].id, self.world.now_s, "it asks for a login")
            self.world.save()

    @rule(pick=picks)
    def news_come_late(self, pick: int) -> None:
        """An agent says again that it is idle: one that is ready, held or given, one that ends, one that is gone."""
        not_booting = {slot.id for slot in self.world.books if slot.state is not SlotState.BOOTING}
        gone = sorted(self.over | {slot.id for slot in self.world.given} | not_booting)
        if gone:
            assert not self.world.books.ready(gone[pick % len(gone)], self.world.now_s)

    @rule()
    def crashes(self) -> None:
        self.world.crash()

    @rule(place=places)
    def crashes_before_a_claim_is_written_down(self, place: Place) -> None:
        self.world.books.claim(place, self.world.now_s)  # nobody has heard of it yet
        self.world.crash()

    @rule(place=places)
    def crashes_after_a_claim_was_written_down(self, place: Place) -> None:
        self.world.books.claim(place, self.world.now_s)
        self.world.save()
        self.world.crash()

    @rule(number=st.integers(1, 20))
    def agents_of_users_end(self, number: int) -> None:
        self.world.users = max(0, self.world.users - number)

    @rule(place=places, want=numbers)
    def more_or_fewer_are_wanted(self, place: Place, want: int) -> None:
        self.world.settings[place].want = lambda _now_s: wanted(want)

    @rule(place=places, floor=st.integers(0, 4), ceiling=st.sampled_from([8, 8, 8, 6, 3, 0]))
    def it_is_set(self, place: Place, floor: int, ceiling: int) -> None:
        self.world.settings[place].floor, self.world.settings[place].ceiling = floor, ceiling

    @rule(place=places, closed=st.sampled_from(["", "drained"]))
    def a_place_is_drained_or_not(self, place: Place, closed: str) -> None:
        self.world.settings[place].closed = closed

    @rule(profiles=st.sets(st.sampled_from([HERE.profile, THERE.profile])))
    def profiles_break_or_are_repaired(self, profiles: set[str]) -> None:
        self.world.broken = profiles

    @rule(
        free_mb=st.sampled_from([64_000, 64_000, 64_000, 1300, 900, 100]),
        load=st.sampled_from([0.1, 0.1, 1.5, 3.0]),
        users_booting=st.sampled_from([0, 0, 1]),
    )
    def the_machine_is_used(self, free_mb: int, load: float, users_booting: int) -> None:
        self.world.machine = replace(
            MACHINE, memory_free_bytes=free_mb * MB, load_per_core=load, users_booting=users_booting
        )

    # -- what always holds

    @invariant()
    def nobody_holds_what_another_holds(self) -> None:
        ids = [slot.id for slot in self.world.given]
        assert len(ids) == len(set(ids))
        fences = [slot.fence for slot in self.world.given]
        assert len(fences) == len(set(fences))
        held = {slot.id: slot.fence for slot in (*self.world.given, *self.world.held())}
        alive = {slot.id for slot in self.world.books} | set(ids)
        assert all(held.get(id_) == fence for id_, fence in self.claimed.items() if id_ in alive)

    @invariant()
    def nothing_is_both_free_and_held(self) -> None:
        given = {slot.id for slot in self.world.given}
        on_the_books = [slot.id for slot in self.world.books]
        assert not given & set(on_the_books)
        assert len(on_the_books) == len(set(on_the_books))
        assert not self.over & given

    @invariant()
    def there_are_no_more_than_may_be(self) -> None:
        assert self.world.live <= MACHINE.agents_max
        assert len(list(self.world.books)) - len(self.world.held()) <= SMALL.max_slots

    # -- what holds in the end

    def teardown(self) -> None:
        """Nothing happens any more and boots succeed: then the pool gets to its targets, and rests."""
        world = self.world
        world.machine, world.broken = MACHINE, set()
        self.what_was_claimed_is_handed_out()
        world.limits = replace(SMALL, max_age_s=math.inf)
        enough: set[Place] = set()  # places that have had one too many
        rested_s = waited_s = 0.0
        while rested_s < SETTLED_S:
            assert waited_s < LONGEST_S
            decision = self._decided(enough)
            rested_s = 0.0 if decision.actions or not self.at_rest() else rested_s + TICK_S
            waited_s += TICK_S
            world.pass_time(TICK_S)
        for place, row in world.rows.items():
            assert len(world.books.of(place)) == len(world.ready(place)) == row.target
            assert row.target >= min(world.settings[place].floor, world.settings[place].ceiling) or self.is_tight(place)

    def _decided(self, enough: set[Place]) -> Decision:
        where = {slot.id: slot.place for slot in self.world.books}
        decision = self.world.decide()
        for action in decision.actions:
            if isinstance(action, Boot):
                assert action.place not in enough  # or it flaps
            elif action.why.endswith("are enough by now"):
                enough.add(where[action.slot_id])
        return decision

    def at_rest(self) -> bool:
        return all(len(self.world.ready(place)) == row.target for place, row in self.world.rows.items())

    def is_tight(self, place: Place) -> bool:
        floors = sum(min(one.floor, one.ceiling) for one in self.world.settings.values() if not one.closed)
        room = min(SMALL.max_slots, MACHINE.agents_max - self.world.users)
        return bool(self.world.settings[place].closed) or floors > room


TestPool = Pool.TestCase
TestPool.settings = settings(
    deadline=None, max_examples=1000 if LONG else 60, stateful_step_count=80 if LONG else 30
)  # fmt: skip


def test_old_slots_are_all_replaced_and_meanwhile_one_is_always_ready():
    world = World()
    world.settings[HERE] = Setting(floor=4)
    for _ in range(20):
        world.decide()
        world.pass_time(1.0)
    first = {slot.id for slot in world.ready(HERE)}
    assert len(first) == 4
    world.now_s += LIMITS.max_age_s + 60.0
    for _ in range(30):
        world.decide()
        assert len(world.ready(HERE)) >= 4
        world.pass_time(1.0)
    assert len(world.ready(HERE)) == 4
    assert not first & {slot.id for slot in world.ready(HERE)}


def test_a_profile_that_is_repaired_fills_its_place_again():
    world = World()
    world.settings[HERE] = Setting(floor=3)
    world.broken.add(HERE.profile)
    for _ in range(600):
        world.decide()
        world.pass_time(1.0)
    assert world.made < 20  # ten minutes of failures
    assert "quarantined for another" in world.rows[HERE].why
    world.broken.clear()
    for _ in range(310):
        world.decide()
        world.pass_time(1.0)
    assert len(world.ready(HERE)) == 3
