"""Who may boot next: the line of cold starts, and what the machine has room for. Pure; boots.py acts on it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

_MB: Final = 1_000_000
_ROUNDING: Final = 1e-9  # ten times a tenth of a core is one


@dataclass(frozen=True, slots=True)
class Cost:
    """What a boot takes of the machine while it lasts."""

    cores: float = 0.0
    memory_bytes: int = 0

    @property
    def nothing(self) -> bool:
        """Tell whether it takes nothing worth waiting for."""
        return not self.cores and not self.memory_bytes


@dataclass(frozen=True, slots=True)
class Room:
    """What all boots may take together; the memory that is free, and how much of it is to stay so."""

    cores: float
    memory_free_bytes: int
    memory_reserve_bytes: int

    def hindrance(self, cost: Cost, booting: Collection[Cost]) -> str:
        """Return what has no room for one more boot beside others; the only one always has."""
        if cost.nothing or all(each.nothing for each in booting):
            return ""
        if sum(each.cores for each in booting) + cost.cores > self.cores + _ROUNDING:
            return f"{self.cores:g} core{'' if self.cores == 1 else 's'}"
        promised_bytes = sum(each.memory_bytes for each in booting) + cost.memory_bytes
        if self.memory_free_bytes - promised_bytes < self.memory_reserve_bytes:
            return f"{self.memory_free_bytes // _MB} MB of memory free"
        return ""


@dataclass(eq=False, slots=True)
class Party:
    """The agents of one call: they wait behind each other, and parties take turns."""

    names: Sequence[str] = ()
    pid: int = 0  # of the process that asks


class Ticket(NamedTuple):
    """An agent that waits for its turn."""

    id: str
    cost: Cost


class Line:
    """First come, first served within a party; one of each party in turn; refills of the pool behind all users."""

    def __init__(self) -> None:
        self._users: dict[Party, deque[Ticket]] = {}  # in the order of their turns
        self._refills: dict[Party, deque[Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._users.values())) + sum(map(len, self._refills.values()))

    def join(self, party: Party, tickets: Sequence[Ticket], *, refill: bool = False) -> None:
        """Put agents behind the others of their party."""
        if tickets:
            (self._refills if refill else self._users).setdefault(party, deque()).extend(tickets)

    def leave(self, ids: Collection[str]) -> None:
        """Take agents out that need no turn any more."""
        for parties in (self._users, self._refills):
            for party, tickets in list(parties.items()):
                left = deque(ticket for ticket in tickets if ticket.id not in ids)
                if left:
                    parties[party] = left
                else:
                    del parties[party]

    def waiting(self, party: Party) -> int:
        """Return how many of a party wait."""
        return len(self._users.get(party, ()))

    def hindrance(self, booting: Collection[Cost], room: Room) -> str:
        """Return what the next one waits for; empty when it may begin, or nobody waits."""
        parties = self._users or self._refills
        return room.hindrance(next(iter(parties.values()))[0].cost, booting) if parties else ""

    def admit(self, booting: Collection[Cost], room: Room) -> list[Ticket]:
        """Take out those who may begin now, beside those who boot already.

        Nobody passes one who has no room yet: a stream of small boots would keep a large one waiting for ever.
        """
        admitted: list[Ticket] = []
        costs = list(booting)
        while (parties := self._users or self._refills) and not self.hindrance(costs, room):
            party, tickets = next(iter(parties.items()))
            admitted.append(tickets.popleft())
            costs.append(admitted[-1].cost)
            del parties[party]
            if tickets:
                parties[party] = tickets  # behind the other parties
        return admitted
