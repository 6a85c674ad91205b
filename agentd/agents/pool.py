"""The warm pool: keeps agents booted in their places, and gives them to who asks; sizing.py decides how many."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import anyio

from agentd.agents import machine
from agentd.agents.boots import Boots
from agentd.agents.breaker import WORKING, Breaker
from agentd.agents.bucket import Bucket
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.handout import HandOut
from agentd.agents.ledger import Ledger
from agentd.agents.line import Party
from agentd.agents.live import LiveAgent
from agentd.agents.lodging import NO_WISH
from agentd.agents.pool_limits import check_size, limits_of
from agentd.agents.profile import Profile
from agentd.agents.recycling import Recycling, slot_for
from agentd.agents.roster import Roster
from agentd.agents.signal import Signal
from agentd.agents.site import Site, key_of, place_of
from agentd.agents.sizing import Boot, End, decide
from agentd.agents.slots import Place, Slot, Slots, SlotState, place_in
from agentd.agents.snapshot import MachineView, Snapshot
from agentd.agents.starts import Greet, SpawnRequest, Starts, new_agent
from agentd.errors import AgentdError, InvalidValue, NotFound
from agentd.failpoint import failpoint
from agentd.records import Agent, AgentState

TICK_S: Final = 1.0  # between two decisions when nothing happens
REST_S: Final = 300.0  # the same while there is no place at all
CALM_S: Final = 0.15  # after a claim, before a refill: a boot takes the cores from the prompt that is being typed
LONGEST_CALM_S: Final = 1.0  # however many claims follow each other
PROVEN_S: Final = 5.0  # a slot that ends sooner after it was ready counts as one that did not boot
UNFIT_S: Final = 5.0  # a ready slot that is not idle for so long is no longer fit; shorter is a redraw


class Pool:
    """Owns the slots; its one task decides and acts, claims are made between two steps of it."""

    def __init__(
        self,
        parts: CrewParts,
        roster: Roster,
        ledger: Ledger,
        starts: Starts,
        ends: Ends,
        hand_out: HandOut,
        boots: Boots,
        recycling: Recycling,
        chance: Callable[[], float],
    ) -> None:
        self._parts = parts
        self._config = parts.config.pool
        self._roster = roster
        self._ledger = ledger
        self._starts = starts
        self._ends = ends
        self._hand_out = hand_out
        self._boots = boots
        self._recycling = recycling
        self._chance = chance
        self._waiting: set[str] = set()  # for their worktrees, which have time limits of their own, or for their turn
        self._untimed: set[str] = set()  # recycled, or booted under the last daemon: how long that took is not known
        self._sites: dict[Place, Site] = {}
        self._slots = Slots()
        self._breakers: dict[str, Breaker] = {}
        self._pace = Bucket(self._config.boots_per_min, time.monotonic())
        self._wake = Signal()
        self._closing = False
        self._beginning: dict[str, anyio.Event] = {}  # slots whose start is under way
        self._calm_since_s = self._calm_until_s = 0.0
        ledger.on_slot.append(self._wake.set)

    async def take_over(self) -> None:
        """Take over what was set, and the slots that outlived the last daemon; after the agents were adopted."""
        self._sites = {site.place: site for site in map(Site.of, await self._parts.registry.pools())}
        pooled = self._parts.directory.pooled()
        alive = [slot for slot in pooled if slot.id in self._roster.live]
        fence = max((agent.fence for agent in self._parts.directory), default=0)
        self._slots = Slots((_booting(slot) for slot in alive), fence)
        self._untimed = {slot.id for slot in alive}
        await self._ledger.discard([slot.id for slot in pooled if slot not in alive])
        if alive:
            await self._hand_out.renew_tokens(alive)

    async def run(self) -> None:
        """Keep the places filled until cancelled."""
        while True:
            now_s = time.monotonic()
            try:
                self._turn(now_s)
            except Exception:
                self._parts.log.error("the pool's turn failed", exc_info=True)
            await self._wake.wait(TICK_S if self._sites or any(self._slots) else REST_S)
            await anyio.sleep(max(0.0, self._calm_until_s - time.monotonic()))  # while a claim's prompt is being typed

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
        site = self._sites.get(place)
        kept = (
            replace(site, floor=size, ceiling=most, passing=False, recycle=recycle, drained="", breaker=WORKING)
            if site
            else Site(place, size, most, origin, recycle=recycle)
        )
        await self._parts.registry.save_pool(key_of(place), kept.kept())
        self._sites[place] = kept
        self._turn(time.monotonic())
        self._wake.set()

    async def drain(self, profile: str, cwd: str | None) -> int:
        """End the slots of a profile and keep none any more; return how many those were."""
        sites = [s for s in self._sites.values() if s.place.profile == profile and cwd in (None, s.origin)]
        if not sites:
            where = f" in {cwd}" if cwd else ""
            raise NotFound(f"no agents of {profile} are kept booted{where}", hint="agentd pool lists what is")
        await self._parts.registry.forget_pools([key_of(site.place) for site in sites])
        count = sum(len(self._slots.of(site.place)) for site in sites)
        for site in sites:
            site.drained = "it was drained"
        self._turn(time.monotonic())
        return count

    def rows(self) -> list[dict[str, Any]]:
        """Return each place, with what stands ready there and why it is so many."""
        sites = sorted(self._sites.values(), key=lambda site: key_of(site.place))
        return [site.row(self._slots.of(site.place), self._slots.counts(site.place)) for site in sites]

    # -- spawning

    async def spawn(self, requests: Sequence[SpawnRequest], party: Party, greet: Greet) -> list[Agent | AgentdError]:
        """Give ready slots to who asks, start what is missing when it is its turn; in order of the requests.

        `greet` puts first messages into inboxes, once it is on disk whose they are.
        Raises AlreadyExists when somebody else was quicker to take a name.
        """
        self._starts.check_room(len(requests))
        with self._parts.directory.reserving([request.name for request in requests]):
            return await self._spawn(requests, party, greet)

    async def _spawn(self, requests: Sequence[SpawnRequest], party: Party, greet: Greet) -> list[Agent | AgentdError]:
        held = self._claim(requests)
        results: dict[int, Agent | AgentdError] = {}
        cold = [number for number in range(len(requests)) if number not in held]

        async def start(numbers: Sequence[int]) -> None:
            try:
                started = await self._starts.spawn([requests[number] for number in numbers], party, greet)
            except AgentdError as error:
                results.update(dict.fromkeys(numbers, error))
                return
            results.update(zip(numbers, started, strict=True))

        async def hand_out() -> None:
            results.update(await self._given(held, requests, greet))
            if unfit := [number for number in held if isinstance(results[number], AgentdError)]:
                await start(unfit)

        try:
            async with anyio.create_task_group() as group:
                if held:
                    group.start_soon(hand_out)
                if cold:
                    group.start_soon(start, cold)
        finally:
            for slot in held.values():
                self._let_go(slot)
        return [results[number] for number in range(len(requests))]

    def _claim(self, requests: Sequence[SpawnRequest]) -> dict[int, Slot]:
        """Hold a slot for each request that can have one."""
        now_s = time.monotonic()
        places = {number: place for number, r in enumerate(requests) if (place := self._place_for(r, now_s))}
        for place, count in Counter(places.values()).items():
            site = self._sites[place]
            site.demand.asked(now_s, count)
            site.asked_s = now_s
            self._look_at(place, now_s)
        self._keep_calm(now_s)
        claims = {number: self._slots.claim(place, now_s) for number, place in places.items()}
        self._wake.set()
        held = {number: slot for number, slot in claims.items() if slot is not None}
        self._roster.claimed.update(slot.id for slot in held.values())
        return held

    def _keep_calm(self, now_s: float) -> None:
        """Begin no boot for a moment, however many claims follow each other not for long."""
        if now_s >= self._calm_until_s:
            self._calm_since_s = now_s
        self._calm_until_s = min(now_s + CALM_S, self._calm_since_s + LONGEST_CALM_S)

    def _place_for(self, request: SpawnRequest, now_s: float) -> Place | None:
        """Return where a slot for the request would be; None where only a fresh program will do."""
        if not self._config.enabled or request.cold or request.env:
            return None
        place = place_in(request.profile.name, request.cwd, request.wish.repo, trusted=request.trusted)
        if place not in self._sites and self._config.size:
            size = self._config.size
            self._sites[place] = Site(place, size, size, request.cwd, passing=True, asked_s=now_s)
        site = self._sites.get(place)
        return place if site and not site.drained else None

    async def _given(
        self, held: dict[int, Slot], requests: Sequence[SpawnRequest], greet: Greet
    ) -> dict[int, Agent | AgentdError]:
        results: dict[int, Agent | AgentdError] = {}
        for number, slot in held.items():
            results[number] = await self._refreshed(slot, requests[number])
        numbers = [number for number, each in results.items() if isinstance(each, Agent)]
        slots = [each for each in results.values() if isinstance(each, Agent)]
        try:
            entries = self._hand_out.prepare(slots, [requests[number] for number in numbers])
        except AgentdError as error:
            return dict.fromkeys(held, error)
        try:
            await self._hand_out.keep(entries)
        except AgentdError as error:
            return {**results, **dict.fromkeys(numbers, error)}
        agents = [entry.agent for entry in entries]
        await greet(agents)  # not before: a slot that stayed one would be given what was meant for its holder
        return {**results, **dict(zip(numbers, agents, strict=True))}

    async def _refreshed(self, slot: Slot, request: SpawnRequest) -> Agent | AgentdError:
        """Return a slot as it is given away: with the fence, and its worktree as it is asked for."""
        agent = replace(self._parts.directory.entry(slot.id).agent, fence=slot.fence)
        if not agent.repo:
            return agent
        try:
            return await self._parts.lodging.refresh(agent, request.wish.branch, self._sites[slot.place].origin)
        except AgentdError as error:
            return error

    def _let_go(self, slot: Slot) -> None:
        """Take a slot that was held off the books; one that did not come to be anybody's is ended."""
        self._roster.claimed.discard(slot.id)
        agent = self._parts.directory.get(slot.id)
        if agent is not None and agent.pooled:
            self._roster.start(self._end, slot.id, "its hand-out was given up")
        else:
            self._slots.remove(slot.id)

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
        self._slots.add(Slot(slot.id, place, SlotState.BOOTING, time.monotonic()))
        self._roster.starting.add(slot.id)
        self._beginning[slot.id] = anyio.Event()
        stopped = None
        try:
            with anyio.CancelScope(shield=True):  # a caller who goes away must not leave a program in no hands
                stopped = await self._recycling.retire(agent, slot)
        finally:
            if stopped is None:
                self._slots.remove(slot.id)
                self._begun(slot.id)
        if stopped is not None:
            self._untimed.add(slot.id)
            self._roster.start(self._renew, slot, live)
        return stopped

    def _place_to_fill(self, agent: Agent) -> Place | None:
        """Return an agent's place, when its program may come back there and is wanted."""
        place = place_of(agent)
        site = self._sites.get(place)
        if self._closing or agent.pooled or site is None or not site.recycle or site.drained:
            return None
        there = sum(slot.state in (SlotState.BOOTING, SlotState.READY) for slot in self._slots.of(place))
        return place if there < site.target and Path(site.origin).is_dir() else None

    async def _renew(self, slot: Agent, live: LiveAgent) -> None:
        place = place_of(slot)
        why = "its renewal was cut off"
        try:
            why = await self._recycling.renew(slot, live)
        finally:
            if why:
                self._parts.log.warning("a program could not be recycled", agent=slot.id, why=why)
                self._slots.remove(slot.id)
                self._untimed.discard(slot.id)
            else:
                self._slots.count_recycled(place)
                self._slots.restart(slot.id, time.monotonic())
            self._begun(slot.id)

    def _begun(self, slot_id: str) -> None:
        """Take note that a slot's start is over."""
        self._roster.starting.discard(slot_id)
        self._beginning.pop(slot_id).set()
        self._wake.set()

    # -- deciding

    def _turn(self, now_s: float) -> None:
        for place in {slot.place for slot in self._slots}:
            self._sites.setdefault(place, Site(place, 0, 0, place.cwd or place.repo, drained="nothing is set for it"))
            self._look_at(place, now_s)
        decision = decide(self._snapshot(now_s))
        for sized in decision.places:
            site = self._sites[sized.place]
            site.target, site.why, site.over_since_s = sized.target, sized.why, sized.over_since_s
        for action in decision.actions:
            match action:
                case Boot(place):
                    self._begin(place, now_s)
                case End(slot_id, why):
                    self._begin_end(slot_id, why, now_s)
        for place, site in list(self._sites.items()):
            if (site.drained or (site.passing and not site.target)) and not self._slots.of(place):
                del self._sites[place]

    def _begin_end(self, slot_id: str, why: str, now_s: float) -> None:
        slot = self._slots.get(slot_id)
        if slot and slot.state is SlotState.BOOTING and now_s - slot.since_s > self._config.max_boot_s:
            self._failed(slot, now_s, why)
        if self._slots.ending(slot_id, now_s):
            self._roster.start(self._end, slot_id, why)

    def _snapshot(self, now_s: float) -> Snapshot:
        self._pace = self._pace.at(now_s, self._config.boots_per_min)
        boots_left = 0 if self._closing or now_s < self._calm_until_s else int(self._pace.tokens)
        names = self._parts.profiles.names()
        views = [site.view(self._slots.of(place), names, now_s) for place, site in self._sites.items()]
        return Snapshot(now_s, views, self._breakers, self._machine(), limits_of(self._config), boots_left)

    def _machine(self) -> MachineView:
        free = machine.free_bytes()
        pooled = {slot.id for slot in self._slots}
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

    # -- what became of the slots

    def _look_at(self, place: Place, now_s: float) -> None:
        """Take in what became of a place's slots since the last look."""
        for slot in self._slots.of(place):
            live = self._roster.live.get(slot.id)
            if slot.state is SlotState.BOOTING:
                self._look_at_booting(slot, live, now_s)
            elif slot.state is SlotState.READY:
                self._look_at_ready(slot, live, now_s)

    def _look_at_booting(self, slot: Slot, live: LiveAgent | None, now_s: float) -> None:
        if slot.id in self._waiting:
            self._slots.restart(slot.id, now_s)
            return
        if live is None:
            if slot.id not in self._roster.starting:
                agent = self._parts.directory.get(slot.id)
                self._failed(slot, now_s, agent.reason if agent else "it did not start")
            return
        opinion = live.status.opinion
        if live.status.deliverable:
            self._slots.ready(slot.id, now_s)
            if slot.id in self._untimed:
                self._untimed.discard(slot.id)
            else:
                site = self._sites[slot.place]
                site.demand.booted(site.lodging_s + now_s - slot.since_s)
        elif opinion.state in (AgentState.WAITING, AgentState.FAILED):
            self._failed(slot, now_s, opinion.reason)

    def _look_at_ready(self, slot: Slot, live: LiveAgent | None, now_s: float) -> None:
        if live is None:
            agent = self._parts.directory.get(slot.id)
            why = agent.reason if agent else "it ended"
            if now_s - slot.since_s < PROVEN_S:
                self._failed(slot, now_s, why)
            self._slots.unhealthy(slot.id, now_s, why)
        elif live.profile.name not in self._parts.profiles.names():
            self._slots.unhealthy(slot.id, now_s, "its profile is gone")
        elif not live.status.deliverable and now_s - live.status.opinion.since_s > UNFIT_S:
            self._slots.unhealthy(slot.id, now_s, f"it is {live.status.opinion.state}: {live.status.opinion.reason}")
        elif now_s - slot.since_s >= PROVEN_S and slot.place.profile in self._breakers:
            self._breakers[slot.place.profile] = self._breaker(slot.place).worked()

    def _failed(self, slot: Slot, now_s: float, why: str) -> None:
        self._breakers[slot.place.profile] = self._breaker(slot.place).failed(now_s, self._chance(), why)
        self._slots.unhealthy(slot.id, now_s, why)
        self._parts.log.warning("a slot of the pool did not boot", profile=slot.place.profile, why=why)

    def _unlodged(self, slot_id: str, place: Place, why: str) -> None:
        now_s = time.monotonic()
        if site := self._sites.get(place):
            site.breaker = site.breaker.failed(now_s, self._chance(), why)
        self._slots.unhealthy(slot_id, now_s, why)
        self._parts.log.warning("a slot of the pool has no worktree", profile=place.profile, why=why)
        self._wake.set()

    def _breaker(self, place: Place) -> Breaker:
        return self._breakers.get(place.profile) or Breaker()

    def profile_changed(self, name: str) -> None:
        """Replace the slots of a profile: their programs were started as it was before."""
        now_s = time.monotonic()
        for slot in self._slots:
            if slot.place.profile == name:
                self._slots.unhealthy(slot.id, now_s, "its profile has changed")
        self._breakers.pop(name, None)
        self._wake.set()

    def project_changed(self, directory: str) -> None:
        """Replace the slots that have worktrees from below a directory: what is run in fresh ones is another now."""
        now_s = time.monotonic()
        for slot in self._slots:
            site = self._sites.get(slot.place)
            if slot.place.repo and site and Path(os.path.realpath(site.origin)).is_relative_to(directory):
                self._slots.unhealthy(slot.id, now_s, "the trust in its project has changed")
        for site in self._sites.values():
            site.breaker = WORKING
        self._wake.set()

    # -- acting

    def _begin(self, place: Place, now_s: float) -> None:
        profile = self._parts.profiles.get(place.profile)
        request = SpawnRequest(profile, "pool", cwd=self._sites[place].origin, trusted=place.trusted)
        agent = new_agent(request)
        agent = replace(agent, name=f"pool-{agent.id}", pooled=True)
        self._pace = self._pace.take()
        self._slots.add(Slot(agent.id, place, SlotState.BOOTING, now_s))
        self._roster.starting.add(agent.id)  # until start() has taken note of it
        self._beginning[agent.id] = anyio.Event()
        self._roster.start(self._boot, agent, place)

    async def _boot(self, agent: Agent, place: Place) -> None:
        try:
            profile = self._parts.profiles.get(place.profile)
            try:
                agent = await self._lodged(agent, place)
            except AgentdError as error:
                self._unlodged(agent.id, place, error.message)
                return
            await self._turn_of(agent, profile)
            slot = self._slots.get(agent.id)
            if slot is None or slot.state is not SlotState.BOOTING:  # its end came first, and found no program
                self._boots.give_up([agent.id])
                await self._parts.lodging.vacate(agent, force=True)
                return
            failpoint("refill.before_tmux")
            (result,) = await self._starts.start([agent], [profile])
            failpoint("refill.after_tmux")
        except AgentdError as error:
            result = error
        finally:
            self._begun(agent.id)
        if isinstance(result, AgentdError) and (slot := self._slots.get(agent.id)):
            self._failed(slot, time.monotonic(), result.message)
        self._wake.set()

    async def _lodged(self, agent: Agent, place: Place) -> Agent:
        begun_s = time.monotonic()
        try:
            with self._waits(agent.id):
                wish = await self._parts.lodging.wish(agent.cwd, None) if place.repo else NO_WISH
                lodged = await self._parts.lodging.lodge(agent, wish)
            if place in self._sites:
                self._sites[place].breaker = WORKING
            return lodged
        finally:
            if place in self._sites:
                self._sites[place].lodging_s = time.monotonic() - begun_s

    async def _turn_of(self, agent: Agent, profile: Profile) -> None:
        """Wait until nobody who asked for an agent waits, and there is room for one more boot."""
        with self._waits(agent.id), self._boots.turns(Party(), {agent.id: profile}, refill=True) as turns:
            await turns.next()

    @contextmanager
    def _waits(self, slot_id: str) -> Iterator[None]:
        """Take it that a slot's program is not started yet; what a boot takes is counted from the end of the block."""
        self._waiting.add(slot_id)
        try:
            yield
        finally:
            self._waiting.discard(slot_id)
            self._slots.restart(slot_id, time.monotonic())

    async def _stopped(self, slot: Agent) -> None:
        try:
            await self._ends.stop(slot, force=False)
        except AgentdError as error:  # the disk is full, say: what it has goes all the same
            self._parts.log.warning("the end of a slot could not be written down", agent=slot.id, error=error.message)

    async def _end(self, slot_id: str, why: str) -> None:
        self._boots.give_up([slot_id])
        # Half a start cannot be ended, and would go on without its slot; while it waits for that there is none yet.
        if (begun := self._beginning.get(slot_id)) and slot_id not in self._waiting:
            await begun.wait()
        agent = self._parts.directory.get(slot_id)
        try:
            if agent is not None:
                failpoint("release.before_stop")
                self._parts.log.info("a slot of the pool is ended", agent=slot_id, profile=agent.profile, why=why)
                await self._stopped(agent)
                failpoint("release.after_stop")
                await self._ledger.discard([slot_id])
        except AgentdError as error:
            self._parts.log.warning("a slot's row stays until the next start", agent=slot_id, error=error.message)
        finally:
            self._slots.remove(slot_id)
            self._wake.set()


def _booting(agent: Agent) -> Slot:
    """Return a slot as it is taken over: ready once it was looked at; never when it was being recycled."""
    if agent.spent:
        why = "agentd ended before its program had forgotten whom it served"
        return Slot(agent.id, place_of(agent), SlotState.UNHEALTHY, time.monotonic(), why=why)
    return Slot(agent.id, place_of(agent), SlotState.BOOTING, time.monotonic())
