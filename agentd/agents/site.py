"""One place of the pool: what was set for it, what is asked for there, and what was decided last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from agentd.agents.breaker import WORKING, Breaker
from agentd.agents.demand import Demand
from agentd.agents.slots import Counts, Place, Slot, SlotState, place_in
from agentd.agents.snapshot import PlaceView
from agentd.records import Agent

UNASKED_S: Final = 3600.0  # so long after the last spawn there, a place that nobody set is given up


@dataclass(slots=True)
class Site:
    """A place with its numbers."""

    place: Place
    floor: int
    ceiling: int
    origin: str  # where it was asked for: the place's directory, or one in its repository
    passing: bool = False  # nobody set it: `pool.size` applies to wherever agents are asked for
    recycle: bool = False  # programs of agents that are stopped come back, where their profile has them forget
    drained: str = ""  # why it is to have none any more; forgotten once it has none
    asked_s: float = 0.0
    lodging_s: float = 0.0  # how long it took, last, until there was a worktree for a program to start in
    demand: Demand = field(default_factory=Demand)
    breaker: Breaker = WORKING  # a worktree that cannot be made ready is no fault of the profile elsewhere
    over_since_s: float | None = None
    target: int = 0
    why: str = ""

    def view(self, slots: Sequence[Slot], profiles: Collection[str], now_s: float) -> PlaceView:
        """Return what is decided from."""
        closed = self._closed(now_s) if self.place.profile in profiles else "its profile is gone"
        wanted = self.demand.wanted(now_s)
        return PlaceView(self.place, self.floor, self.ceiling, wanted, slots, closed, self.over_since_s, self.breaker)

    def row(self, slots: Sequence[Slot], counts: Counts) -> dict[str, Any]:
        """Return what people are shown of it."""
        states = Counter(slot.state for slot in slots)
        return {
            "profile": self.place.profile,
            "place": self.origin,
            "worktree": bool(self.place.repo),
            "trusted": self.place.trusted,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "target": self.target,
            "warm": states[SlotState.READY],
            "booting": states[SlotState.BOOTING],
            "hits": counts.hits,
            "misses": counts.misses,
            "recycle": self.recycle,
            "recycled": counts.recycled,
            "why": self.why,
        }

    def _closed(self, now_s: float) -> str:
        if self.drained:
            return self.drained
        if self.passing and now_s - self.asked_s > UNASKED_S:
            return "nobody asked for an agent there for an hour"
        return "" if Path(self.origin).is_dir() else f"{self.origin} is gone"

    def kept(self) -> Mapping[str, Any]:
        """Return what the registry keeps of it."""
        numbers = {"floor": self.floor, "ceiling": self.ceiling}
        return {"place": asdict(self.place), **numbers, "origin": self.origin, "recycle": self.recycle}

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> Site:
        """Return what was kept."""
        place, recycle = Place(**kept["place"]), kept.get("recycle", False)
        return cls(place, kept["floor"], kept["ceiling"], kept["origin"], recycle=recycle)


def key_of(place: Place) -> str:
    """Return the name a place is kept under."""
    return "\0".join((place.profile, place.cwd, place.repo, str(place.trusted)))


def place_of(agent: Agent) -> Place:
    """Return where a slot was booted."""
    return place_in(agent.profile, agent.cwd, agent.repo, trusted=agent.trusted)
