"""How many find an agent ready, when they are asked for as on a working day; in real time, with the slow profile."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from statistics import fmean, median
from typing import NamedTuple

from bench._pool import SLOW, Instance, instance, verdict

SIZE, MOST = 2, 20
FIRST_S = 10.0  # nothing can be known yet; counted by itself
LIFE_S = 5.0  # of an agent, then it is ended: a small machine is to have room for the next
SAMPLE_S = 0.25
STEADY_EVERY_S = 2.0
BURST, BURST_EVERY_S = 10, 15.0
DAY_MOST_PER_S = 0.8
HOSTILE_MOST, SILENCE_S = 15, (5.0, 20.0)

Asks = list[tuple[float, int]]  # so long after the start, so many at once


class Run(NamedTuple):
    """What became of one trace."""

    hits: int
    asked: int
    first_hits: int
    first_asked: int
    idle: float  # slots, on average
    late_s: float  # of the asking itself, at most


class Trace(NamedTuple):
    """A way of asking, and the share of hits that is to be reached."""

    drawn: Callable[[float, random.Random], Asks]
    least_percent: float


def steady(until_s: float, _chance: random.Random) -> Asks:
    """Return one every two seconds."""
    return [(number * STEADY_EVERY_S, 1) for number in range(int(until_s / STEADY_EVERY_S))]


def bursts(until_s: float, _chance: random.Random) -> Asks:
    """Return ten every quarter of a minute."""
    return [(number * BURST_EVERY_S, BURST) for number in range(math.ceil(until_s / BURST_EVERY_S))]


def day(until_s: float, chance: random.Random) -> Asks:
    """Return a day that begins at night, in a minute: as many as come by chance along a sine."""
    asks, at_s = [], 0.0
    while (at_s := at_s + chance.expovariate(DAY_MOST_PER_S)) < until_s:
        if chance.random() < (1 - math.cos(2 * math.pi * at_s / 60)) / 2:
            asks.append((at_s, 1))
    return asks


def hostile(until_s: float, chance: random.Random) -> Asks:
    """Return bursts of any size, after silences of any length."""
    asks, at_s = [], chance.uniform(*SILENCE_S) / 2
    while at_s < until_s:
        asks.append((at_s, chance.randint(1, HOSTILE_MOST)))
        at_s += chance.uniform(*SILENCE_S)
    return asks


TRACES = {
    "steady": Trace(steady, 95),
    "bursts": Trace(bursts, 95),
    "day": Trace(day, 95),
    "hostile": Trace(hostile, 70),
}


class Beside(threading.Thread):
    """Looks how many stand idle, and ends agents that have lived their time."""

    def __init__(self, one: Instance) -> None:
        super().__init__(daemon=True)
        self.warm: list[int] = []
        self.living: list[tuple[float, list[str]]] = []
        self._one = one
        self._over = threading.Event()

    def run(self) -> None:
        """Look until told to end."""
        with self._one.connect() as client:
            while not self._over.wait(SAMPLE_S):
                self.warm += [row["warm"] for row in client.call("pool.list")["pools"]]
                while self.living and self.living[0][0] < time.monotonic() - LIFE_S:
                    client.call("agents.stop", {"targets": self.living.pop(0)[1], "force": True})

    def end(self) -> None:
        """End it."""
        self._over.set()
        self.join()


def run(quick: bool, rounds: int | None, settings: list[str]) -> None:
    """Print the table."""
    seconds, rounds = (30.0, rounds or 1) if quick else (60.0, rounds or 3)
    print(f"{seconds:g} s after the first {FIRST_S:g}; {rounds} rounds; hits in percent: median (least to most)")
    heads = f"{'':<9}{'pool':<9}{'asked':>7}{'hits':>24}{'first hits':>12}{'idle slots':>12}{'asked late ms':>15}"
    print(heads, flush=True)
    for name, trace in TRACES.items():
        found: dict[int, list[Run]] = {most: [] for most in (SIZE, MOST)}
        for number in range(rounds):
            asks = trace.drawn(FIRST_S + seconds, random.Random(number))
            for most, runs in found.items():
                with instance(*settings) as one:
                    runs.append(_replay(one, asks, most, FIRST_S + seconds))
        for most, runs in found.items():
            show(name, most, runs)
        verdict(f"{name}: hits", _percent(found[MOST]), trace.least_percent, " %", at_most=False)


def _replay(one: Instance, asks: Asks, most: int, until_s: float) -> Run:
    """Ask at the times of the trace."""
    one.set_pool(SLOW, SIZE, most)
    beside = Beside(one)
    beside.start()
    counts, late_s, start_s = {True: [0, 0], False: [0, 0]}, 0.0, time.monotonic()
    for at_s, n in asks:
        time.sleep(max(0.0, start_s + at_s - time.monotonic()))
        late_s = max(late_s, time.monotonic() - start_s - at_s)
        agents = one.spawn(SLOW, n=n, prompt=one.prompt())
        beside.living.append((time.monotonic(), [agent["id"] for agent in agents]))
        first = counts[at_s < FIRST_S]
        first[0] += sum(agent["warm"] for agent in agents)
        first[1] += n
    time.sleep(max(0.0, start_s + until_s - time.monotonic()))
    beside.end()
    return Run(*counts[False], *counts[True], idle=fmean(beside.warm), late_s=late_s)


def _percent(runs: list[Run]) -> float:
    return median(100 * each.hits / max(1, each.asked) for each in runs)


def show(name: str, most: int, runs: list[Run]) -> None:
    """Print one line."""
    each_percent = [_percent([each]) for each in runs]
    hits = f"{median(each_percent):.1f} ({min(each_percent):.1f} to {max(each_percent):.1f})"
    first = f"{sum(each.first_hits for each in runs)}/{sum(each.first_asked for each in runs)}"
    asked, idle = sum(each.asked for each in runs), fmean(each.idle for each in runs)
    late_ms = max(each.late_s for each in runs) * 1000
    sizes = f"{SIZE} to {most}"
    print(f"{name:<9}{sizes:<9}{asked:>7}{hits:>24}{first:>12}{idle:>12.1f}{late_ms:>15.1f}", flush=True)
