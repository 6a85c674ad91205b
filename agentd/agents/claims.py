"""How those who ask for agents get slots of the pool, and fresh programs where it has none."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import anyio

from agentd.agents.calm import Calm
from agentd.agents.crew_parts import CrewParts
from agentd.agents.handout import HandOut
from agentd.agents.line import Party
from agentd.agents.outcomes import Outcomes
from agentd.agents.refills import Refills
from agentd.agents.roster import Roster
from agentd.agents.site import Site
from agentd.agents.slots import Place, Slot, place_in
from agentd.agents.starts import Greet, SpawnRequest, Starts
from agentd.agents.stock import Stock
from agentd.errors import AgentdError
from agentd.records import Agent


class Claims:
    """Gives slots away, each once; what is claimed is its holder's or is ended."""

    def __init__(
        self,
        parts: CrewParts,
        roster: Roster,
        starts: Starts,
        hand_out: HandOut,
        stock: Stock,
        outcomes: Outcomes,
        refills: Refills,
        calm: Calm,
    ) -> None:
        self._parts = parts
        self._config = parts.config.pool
        self._roster = roster
        self._starts = starts
        self._hand_out = hand_out
        self._stock = stock
        self._outcomes = outcomes
        self._refills = refills
        self._calm = calm

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
            site = self._stock.sites[place]
            site.demand.asked(now_s, count)
            site.asked_s = now_s
            self._outcomes.look_at(place, now_s)
        self._calm.keep(now_s)
        claims = {number: self._stock.slots.claim(place, now_s) for number, place in places.items()}
        self._stock.wake.set()
        held = {number: slot for number, slot in claims.items() if slot is not None}
        self._roster.claimed.update(slot.id for slot in held.values())
        return held

    def _place_for(self, request: SpawnRequest, now_s: float) -> Place | None:
        """Return where a slot for the request would be; None where only a fresh program will do."""
        if not self._config.enabled or request.cold or request.env:
            return None
        place = place_in(request.profile.name, request.cwd, request.wish.repo, trusted=request.trusted)
        if place not in self._stock.sites and self._config.size:
            size = self._config.size
            self._stock.sites[place] = Site(place, size, size, request.cwd, passing=True, asked_s=now_s)
        site = self._stock.sites.get(place)
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
            return await self._parts.lodging.refresh(agent, request.wish.branch, self._stock.sites[slot.place].origin)
        except AgentdError as error:
            return error

    def _let_go(self, slot: Slot) -> None:
        """Take a slot that was held off the books; one that did not come to be anybody's is ended."""
        self._roster.claimed.discard(slot.id)
        agent = self._parts.directory.get(slot.id)
        if agent is not None and agent.pooled:
            self._refills.end(slot.id, "its hand-out was given up")
        else:
            self._stock.slots.remove(slot.id)
