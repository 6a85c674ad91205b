"""What the pool does next: a snapshot gives the boots and ends that are due, and for each place a target and why.

The same snapshot gives the same decision, and when that has been carried out, the next one is to do nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentd.agents.breaker import Breaker
from agentd.agents.lot import Lot
from agentd.agents.shares import shares
from agentd.agents.slots import Place, Slot, SlotState
from agentd.agents.snapshot import Limits, MachineView, PlaceView, Snapshot

HARD: Final = 0.5  # of the reserve: with less memory free, slots are given up
YIELD: Final = 0.5  # of the load allowed: above it the pool starts nothing beside a user's own boot
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Boot:
    """Boot one more agent there."""

    place: Place


@dataclass(frozen=True, slots=True)
class End:
    """End a slot, unless it was claimed meanwhile."""

    slot_id: str
    why: str


Action = Boot | End


@dataclass(frozen=True, slots=True)
class Sized:
    """How many slots a place is to have, and why it has those it has; the next snapshot is to carry `over_since_s`."""

    place: Place
    target: int
    why: str
    over_since_s: float | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, in this order, and what to tell."""

    actions: Sequence[Action]
    places: Sequence[Sized]


class Most(NamedTuple):
    """How many boots something allows, and what is told when that is none."""

    number: int
    why: str


def decide(snapshot: Snapshot) -> Decision:
    """Return what is due: first what ends, then what boots with what is left of the limits."""
    round_ = _Round(snapshot)
    round_.end_what_is_unfit()
    round_.end_what_is_too_much()
    round_.end_for_memory()
    round_.boot_what_is_short()
    round_.replace_what_is_old()
    round_.end_what_is_over()
    return Decision(round_.actions, [round_.sized(lot) for lot in round_.lots])


class _Round:
    """One decision while it is made."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.actions: list[Action] = []
        self.lots = _lots(snapshot)
        self._snapshot = snapshot
        self._pace = snapshot.boots_left
        self._agents = snapshot.machine.agents_live

    # -- ends

    def end_what_is_unfit(self) -> None:
        """End what is unhealthy, and what has been booting for too long."""
        longest_s = self._snapshot.limits.max_boot_s
        for lot in self.lots:
            for slot in list(lot.unhealthy):
                self._end(lot, slot, slot.why)
            for slot in [slot for slot in lot.booting if self._age_s(slot) > longest_s]:
                self._end(lot, slot, f"it was not ready within {longest_s:.0f} s")

    def end_what_is_too_much(self) -> None:
        """End at once what may not be there at all."""
        for lot in self.lots:
            most = 0 if lot.view.closed else lot.view.ceiling
            why = lot.view.closed or f"its place may have {most}"
            self._end_all(lot, lot.first_to_go()[: max(0, lot.alive - most)], why)
        for _ in range(sum(lot.alive for lot in self.lots) - _most_slots(self._snapshot)):
            fullest = max(self.lots, key=lambda lot: lot.alive - lot.target)
            self._end_all(fullest, fullest.first_to_go()[:1], "there is no room for so many agents")

    def end_for_memory(self) -> None:
        """End the oldest ready ones above the floors while memory is dangerously short."""
        limits, free = self._snapshot.limits, self._snapshot.machine.memory_free_bytes
        if free >= HARD * limits.memory_reserve_bytes:
            return
        missing = math.ceil((limits.memory_reserve_bytes - free) / max(1, limits.memory_per_slot_bytes))
        on_their_way = sum(lot.ending for lot in self.lots)
        spare = [(slot, lot) for lot in self.lots for slot in lot.ready[: max(0, lot.alive - lot.floor)]]
        spare.sort(key=lambda one: one[0].since_s)
        for slot, lot in spare[: max(0, missing - on_their_way)]:
            self._end(lot, slot, f"only {free // _MB} MB of memory are free")

    def end_what_is_over(self) -> None:
        """End the oldest one where fewer have been wanted for a while, one in each grace."""
        now_s, grace_s = self._snapshot.now_s, self._snapshot.limits.grace_s
        for lot in self.lots:
            if len(lot.ready) <= lot.target:
                lot.over_since_s = None
            elif lot.over_since_s is None or lot.over_since_s > now_s:
                lot.over_since_s = now_s
            elif now_s - lot.over_since_s >= grace_s:
                self._end(lot, lot.ready[0], f"{lot.target} are enough by now")
                lot.over_since_s = now_s if len(lot.ready) > lot.target else None

    # -- boots

    def boot_what_is_short(self) -> None:
        """Boot while anything is short: below a floor first, then where the smallest part is there."""
        while self._seats().number > 0 and self._room().number > 0:
            short = [lot for lot in self.lots if lot.alive < lot.target and lot.places_left and self._may_boot(lot)]
            if not short:
                return
            self._boot(min(short, key=lambda lot: (lot.alive >= lot.floor, lot.alive / lot.target)))

    def replace_what_is_old(self) -> None:
        """Replace one slot at a time: the new one is booted first, unless there is no room for both."""
        for lot in self.lots:
            old = [slot for slot in lot.ready if self._age_s(slot) > self._snapshot.limits.max_age_s]
            if not old or lot.ending:
                continue
            why = f"it had been ready for {self._age_s(old[0]) / 3600:.1f} h"
            if len(lot.ready) > lot.target:
                self._end(lot, old[0], why)
            elif lot.alive == lot.target and not lot.booting_count and self._seats().number > 0 and self._may_boot(lot):
                if lot.places_left and self._room().number > 0:
                    self._boot(lot)
                else:
                    self._end(lot, old[0], why)

    def _may_boot(self, lot: Lot) -> bool:
        breaker = self._breaker(lot)
        if breaker.closed:
            return True
        trying = any(other.booting_count for other in self.lots if self._breaker(other) is breaker)
        return breaker.left_s(self._snapshot.now_s) == 0 and not trying

    def _seats(self) -> Most:
        """Return how many more may begin to boot at this moment, whatever room there is for agents."""
        limits, machine = self._snapshot.limits, self._snapshot.machine
        booting = sum(lot.booting_count for lot in self.lots)
        return min(
            _memory(self._snapshot, booting + machine.users_booting),
            _load(self._snapshot),
            _users(machine, limits, booting),
            Most(limits.boots_at_once - booting, f"{booting} are booting, which is as many as may at once"),
            Most(self._pace, "boots are spread out"),
            key=lambda most: max(0, most.number),
        )

    def _room(self) -> Most:
        limits, machine = self._snapshot.limits, self._snapshot.machine
        present = sum(lot.present for lot in self.lots)
        return min(
            Most(machine.agents_max - self._agents, f"{self._agents} agents live, which is as many as may"),
            Most(limits.max_slots - present, f"the pool has {present} slots, which is as many as it may"),
            key=lambda most: max(0, most.number),
        )

    # -- what is told

    def sized(self, lot: Lot) -> Sized:
        """Return the row of a place, after everything was decided."""
        hindrance = self._breaker(lot).told(self._snapshot.now_s) if lot.target else ""
        if not hindrance and lot.alive < lot.target:
            hindrance = self._hindrance(lot)
        why = f"{hindrance}; {_reason(lot)}" if hindrance else _reason(lot)
        return Sized(lot.view.place, lot.target, why, lot.over_since_s)

    def _hindrance(self, lot: Lot) -> str:
        if not lot.places_left:
            return f"waits for {lot.present - lot.alive} to end"
        most = min(self._seats(), self._room(), key=lambda most: max(0, most.number))
        return most.why if most.number <= 0 else ""

    # -- steps

    def _boot(self, lot: Lot) -> None:
        self._pace -= 1
        self._agents += 1
        lot.boot()
        self.actions.append(Boot(lot.view.place))

    def _end(self, lot: Lot, slot: Slot, why: str) -> None:
        lot.end(slot)
        self.actions.append(End(slot.id, why))

    def _end_all(self, lot: Lot, slots: Iterable[Slot], why: str) -> None:
        for slot in list(slots):
            self._end(lot, slot, why)

    def _age_s(self, slot: Slot) -> float:
        return self._snapshot.now_s - slot.since_s

    def _breaker(self, lot: Lot) -> Breaker:
        own = lot.view.breaker
        return own if not own.closed else self._snapshot.breakers.get(lot.view.place.profile, own)


def _lots(snapshot: Snapshot) -> list[Lot]:
    floors = [_floor(view) for view in snapshot.places]
    goals = [_goal(view) for view in snapshot.places]
    targets = shares(floors, goals, _most_slots(snapshot))
    return [Lot(view, floor, target) for view, floor, target in zip(snapshot.places, floors, targets, strict=True)]


def _floor(view: PlaceView) -> int:
    return 0 if view.closed else min(view.floor, view.ceiling)


def _goal(view: PlaceView) -> int:
    return 0 if view.closed else min(max(view.floor, view.wanted.number), view.ceiling)


def _most_slots(snapshot: Snapshot) -> int:
    """Return how many slots there may be beside the agents that are somebody's."""
    slots = sum(slot.state is not SlotState.HELD for view in snapshot.places for slot in view.slots)
    others = max(0, snapshot.machine.agents_live - slots)
    return max(0, min(snapshot.limits.max_slots, snapshot.machine.agents_max - others))


