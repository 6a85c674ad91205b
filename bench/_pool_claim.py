"""From asking for an agent with a prompt to the answer, to the prompt in the program, and to `delivered`."""

from __future__ import annotations

import time
from collections import defaultdict
from statistics import median
from typing import NamedTuple

from bench._pool import PLAIN, SLOW, UNHURRIED, Instance, instance, percentile, verdict, wait

WARM = 4  # of each profile
MARKS = ("answered", "submitted", "delivered")
SEEN = ("delivered", "acked")


class Way(NamedTuple):
    """One line of the table: a profile, from the pool or not."""

    profile: str
    cold: bool

    def __str__(self) -> str:
        """Return what the table calls it."""
        return f"{self.profile}, {'cold' if self.cold else 'warm'}"


class Claim(NamedTuple):
    """How long one took to each mark, in ms, and whether it came from the pool."""

    answered: float
    submitted: float
    delivered: float
    warm: bool


# How many of each in a round; cold ones of the slow profile take seconds.
FULL = {Way(PLAIN, False): 20, Way(PLAIN, True): 20, Way(SLOW, False): 20, Way(SLOW, True): 3}
QUICK = {Way(PLAIN, False): 10, Way(PLAIN, True): 5, Way(SLOW, False): 4, Way(SLOW, True): 1}


def run(quick: bool, rounds: int | None, settings: list[str]) -> None:
    """Print the table."""
    shares, rounds = (QUICK, rounds or 3) if quick else (FULL, rounds or 10)
    claims: dict[Way, list[list[Claim]]] = defaultdict(list)
    with instance(UNHURRIED, *settings) as one:
        for profile in (PLAIN, SLOW):
            one.set_pool(profile, WARM, WARM)
        for _ in range(rounds):
            for way, number in shares.items():
                claims[way].append([claim(one, way) for _ in range(number)])
    show(claims)


def claim(one: Instance, way: Way) -> Claim:
    """Make one claim while every slot is warm and nothing boots; end the agent afterwards."""
    one.wait_full()
    prompt = one.prompt()
    asked_at, start_s = time.time(), time.perf_counter()
    (agent,) = one.spawn(way.profile, prompt=prompt, cold=way.cold)
    answered_s = time.perf_counter() - start_s
    note = one.notes.of(prompt)
    delivered_at = _delivered_at(one, note["id"])
    one.stop([agent])
    times_s = (answered_s, note["at"] - asked_at, delivered_at - asked_at)
    return Claim(*(took_s * 1000 for took_s in times_s), warm=agent["warm"])


def _delivered_at(one: Instance, message: str) -> float:
    """Return when it was first known to be in the program; the agent may say so before its screen does."""
    found: list[float] = []

    def told() -> bool:
        history = one.client.call("messages.get", {"id": message})["history"]
        found.extend(row["at"] for row in history if row["state"] in SEEN)
        return bool(found)

    wait("a prompt is delivered", told)
    return min(found)


def show(claims: dict[Way, list[list[Claim]]]) -> None:
    """Print a line per way and mark, and what is asked for."""
    print(f"{len(claims[Way(PLAIN, False)])} rounds; ms from asking; spread: the rounds' own medians")
    heads = f"{'':<13}{'until':<11}{'n':>5}{'p50':>10}{'p95':>10}{'p99':>10}{'most':>10}   spread of p50"
    print(f"{heads:<90}missed", flush=True)
    p50: dict[tuple[Way, str], float] = {}
    for way, rounds in claims.items():
        flat = [each for each_round in rounds for each in each_round]
        missed = sum(each.warm is way.cold for each in flat)
        for mark in MARKS:
            values = [getattr(each, mark) for each in flat]
            p50[way, mark] = median(values)
            medians = [median(getattr(each, mark) for each in each_round) for each_round in rounds]
            figures = "".join(f"{figure:>10.2f}" for figure in (*_percentiles(values), max(values)))
            spread = f"{min(medians):.1f} to {max(medians):.1f}"
            print(f"{way!s:<13}{mark:<11}{len(values):>5}{figures}   {spread:<18}{missed:>4}")
    _judge(claims[Way(PLAIN, False)], p50)


def _percentiles(values: list[float]) -> tuple[float, ...]:
    return tuple(percentile(values, percent) for percent in (50, 95, 99))


def _judge(rounds: list[list[Claim]], p50: dict[tuple[Way, str], float]) -> None:
    for mark in ("answered", "submitted"):
        values = [getattr(each, mark) for each_round in rounds for each in each_round]
        middle, _, late = _percentiles(values)
        verdict(f"warm, until {mark}, p50", middle, 10, " ms", at_most=True)
        verdict(f"warm, until {mark}, p99", late, 50, " ms", at_most=True)
    for profile in (PLAIN, SLOW):
        times = p50[Way(profile, True), "submitted"] / p50[Way(profile, False), "submitted"]
        if profile == SLOW:
            verdict(f"{profile}, submitted: cold / warm", times, 100, "", at_most=False)
        else:
            print(f"{profile}, submitted: cold / warm: {times:.4g}", flush=True)
