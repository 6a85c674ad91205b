"""One place's slots while a decision is made about them."""

from __future__ import annotations

from agentd.agents.slots import Slot, SlotState
from agentd.agents.snapshot import PlaceView


class Lot:
    """What is there, less what is being ended, with what is being booted; held slots are their holders'."""

    def __init__(self, view: PlaceView, floor: int, target: int) -> None:
        by_age = sorted(
            (slot for slot in view.slots if slot.state is not SlotState.HELD), key=lambda slot: slot.since_s
        )
        self.view = view
        self.floor = floor
        self.target = target
        self.over_since_s = view.over_since_s
        self.present = len(by_age)  # to the last moment of those that end: they still take memory
        self.ready = [slot for slot in by_age if slot.state is SlotState.READY]
        self.booting = [slot for slot in by_age if slot.state is SlotState.BOOTING]
        self.unhealthy = [slot for slot in by_age if slot.state is SlotState.UNHEALTHY]
        self.ending = sum(slot.state is SlotState.ENDING for slot in by_age)
        self._begun = 0

    @property
    def booting_count(self) -> int:
        """Return how many boot, those of this decision too."""
        return len(self.booting) + self._begun

    @property
    def alive(self) -> int:
        """Return how many are ready or will be."""
        return len(self.ready) + self.booting_count

    @property
    def places_left(self) -> int:
        """Return how many more fit under the ceiling."""
        return max(0, self.view.ceiling - self.present)

    def first_to_go(self) -> list[Slot]:
        """Return what can be ended, in that order: what is ready for longest, then what began to boot last."""
        return [*self.ready, *reversed(self.booting)]

    def boot(self) -> None:
        """Count one more."""
        self._begun += 1
        self.present += 1

    def end(self, slot: Slot) -> None:
        """Count one less; it stays present until it has ended."""
        for kind in (self.ready, self.booting, self.unhealthy):
            if slot in kind:
                kind.remove(slot)
        self.ending += 1
