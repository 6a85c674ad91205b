"""What the pool's decisions are made from: every place with its slots, the machine, and the limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agentd.agents.breaker import WORKING, Breaker
from agentd.agents.demand import Wanted
from agentd.agents.slots import Place, Slot


@dataclass(frozen=True, slots=True)
class PlaceView:
    """One place: what was set for it, what is wanted there, and its slots; held ones may be left out."""

    place: Place
    floor: int
    ceiling: int
    wanted: Wanted
    slots: Sequence[Slot] = ()
    closed: str = ""  # why it is to have no slots: it was drained, its directory is gone
    over_since_s: float | None = None  # as the last decision had it
    breaker: Breaker = WORKING  # of the place itself: no worktree could be made ready there


@dataclass(frozen=True, slots=True)
class MachineView:
    """What there is to boot on, and who else does; every agent of the daemon counts as live, slots too."""

    memory_free_bytes: int
    load_per_core: float
    users_booting: int
    agents_live: int
    agents_max: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What the pool may use."""

    boots_at_once: int
    max_slots: int
    max_age_s: float  # of a ready slot, before it is replaced
    max_boot_s: float  # before a booting slot is given up
    grace_s: float  # between two slots that are ended because fewer are wanted
    memory_per_slot_bytes: int
    memory_reserve_bytes: int  # left free for users
    load_max: float  # per core


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything a decision depends on, as it was at one moment."""

    now_s: float
    places: Sequence[PlaceView]
    breakers: Mapping[str, Breaker]  # by profile; one that never failed may be left out
    machine: MachineView
    limits: Limits
    boots_left: int  # of those the pace allows at this moment
