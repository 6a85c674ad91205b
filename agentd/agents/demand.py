"""How many agents are asked for at a place, and how many ready ones it takes to serve that."""

from __future__ import annotations

import math
from collections import deque
from typing import Final, NamedTuple

RISE_HALF_LIFE_S: Final = 30.0  # more is believed after half a minute: people wait meanwhile
FALL_HALF_LIFE_S: Final = 300.0  # less is believed after minutes: a slot that waits costs memory only
BURST_HELD_S: Final = 1800.0  # a burst that comes back within half an hour is met whole: 8 of 10 hostile ones are
BURST_HALF_LIFE_S: Final = 900.0  # after that; what a burst of ten left is gone within two hours
SPREADS: Final = 2.5  # standard deviations above the mean, which 98 of 100 boot times stay below (Poisson)
FIRST_BOOT_S: Final = 5.0  # until one was seen: agents take 2 to 12 s
LONGEST_BOOT_S: Final = 600.0  # what is said to take longer was measured across a suspended machine
SLOWER: Final = 0.5  # the share by which a slower boot counts,
QUICKER: Final = 0.05  # and a quicker one: what is kept is nearer to the slow boots than to the mean
MOST_ASKINGS: Final = 1000  # remembered of one boot time; no ceiling is that high


class Wanted(NamedTuple):
    """How many ready agents would serve what is asked for, and why so many."""

    number: int
    why: str


class Demand:
    """What was asked for at one place, as it fades.

    Time only passes here: a clock that is set back counts as one that stood still.
    """

    def __init__(self) -> None:
        self.boot_s = FIRST_BOOT_S
        self._seen_boot = False
        self._told_s = -math.inf  # the caller's clock
        self._own_s = 0.0  # ours, which never goes back
        self._recent = 0.0
        self._lasting = 0.0
        self._burst = 0.0
        self._burst_held_until_s = 0.0
        self._askings: deque[tuple[float, int]] = deque(maxlen=MOST_ASKINGS)

    def asked(self, now_s: float, count: int = 1) -> None:
        """Take note that so many were asked for at once, whether they were ready or not."""
        self._pass(now_s)
        self._recent += count
        self._lasting += count
        self._askings.append((self._own_s, count))
        while self._askings[0][0] < self._own_s - self.boot_s:
            self._askings.popleft()
        together = sum(asked for _, asked in self._askings)
        if together >= self._burst:
            self._burst, self._burst_held_until_s = together, self._own_s + BURST_HELD_S

    def booted(self, took_s: float) -> None:
        """Take note of how long a boot took; a time that cannot be is left out."""
        if not 0.0 <= took_s <= LONGEST_BOOT_S:
            return
        if not self._seen_boot:
            self._seen_boot, self.boot_s = True, took_s
        self.boot_s += (took_s - self.boot_s) * (SLOWER if took_s > self.boot_s else QUICKER)

    @property
    def per_s(self) -> float:
        """Return how many are asked for a second, as of the last call."""
        return math.log(2) * max(self._recent / RISE_HALF_LIFE_S, self._lasting / FALL_HALF_LIFE_S)

    def wanted(self, now_s: float) -> Wanted:
        """Return how many should be ready: what comes while a refill boots, and the largest burst seen lately."""
        self._pass(now_s)
        boots = f"boots take {self.boot_s:.1f} s"
        burst = math.ceil(self._burst - 0.5)
        if burst < 1:
            return Wanted(0, f"nothing asked for lately, {boots}")
        meanwhile = self.per_s * self.boot_s
        number = max(burst, math.ceil(meanwhile + SPREADS * math.sqrt(meanwhile)))
        return Wanted(number, f"{60 * self.per_s:.1f} asked for a minute, {boots}, bursts of {burst}")

    def _pass(self, now_s: float) -> None:
        passed_s = max(0.0, now_s - self._told_s) if math.isfinite(self._told_s) else 0.0
        before_s, self._told_s = self._own_s, now_s
        self._own_s += passed_s
        self._recent *= _left(passed_s, RISE_HALF_LIFE_S)
        self._lasting *= _left(passed_s, FALL_HALF_LIFE_S)
        fading_s = self._own_s - max(before_s, self._burst_held_until_s)
        self._burst *= _left(max(0.0, fading_s), BURST_HALF_LIFE_S)


def _left(passed_s: float, half_life_s: float) -> float:
    return math.exp2(-passed_s / half_life_s)
