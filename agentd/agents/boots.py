"""Cold starts wait here for their turn, so that no more boot at once than cores and memory have room for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import anyio

from agentd.agents import machine
from agentd.agents.line import Cost, Line, Party, Room, Ticket
from agentd.agents.profile import Profile
from agentd.agents.signal import Signal
from agentd.config import AgentsConfig
from agentd.errors import DeadlineExceeded

LOOK_S: Final = 0.5  # between two looks while somebody waits: memory is freed without a word
ANSWER_S: Final = 2.0  # of a caller's time, kept for the answer that says who was not started
_MB: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Boot:
    cost: Cost
    until_s: float  # it counts no longer, whatever it does


class Boots:
    """Knows who boots and who waits.

    A boot ends when its agent is first idle, at work, waiting or failed, when it is gone, or with its profile's time.
    """

    def __init__(self, config: AgentsConfig) -> None:
        self._cores = config.boots_cores or machine.cores()
        self._reserve_bytes = config.boots_reserve_mb * _MB
        self._line = Line()
        self._booting: dict[str, _Boot] = {}
        self._turns: dict[str, Turns] = {}  # of those who wait

    @contextmanager
    def turns(self, party: Party, profiles: Mapping[str, Profile], *, refill: bool = False) -> Iterator[Turns]:
        """Queue agents, by their ids, of a party; whose turn has not been taken at the end of the block loses it."""
        tickets = [Ticket(id_, cost_of(profile)) for id_, profile in profiles.items()]
        turns = Turns(self, profiles)
        turns.come([ticket.id for ticket in tickets if ticket.cost.nothing])
        waiting = [ticket for ticket in tickets if not ticket.cost.nothing]
        self._turns.update((ticket.id, turns) for ticket in waiting)
        self._line.join(party, waiting, refill=refill)
        if waiting:
            self.look()
        try:
            yield turns
        finally:
            self.give_up(set(turns.left))

    def look(self) -> None:
        """Let those begin who have room by now."""
        now_s = time.monotonic()
        self._booting = {id_: boot for id_, boot in self._booting.items() if now_s < boot.until_s}
        for id_, cost in self._line.admit(self._costs(), self._room()):
            turns = self._turns.pop(id_)
            self._booting[id_] = _Boot(cost, now_s + turns.timeout_s(id_))
            turns.come([id_])

    def count(self, agent_id: str, profile: Profile) -> None:
        """Count one that was booting before we came."""
        cost = cost_of(profile)
        if not cost.nothing:
            self._booting[agent_id] = _Boot(cost, time.monotonic() + profile.boot.timeout_s)

    def ended(self, agent_id: str) -> None:
        """Take note that one boots no more."""
        if self._booting.pop(agent_id, None) and len(self._line):
            self.look()

    def give_up(self, ids: Collection[str]) -> None:
        """Take agents out of the line, and off the boots, that are not wanted any more."""
        self._line.leave(ids)
        for id_ in ids:
            self._booting.pop(id_, None)
            if turns := self._turns.pop(id_, None):
                turns.lose(id_)
        if ids and len(self._line):
            self.look()

    def waiting(self, party: Party) -> int:
        """Return how many of a party wait for their turn."""
        return self._line.waiting(party)

    def hindrance(self) -> str:
        """Return what the next one waits for; empty when nobody waits."""
        return self._line.hindrance(self._costs(), self._room()) if len(self._line) else ""

    def _costs(self) -> list[Cost]:
        return [boot.cost for boot in self._booting.values()]

    def _room(self) -> Room:
        free = machine.free_bytes()
        return Room(self._cores, machine.PLENTY_BYTES if free is None else free, self._reserve_bytes)


class Turns:
    """The turns of those that one caller waits for; a caller whose time is nearly over waits no more."""

    def __init__(self, boots: Boots, profiles: Mapping[str, Profile]) -> None:
        self.left = set(profiles)  # whose turn was not taken
        self._boots = boots
        self._profiles = profiles
        self._due: list[str] = []
        self._signal = Signal()
        allowed_s = max(0.0, anyio.current_effective_deadline() - anyio.current_time())
        self._until_s = time.monotonic() + allowed_s - min(ANSWER_S, allowed_s / 4)

    async def next(self) -> list[str]:
        """Wait until it is anybody's turn, and return whose; nobody's when all have had theirs or time is over."""
        while self.left and not self._due:
            wait_s = min(LOOK_S, self._until_s - time.monotonic())
            if wait_s <= 0:
                return []
            if not await self._signal.wait(wait_s):
                self._boots.look()
        due, self._due = self._due, []
        self.left.difference_update(due)
        return due

    def too_late(self) -> DeadlineExceeded:
        """Return the error for those that are left."""
        why = self._boots.hindrance()
        return DeadlineExceeded(
            f"not started: its turn to boot did not come in the time allowed{f' ({why})' if why else ''}",
            hint="what was started runs on; ask for this one again, or allow more time",
        )

    def timeout_s(self, agent_id: str) -> float:
        """Return how long an agent's boot may take."""
        return self._profiles[agent_id].boot.timeout_s

    def come(self, ids: list[str]) -> None:
        """Take note whose turn it is."""
        if ids:
            self._due += ids
            self._signal.set()

    def lose(self, agent_id: str) -> None:
        """Take note that one will have no turn."""
        self.left.discard(agent_id)
        self._signal.set()


def cost_of(profile: Profile) -> Cost:
    """Return what a boot of the profile takes."""
    return Cost(profile.boot.cores, profile.boot.memory_mb * _MB)
