"""The warm pool: how many agents are kept booted, and where; sizing.py decides, refills.py acts, claims.py gives."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio

from agentd.agents import machine
from agentd.agents.breaker import WORKING
from agentd.agents.bucket import Bucket
from agentd.agents.calm import Calm
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ledger import Ledger
from agentd.agents.live import LiveAgent
from agentd.agents.outcomes import Outcomes
from agentd.agents.pool_limits import check_size, limits_of
from agentd.agents.recycling import Recycling, slot_for
from agentd.agents.refills import Refills
from agentd.agents.roster import Roster
from agentd.agents.site import Site, key_of, place_of
from agentd.agents.sizing import Boot, End, decide
from agentd.agents.slots import Place, Slot, Slots, SlotState
from agentd.agents.snapshot import MachineView, Snapshot
from agentd.agents.stock import Stock
from agentd.errors import InvalidValue, NotFound
from agentd.records import Agent, AgentState

TICK_S: Final = 1.0  # between two decisions when nothing happens
REST_S: Final = 300.0  # the same while there is no place at all


class Pool:
    """Keeps the places as they were set; its one task decides and acts, claims are made between two steps of it."""

    def __init__(
        self,
        parts: CrewParts,
        roster: Roster,
        ledger: Ledger,
        recycling: Recycling,
        stock: Stock,
        outcomes: Outcomes,
        refills: Refills,
        calm: Calm,
    ) -> None:
        self._parts = parts
        self._config = parts.config.pool
        self._roster = roster
        self._ledger = ledger
        self._recycling = recycling
        self._stock = stock
        self._outcomes = outcomes
        self._refills = refills
        self._calm = calm
        self._pace = Bucket(self._config.boots_per_min, time.monotonic())
        self._closing = False
        ledger.on_slot.append(stock.wake.set)

    async def take_over(self) -> None:
        """Take over what was set, and the slots that outlived the last daemon; after the agents were adopted."""
        self._stock.sites = {site.place: site for site in map(Site.of, await self._parts.registry.pools())}
        pooled = self._parts.directory.pooled()
        alive = [slot for slot in pooled if slot.id in self._roster.live]
        fence = max((agent.fence for agent in self._parts.directory), default=0)
        self._stock.slots = Slots((_booting(slot) for slot in alive), fence)
        self._stock.untimed = {slot.id for slot in alive}
        await self._ledger.discard([slot.id for slot in pooled if slot not in alive])

    async def run(self) -> None:
        """Keep the places filled until cancelled."""
        while True:
            now_s = time.monotonic()
            try:
                self._turn(now_s)
            except Exception:
                self._parts.log.error("the pool's turn failed", exc_info=True)
            await self._stock.wake.wait(TICK_S if self._stock.sites or any(self._stock.slots) else REST_S)
            await anyio.sleep(max(0.0, self._calm.until_s - time.monotonic()))  # while a claim's prompt is being typed

    def close(self) -> None:
        """Begin no boots any more: the daemon stops."""
        self._closing = True

    # -- what is set

    async def set_size(self, place: Place, origin: str, size: int, most: int, *, recycle: bool) -> None:
        """Keep so many ready in a place, and up to `most` while more are asked for; `origin` is where to boot them.

        With `recycle`, programs of agents that are stopped there come back, where their profile says how.
        """
        if most < size:
            raise InvalidValue(f"most is {most} and size is {size}; nothing was changed", hint="most is not below size")
        check_size(self._config, size)
        site = self._stock.sites.get(place)
        kept = (
            replace(site, floor=size, ceiling=most, passing=False, recycle=recycle, drained="", breaker=WORKING)
            if site
            else Site(place, size, most, origin, recycle=recycle)
        )
        await self._parts.registry.save_pool(key_of(place), kept.kept())
        self._stock.sites[place] = kept
        self._turn(time.monotonic())
        self._stock.wake.set()

    async def drain(self, profile: str, cwd: str | None) -> int:
        """End the slots of a profile and keep none any more; return how many those were."""
        sites = [s for s in self._stock.sites.values() if s.place.profile == profile and cwd in (None, s.origin)]
        if not sites:
            where = f" in {cwd}" if cwd else ""
            raise NotFound(f"no agents of {profile} are kept booted{where}", hint="agentd pool lists what is")
        await self._parts.registry.forget_pools([key_of(site.place) for site in sites])
        count = sum(len(self._stock.slots.of(site.place)) for site in sites)
        for site in sites:
            site.drained = "it was drained"
        self._turn(time.monotonic())
        return count

    def rows(self) -> list[dict[str, Any]]:
        """Return each place, with what stands ready there and why it is so many."""
        sites = sorted(self._stock.sites.values(), key=lambda site: key_of(site.place))
        return [site.row(self._stock.slots.of(site.place), self._stock.slots.counts(site.place)) for site in sites]

    # -- recycling

    async def recycle(self, agent: Agent) -> Agent | None:
        """End an agent and keep its program as a slot; None, and nothing has happened, where it is to be stopped."""
        place = self._place_to_fill(agent)
        if place is None:
            return None
        why = await self._recycling.why_not(agent)
        if why:
            self._parts.log.info("a program was not recycled", agent=agent.id, profile=agent.profile, why=why)
        live = self._roster.live.get(agent.id)
        if why or live is None or self._place_to_fill(agent) is None:
            return None
        slot = slot_for(agent)
        self._refills.enter(Slot(slot.id, place, SlotState.BOOTING, time.monotonic()))
        stopped = None
        try:
            with anyio.CancelScope(shield=True):  # a caller who goes away must not leave a program in no hands
                stopped = await self._recycling.retire(agent, slot)
        finally:
            if stopped is None:
                self._stock.slots.remove(slot.id)
                self._refills.begun(slot.id)
        if stopped is not None:
            self._stock.untimed.add(slot.id)
            self._roster.start(self._renew, slot, live)
        return stopped

    def _place_to_fill(self, agent: Agent) -> Place | None:
        """Return an agent's place, when its program may come back there and is wanted."""
        place = place_of(agent)
        site = self._stock.sites.get(place)
        if self._closing or agent.pooled or site is None or not site.recycle or site.drained:
            return None
        there = sum(slot.state in (SlotState.BOOTING, SlotState.READY) for slot in self._stock.slots.of(place))
        return place if there < site.target and Path(site.origin).is_dir() else None

    async def _renew(self, slot: Agent, live: LiveAgent) -> None:
        place = place_of(slot)
        why = "its renewal was cut off"
        try:
            why = await self._recycling.renew(slot, live)
        finally:
            if why:
                self._parts.log.warning("a program could not be recycled", agent=slot.id, why=why)
                self._stock.slots.remove(slot.id)
                self._stock.untimed.discard(slot.id)
            else:
                self._stock.slots.count_recycled(place)
                self._stock.slots.restart(slot.id, time.monotonic())
            self._refills.begun(slot.id)

    # -- deciding

    def _turn(self, now_s: float) -> None:
        for place in {slot.place for slot in self._stock.slots}:
            self._stock.sites.setdefault(
                place, Site(place, 0, 0, place.cwd or place.repo, drained="nothing is set for it")
            )
            self._outcomes.look_at(place, now_s)
        decision = decide(self._snapshot(now_s))
        for sized in decision.places:
            site = self._stock.sites[sized.place]
            site.target, site.why, site.over_since_s = sized.target, sized.why, sized.over_since_s
        for action in decision.actions:
            match action:
                case Boot(place):
                    self._pace = self._pace.take()
                    self._refills.begin(place, now_s)
                case End(slot_id, why):
                    self._begin_end(slot_id, why, now_s)
        for place, site in list(self._stock.sites.items()):
            if (site.drained or (site.passing and not site.target)) and not self._stock.slots.of(place):
                del self._stock.sites[place]

    def _begin_end(self, slot_id: str, why: str, now_s: float) -> None:
        slot = self._stock.slots.get(slot_id)
        if slot and slot.state is SlotState.BOOTING and now_s - slot.since_s > self._config.max_boot_s:
            self._outcomes.failed(slot, now_s, why)
        if self._stock.slots.ending(slot_id, now_s):
            self._refills.end(slot_id, why)

    def _snapshot(self, now_s: float) -> Snapshot:
        self._pace = self._pace.at(now_s, self._config.boots_per_min)
        boots_left = 0 if self._closing or now_s < self._calm.until_s else int(self._pace.tokens)
        names = self._parts.profiles.names()
        views = [site.view(self._stock.slots.of(place), names, now_s) for place, site in self._stock.sites.items()]
        return Snapshot(now_s, views, self._stock.breakers, self._machine(), limits_of(self._config), boots_left)

    def _machine(self) -> MachineView:
        free = machine.free_bytes()
        pooled = {slot.id for slot in self._stock.slots}
        booting = {
            id_
            for id_, live in self._roster.live.items()
            if id_ not in pooled and live.status.opinion.state is AgentState.STARTING
        }
        return MachineView(
            memory_free_bytes=machine.PLENTY_BYTES if free is None else free,
            load_per_core=machine.load_per_core(),
            users_booting=len(booting | (self._roster.starting - pooled)),
            agents_live=len(self._roster.live.keys() | self._roster.starting),
            agents_max=self._parts.config.agents.max,
        )


def _booting(agent: Agent) -> Slot:
    """Return a slot as it is taken over: ready once it was looked at; never when it was being recycled."""
    if agent.spent:
        why = "agentd ended before its program had forgotten whom it served"
        return Slot(agent.id, place_of(agent), SlotState.UNHEALTHY, time.monotonic(), why=why)
    return Slot(agent.id, place_of(agent), SlotState.BOOTING, time.monotonic())
