"""What became of the pool's slots, and what follows for their places and profiles."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agentd.agents.breaker import WORKING, Breaker
from agentd.agents.crew_parts import CrewParts
from agentd.agents.live import LiveAgent
from agentd.agents.roster import Roster
from agentd.agents.slots import Place, Slot, SlotState
from agentd.agents.stock import Stock
from agentd.records import AgentState

PROVEN_S: Final = 5.0  # a slot that ends sooner after it was ready counts as one that did not boot
UNFIT_S: Final = 5.0  # a ready slot that is not idle for so long is no longer fit; shorter is a redraw


class Outcomes:
    """Looks at slots: which are ready by now, which are not fit any more, and whose boots fail."""

    def __init__(self, parts: CrewParts, roster: Roster, stock: Stock, chance: Callable[[], float]) -> None:
        self._parts = parts
        self._roster = roster
        self._stock = stock
        self._chance = chance

    def look_at(self, place: Place, now_s: float) -> None:
        """Take in what became of a place's slots since the last look."""
        for slot in self._stock.slots.of(place):
            live = self._roster.live.get(slot.id)
            if slot.state is SlotState.BOOTING:
                self._look_at_booting(slot, live, now_s)
            elif slot.state is SlotState.READY:
                self._look_at_ready(slot, live, now_s)

    def _look_at_booting(self, slot: Slot, live: LiveAgent | None, now_s: float) -> None:
        if slot.id in self._stock.waiting:
            self._stock.slots.restart(slot.id, now_s)
            return
        if live is None:
            if slot.id not in self._roster.starting:
                agent = self._parts.directory.get(slot.id)
                self.failed(slot, now_s, agent.reason if agent else "it did not start")
            return
        opinion = live.status.opinion
        if live.status.deliverable:
            self._stock.slots.ready(slot.id, now_s)
            if slot.id in self._stock.untimed:
                self._stock.untimed.discard(slot.id)
            else:
                site = self._stock.sites[slot.place]
                site.demand.booted(site.lodging_s + now_s - slot.since_s)
        elif opinion.state in (AgentState.WAITING, AgentState.FAILED):
            self.failed(slot, now_s, opinion.reason)

    def _look_at_ready(self, slot: Slot, live: LiveAgent | None, now_s: float) -> None:
        if live is None:
            agent = self._parts.directory.get(slot.id)
            why = agent.reason if agent else "it ended"
            if now_s - slot.since_s < PROVEN_S:
                self.failed(slot, now_s, why)
            self._stock.slots.unhealthy(slot.id, now_s, why)
        elif live.profile.name not in self._parts.profiles.names():
            self._stock.slots.unhealthy(slot.id, now_s, "its profile is gone")
        elif not live.status.deliverable and now_s - live.status.opinion.since_s > UNFIT_S:
            self._stock.slots.unhealthy(
                slot.id, now_s, f"it is {live.status.opinion.state}: {live.status.opinion.reason}"
            )
        elif now_s - slot.since_s >= PROVEN_S and slot.place.profile in self._stock.breakers:
            self._stock.breakers[slot.place.profile] = self._breaker(slot.place).worked()

    def failed(self, slot: Slot, now_s: float, why: str) -> None:
        """Take note that a slot did not boot: its profile may be the reason."""
        self._stock.breakers[slot.place.profile] = self._breaker(slot.place).failed(now_s, self._chance(), why)
        self._stock.slots.unhealthy(slot.id, now_s, why)
        self._parts.log.warning("a slot of the pool did not boot", profile=slot.place.profile, why=why)

    def unlodged(self, slot_id: str, place: Place, why: str) -> None:
        """Take note that a slot has no worktree: its place may be the reason."""
        now_s = time.monotonic()
        if site := self._stock.sites.get(place):
            site.breaker = site.breaker.failed(now_s, self._chance(), why)
        self._stock.slots.unhealthy(slot_id, now_s, why)
        self._parts.log.warning("a slot of the pool has no worktree", profile=place.profile, why=why)
        self._stock.wake.set()

    def _breaker(self, place: Place) -> Breaker:
        return self._stock.breakers.get(place.profile) or Breaker()

    def profile_changed(self, name: str) -> None:
        """Replace the slots of a profile: their programs were started as it was before."""
        now_s = time.monotonic()
        for slot in self._stock.slots:
            if slot.place.profile == name:
                self._stock.slots.unhealthy(slot.id, now_s, "its profile has changed")
        self._stock.breakers.pop(name, None)
        self._stock.wake.set()

    def project_changed(self, directory: str) -> None:
        """Replace the slots that have worktrees from below a directory: what is run in fresh ones is another now."""
        now_s = time.monotonic()
        for slot in self._stock.slots:
            site = self._stock.sites.get(slot.place)
            if slot.place.repo and site and Path(os.path.realpath(site.origin)).is_relative_to(directory):
                self._stock.slots.unhealthy(slot.id, now_s, "the trust in its project has changed")
        for site in self._stock.sites.values():
            site.breaker = WORKING
        self._stock.wake.set()
