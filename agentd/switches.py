"""What can be turned off: each switch, what it has brought so far, and a watch that turns off one that costs more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

import anyio

LEAST_USES = 50  # of a window, before it says anything
MOST_FAULTS = 0.05  # share of uses that may fail
MOST_LOSS_S = 0.01  # in a window: less is not worth a word
STRIKES = 3  # failing windows in a row: one can be the machine's bad moment


@dataclass(frozen=True, slots=True)
class Reading:
    """What a part has measured of itself since the start, and what a use is worth at the moment."""

    paid: int = 0  # uses that saved something
    cost: int = 0  # uses that saved nothing
    faults: int = 0  # uses that failed, of either kind
    saves_s: float = 0.0  # by each that paid; negative when doing without would have been quicker
    costs_s: float = 0.0  # by each that did not

    @property
    def uses(self) -> int:
        """Return how often it did its work, well or not."""
        return self.paid + self.cost

    @property
    def gain_s(self) -> float:
        """Return the time saved, at today's prices; negative when it cost more."""
        return self.paid * self.saves_s - self.cost * self.costs_s

    def since(self, before: Reading) -> Reading:
        """Return what came after an earlier reading."""
        counts = (self.paid - before.paid, self.cost - before.cost, self.faults - before.faults)
        return Reading(*counts, self.saves_s, self.costs_s)


def failing(window: Reading) -> str:
    """Return why a window speaks against its switch; empty when it does not."""
    if window.uses < LEAST_USES:
        return ""
    if window.faults > MOST_FAULTS * window.uses:
        return f"{window.faults} of {window.uses} uses failed"
    if window.gain_s < -MOST_LOSS_S:
        return f"{window.uses} uses cost {-window.gain_s:.3g} s more than doing without"
    return ""


class Switch:
    """One thing that can be on or off."""

    def __init__(self, name: str, *, on: bool, turn: Callable[[bool], None], read: Callable[[], Reading]) -> None:
        self.name = name
        self.on = on
        self.why = "" if on else "off by configuration"
        self._turn = turn
        self._read = read
        self._before = read()
        self._strikes = 0

    def look(self) -> bool:
        """Judge what was measured since the last look; turn it off after several bad ones in a row and tell so."""
        reading = self._read()
        window, self._before = reading.since(self._before), reading
        why = failing(window) if self.on else ""
        self._strikes = self._strikes + 1 if why else 0
        if self._strikes < STRIKES:
            return False
        self.on, self.why = False, why
        self._turn(False)
        return True

    def row(self) -> dict[str, object]:
        """Return what callers are shown."""
        reading = self._read()
        return {
            "name": self.name,
            "on": self.on,
            "why": self.why,
            "uses": reading.uses,
            "gain_s": round(reading.gain_s, 6),
            "faults": reading.faults,
        }


class Switches:
    """Every switch of this daemon."""

    def __init__(self, switches: list[Switch]) -> None:
        self._switches = switches

    def __iter__(self) -> Iterator[Switch]:
        return iter(self._switches)

    async def watch(
        self, period_s: float, on_off: Callable[[Switch], None], price: Callable[[], Awaitable[None]]
    ) -> None:
        """Look at every switch once a period; `on_off` is told of each that was turned off.

        `price` measures before each look what doing without would cost now: on a busy machine all things cost more.
        """
        while True:
            await anyio.sleep(period_s)
            await price()
            for switch in self._switches:
                if switch.look():
                    on_off(switch)
