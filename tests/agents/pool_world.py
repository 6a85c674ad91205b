"""A toy world around the pool's pure half: a clock, boots that take time, fail or die, users, and a disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agentd.agents.breaker import Breaker
from agentd.agents.demand import Wanted
from agentd.agents.sizing import Boot, Decision, Sized, decide
from agentd.agents.slots import Place, Slot, Slots, SlotState
from agentd.agents.snapshot import Limits, MachineView, PlaceView, Snapshot

MB = 1_000_000
FREE = MachineView(memory_free_bytes=64_000 * MB, load_per_core=0.1, users_booting=0, agents_live=0, agents_max=1000)
LIMITS = Limits(
    boots_at_once=4,
    max_slots=40,
    max_age_s=4 * 3600.0,
    max_boot_s=60.0,
    grace_s=30.0,
    memory_per_slot_bytes=300 * MB,
    memory_reserve_bytes=1000 * MB,
    load_max=2.0,
)
HERE = Place("claude", "/here")
THERE = Place("codex", "/there")
NOTHING = Wanted(0, "nothing asked for lately")


def wanted(number: int) -> Wanted:
    return Wanted(number, f"{number} asked for")


def slots(number: int, state: SlotState = SlotState.READY, place: Place = HERE, since_s: float = 0.0) -> list[Slot]:
    """Return slots that came one second after the other."""
    return [Slot(f"{place.profile}-{state}-{n}", place, state, since_s + n) for n in range(number)]


def view(place: Place = HERE, *, floor: int = 0, ceiling: int = 20, want: int = 0, has: list[Slot] | None = None):
    return PlaceView(place, floor, ceiling, wanted(want), tuple(has or ()))


def snapshot(*views: PlaceView, now_s: float = 100.0, machine: MachineView = FREE, limits: Limits = LIMITS, **more):
    """Return a snapshot in which the slots are the only agents, unless `machine` says otherwise."""
    live = machine.agents_live or sum(len(one.slots) for one in views)
    given = {"breakers": {}, "boots_left": 100, **more}
    return Snapshot(now_s, views, machine=replace(machine, agents_live=live), limits=limits, **given)


@dataclass
class Setting:
    """What was set for a place."""

    floor: int = 0
    ceiling: int = 20
    closed: str = ""
    want: Callable[[float], Wanted] = lambda _now_s: NOTHING


@dataclass
class World:
    """Carries decisions out; `disk` is what is left after a crash."""

    limits: Limits = LIMITS
    machine: MachineView = FREE
    boot_s: float = 2.0
    settings: dict[Place, Setting] = field(default_factory=dict)
    now_s: float = 1000.0

    def __post_init__(self) -> None:
        self.books = Slots()
        self.disk: dict[str, Slot] = {}
        self.disk_fence = 0
        self.breakers: dict[str, Breaker] = {}
        self.broken: set[str] = set()  # profiles whose boots fail
        self.due_s: dict[str, float] = {}  # of what boots
        self.over_since_s: dict[Place, float | None] = {}
        self.rows: dict[Place, Sized] = {}
        self.users = 0  # agents that are somebody's
        self.made = 0
        self.given: list[Slot] = []

    def snapshot(self) -> Snapshot:
        views = [
            PlaceView(
                place, one.floor, one.ceiling, one.want(self.now_s), self.books.of(place), one.closed,
                self.over_since_s.get(place),
            )
            for place, one in self.settings.items()
        ]  # fmt: skip
        machine = replace(self.machine, agents_live=self.live)
        return Snapshot(self.now_s, views, self.breakers, machine, self.limits, boots_left=100)

    def decide(self) -> Decision:
        """Decide and carry it out as far as that happens at once."""
        return self.carry_out(decide(self.snapshot()))

    def carry_out(self, decision: Decision) -> Decision:
        self.over_since_s = {row.place: row.over_since_s for row in decision.places}
        self.rows = {row.place: row for row in decision.places}
        for action in decision.actions:
            if isinstance(action, Boot):
                self.boot(action.place)
            elif self.books.ending(action.slot_id, self.now_s):
                self.due_s.pop(action.slot_id, None)
                self.save()
        return decision

    def boot(self, place: Place) -> None:
        self.made += 1
        slot = Slot(f"s{self.made}", place, SlotState.BOOTING, self.now_s)
        self.books.add(slot)
        self.due_s[slot.id] = self.now_s + self.boot_s
        self.save()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and finish what is due: ends are over, boots succeed or fail."""
        self.now_s += seconds
        for slot in self.books:
            if slot.state is SlotState.ENDING:
                self.books.remove(slot.id)
            elif slot.state is SlotState.BOOTING and self.due_s.get(slot.id, self.now_s) <= self.now_s:
                self._booted(slot)
        self.save()

    def _booted(self, slot: Slot) -> None:
        self.due_s.pop(slot.id, None)
        profile = slot.place.profile
        breaker = self.breakers.get(profile, Breaker())
        if profile in self.broken:
            self.breakers[profile] = breaker.failed(self.now_s, 0.5, "exit status 1")
            self.books.remove(slot.id)
        else:
            self.breakers[profile] = breaker.worked()
            self.books.ready(slot.id, self.now_s)

    def ask(self, place: Place) -> Slot | None:
        """Claim, write that down, hand out; a user whom nothing is ready for boots an agent without us, if one may."""
        held = self.claim(place)
        if held is not None:
            self.hand_out(held)
        else:
            self.users += self.live < self.machine.agents_max
        return held

    def claim(self, place: Place) -> Slot | None:
        held = self.books.claim(place, self.now_s)
        self.save()
        return held

    def hand_out(self, held: Slot) -> None:
        self.given.append(held)
        self.users += 1
        self.books.remove(held.id)
        self.save()

    def crash(self) -> None:
        """Lose everything but the disk; agents go on booting meanwhile."""
        self.books = Slots(self.disk.values(), self.disk_fence)
        self.breakers, self.over_since_s = {}, {}
        for slot in self.held():
            self.hand_out(slot)

    def held(self) -> list[Slot]:
        """Return what was claimed and not handed out yet, as it was claimed."""
        return sorted((slot for slot in self.books if slot.state is SlotState.HELD), key=lambda slot: slot.fence)

    @property
    def live(self) -> int:
        return self.users + len(list(self.books))

    def save(self) -> None:
        self.disk = {slot.id: slot for slot in self.books}
        self.disk_fence = self.books.fence

    def ready(self, place: Place) -> list[Slot]:
        return [slot for slot in self.books.of(place) if slot.state is SlotState.READY]
