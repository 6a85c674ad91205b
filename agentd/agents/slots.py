"""The pool's books: which agents are kept booted where, and who got which."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Place:
    """Where agents of one profile are kept booted; in a worktree of `repo` when there is one, else in `cwd` itself."""

    profile: str
    cwd: str
    repo: str = ""
    trusted: bool = False


def place_in(profile: str, cwd: str, repo: str, *, trusted: bool) -> Place:
    """Return the place of a program: all directories of a repository are one where worktrees are made."""
    return Place(profile, "" if repo else cwd, repo, trusted)


class SlotState(StrEnum):
    """What may be done with a slot; one that was held never becomes ready again, for it has heard somebody's words."""

    BOOTING = "booting"
    READY = "ready"
    HELD = "held"  # claimed, and not yet off the books
    UNHEALTHY = "unhealthy"
    ENDING = "ending"


@dataclass(frozen=True, slots=True)
class Slot:
    """One agent of the pool; `since_s` is when it came into its state."""

    id: str
    place: Place
    state: SlotState
    since_s: float
    fence: int = 0  # of the claim that holds it
    why: str = ""  # it is unhealthy


@dataclass(slots=True)
class Counts:
    """How many askings of a place found an agent ready, how many did not, and how many programs came back."""

    hits: int = 0
    misses: int = 0
    recycled: int = 0  # programs that became slots again


class Slots:
    """Each slot once, in one state; only a ready one can be claimed, and only once.

    `fence` is the last claim's number that was written down. Give it back after a crash, and no number comes twice;
    the claimed slots alone do not tell it, for the last of them may be gone. Nobody waits here: a miss boots its own.
    """

    def __init__(self, slots: Iterable[Slot] = (), fence: int = 0) -> None:
        self._slots: dict[str, Slot] = {}
        self._counts: defaultdict[Place, Counts] = defaultdict(Counts)
        self.fence = fence
        for slot in slots:
            self.add(slot)

    def __iter__(self) -> Iterator[Slot]:
        return iter(tuple(self._slots.values()))

    def get(self, slot_id: str) -> Slot | None:
        """Return a slot, or None when it is not on the books."""
        return self._slots.get(slot_id)

    def of(self, place: Place) -> list[Slot]:
        """Return the slots of a place, the earliest first."""
        return [slot for slot in self._slots.values() if slot.place == place]

    def add(self, slot: Slot) -> None:
        """Enter a slot; raises ValueError when its id is there already."""
        if slot.id in self._slots:
            raise ValueError(f"slot {slot.id} is on the books already")
        self._slots[slot.id] = slot
        self.fence = max(self.fence, slot.fence)

    def ready(self, slot_id: str, now_s: float) -> bool:
        """Let a slot that was booting be claimed; False when it was not: such news comes late, or twice."""
        return self._turn(slot_id, now_s, SlotState.READY, (SlotState.BOOTING,))

    def restart(self, slot_id: str, now_s: float) -> bool:
        """Count the time of a slot that is booting from now on; False when it is not booting."""
        return self._turn(slot_id, now_s, SlotState.BOOTING, (SlotState.BOOTING,))

    def unhealthy(self, slot_id: str, now_s: float, why: str) -> bool:
        """Let nobody claim a slot any more; False when somebody has."""
        return self._turn(slot_id, now_s, SlotState.UNHEALTHY, (SlotState.BOOTING, SlotState.READY), why)

    def ending(self, slot_id: str, now_s: float) -> bool:
        """Take note that a slot is about to be ended; when False it must not be: it is somebody's, or gone."""
        alive = (SlotState.BOOTING, SlotState.READY, SlotState.UNHEALTHY)
        return self._turn(slot_id, now_s, SlotState.ENDING, alive)

    def claim(self, place: Place, now_s: float) -> Slot | None:
        """Return the slot that has been ready for longest, now held under a new fence; None when there is none."""
        ready = [slot for slot in self.of(place) if slot.state is SlotState.READY]
        if not ready:
            self._counts[place].misses += 1
            return None
        self._counts[place].hits += 1
        self.fence += 1
        oldest = min(ready, key=lambda slot: slot.since_s)
        held = replace(oldest, state=SlotState.HELD, since_s=now_s, fence=self.fence)
        self._slots[held.id] = held
        return held

    def remove(self, slot_id: str) -> Slot | None:
        """Take a slot off the books: its agent has ended, or is its holder's from now on."""
        return self._slots.pop(slot_id, None)

    def count_recycled(self, place: Place) -> None:
        """Count a program that came back to a place."""
        self._counts[place].recycled += 1

    def counts(self, place: Place) -> Counts:
        """Return the hits and misses of a place since these books were opened."""
        return replace(self._counts[place]) if place in self._counts else Counts()

    def _turn(self, slot_id: str, now_s: float, to: SlotState, come_from: tuple[SlotState, ...], why: str = "") -> bool:
        slot = self._slots.get(slot_id)
        if slot is None or slot.state not in come_from:
            return False
        self._slots[slot_id] = replace(slot, state=to, since_s=now_s, why=why)
        return True