def _memory(snapshot: Snapshot, booting: int) -> Most:
    """Return how many boots memory allows, when those under way have not taken theirs yet."""
    limits, free = snapshot.limits, snapshot.machine.memory_free_bytes
    fit = (free - limits.memory_reserve_bytes) // max(1, limits.memory_per_slot_bytes)
    reserve, each = limits.memory_reserve_bytes // _MB, limits.memory_per_slot_bytes // _MB
    why = f"paused: {free // _MB} MB of memory are free, {reserve} MB are reserved and a slot takes {each} MB"
    return Most(fit - booting, why)


def _load(snapshot: Snapshot) -> Most:
    load, most = snapshot.machine.load_per_core, snapshot.limits.load_max
    return Most(
        0 if load >= most else snapshot.limits.max_slots, f"paused: the load is {load:.1f} a core, of {most:.1f}"
    )


def _users(machine: MachineView, limits: Limits, booting: int) -> Most:
    """Return how many boots are left for the pool beside those that users wait for."""
    if not machine.users_booting:
        return Most(machine.agents_max, "")
    busy = machine.load_per_core >= YIELD * limits.load_max
    beside = 0 if busy else max(1, limits.boots_at_once - machine.users_booting)
    return Most(beside - booting, f"waits: {machine.users_booting} that users asked for are booting")


def _reason(lot: Lot) -> str:
    """Return why the target is what it is."""
    view, goal = lot.view, _goal(lot.view)
    if view.closed:
        return view.closed
    if lot.target < goal:
        return f"{goal} wanted, {lot.target} is its share of the pool: {view.wanted.why}"
    if view.wanted.number > view.ceiling:
        return f"{view.wanted.number} wanted, at most {view.ceiling}: {view.wanted.why}"
    return f"at least {goal}: {view.wanted.why}" if view.wanted.number < goal else view.wanted.why
