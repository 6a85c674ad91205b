"""How slots of the pool are booted and ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import anyio

from agentd.agents.boots import Boots
from agentd.agents.breaker import WORKING
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.ledger import Ledger
from agentd.agents.line import Party
from agentd.agents.lodging import NO_WISH
from agentd.agents.outcomes import Outcomes
from agentd.agents.profile import Profile
from agentd.agents.roster import Roster
from agentd.agents.slots import Place, Slot, SlotState
from agentd.agents.starts import SpawnRequest, Starts, new_agent
from agentd.agents.stock import Stock
from agentd.errors import AgentdError
from agentd.failpoint import failpoint
from agentd.records import Agent


class Refills:
    """Starts and ends the pool's programs in tasks of their own."""

    def __init__(
        self,
        parts: CrewParts,
        roster: Roster,
        ledger: Ledger,
        starts: Starts,
        ends: Ends,
        boots: Boots,
        stock: Stock,
        outcomes: Outcomes,
    ) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._starts = starts
        self._ends = ends
        self._boots = boots
        self._stock = stock
        self._outcomes = outcomes
        self._beginning: dict[str, anyio.Event] = {}  # slots whose start is under way

    def begin(self, place: Place, now_s: float) -> None:
        """Boot one more in a place."""
        profile = self._parts.profiles.get(place.profile)
        request = SpawnRequest(profile, "pool", cwd=self._stock.sites[place].origin, trusted=place.trusted)
        agent = new_agent(request)
        agent = replace(agent, name=f"pool-{agent.id}", pooled=True)
        self.enter(Slot(agent.id, place, SlotState.BOOTING, now_s))
        self._roster.start(self._boot, agent, place)

    def enter(self, slot: Slot) -> None:
        """Put a slot on the books whose start is under way; until `begun` it cannot be ended."""
        self._stock.slots.add(slot)
        self._roster.starting.add(slot.id)
        self._beginning[slot.id] = anyio.Event()

    def begun(self, slot_id: str) -> None:
        """Take note that a slot's start is over."""
        self._roster.starting.discard(slot_id)
        self._beginning.pop(slot_id).set()
        self._stock.wake.set()

    def end(self, slot_id: str, why: str) -> None:
        """End a slot soon."""
        self._roster.start(self._end, slot_id, why)

    async def _boot(self, agent: Agent, place: Place) -> None:
        try:
            profile = self._parts.profiles.get(place.profile)
            try:
                agent = await self._lodged(agent, place)
            except AgentdError as error:
                self._outcomes.unlodged(agent.id, place, error.message)
                return
            await self._turn_of(agent, profile)
            slot = self._stock.slots.get(agent.id)
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
            self.begun(agent.id)
        if isinstance(result, AgentdError) and (slot := self._stock.slots.get(agent.id)):
            self._outcomes.failed(slot, time.monotonic(), result.message)
        self._stock.wake.set()

    async def _lodged(self, agent: Agent, place: Place) -> Agent:
        begun_s = time.monotonic()
        try:
            with self._waits(agent.id):
                wish = await self._parts.lodging.wish(agent.cwd, None) if place.repo else NO_WISH
                lodged = await self._parts.lodging.lodge(agent, wish)
            if place in self._stock.sites:
                self._stock.sites[place].breaker = WORKING
            return lodged
        finally:
            if place in self._stock.sites:
                self._stock.sites[place].lodging_s = time.monotonic() - begun_s

    async def _turn_of(self, agent: Agent, profile: Profile) -> None:
        """Wait until nobody who asked for an agent waits, and there is room for one more boot."""
        with self._waits(agent.id), self._boots.turns(Party(), {agent.id: profile}, refill=True) as turns:
            await turns.next()

    @contextmanager
    def _waits(self, slot_id: str) -> Iterator[None]:
        """Take it that a slot's program is not started yet; what a boot takes is counted from the end of the block."""
        self._stock.waiting.add(slot_id)
        try:
            yield
        finally:
            self._stock.waiting.discard(slot_id)
            self._stock.slots.restart(slot_id, time.monotonic())

    async def _stopped(self, slot: Agent) -> None:
        try:
            await self._ends.stop(slot, force=False)
        except AgentdError as error:  # the disk is full, say: what it has goes all the same
            self._parts.log.warning("the end of a slot could not be written down", agent=slot.id, error=error.message)

    async def _end(self, slot_id: str, why: str) -> None:
        self._boots.give_up([slot_id])
        # Half a start cannot be ended, and would go on without its slot; while it waits for that there is none yet.
        if (begun := self._beginning.get(slot_id)) and slot_id not in self._stock.waiting:
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
            self._stock.slots.remove(slot_id)
            self._stock.wake.set()
