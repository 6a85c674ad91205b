"""Agents one by one: each is asked for when the one before it has its prompt; without a pool, and with one."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

from bench._pool import PLAIN, SLOW, UNHURRIED, Instance, instance, verdict

AT_ONCE = "pool.boots_at_once=8"
FLOOR = 2


class Round(NamedTuple):
    """One way to have all of them."""

    took_s: float
    hits: int
    before_cpu_s: float  # until the pool is full
    cpu_s: float  # from then on, until every agent of it has ended


class Size(NamedTuple):
    """How much of it."""

    agents: int
    pool: int
    rounds: dict[str, int]


FULL = Size(100, 20, {PLAIN: 10, SLOW: 3})
QUICK = Size(30, 6, {PLAIN: 3, SLOW: 1})


def run(quick: bool, rounds: int | None, settings: list[str]) -> None:
    """Print the table."""
    size = QUICK if quick else FULL
    print(f"{size.agents} agents one by one, a pool of {size.pool}; seconds: median (least to most)")
    heads = f"{'':<7}{'':<6}{'rounds':>7}{'seconds':>24}{'hits':>7}{'CPU s: before':>15}{'after':>8}{'all':>8}"
    print(f"{heads}{'cold / pool':>26}", flush=True)
    for profile, usual in size.rounds.items():
        with instance(UNHURRIED, AT_ONCE, *settings) as one:
            pairs = [
                (_round(one, profile, size, 0), _round(one, profile, size, size.pool)) for _ in range(rounds or usual)
            ]
        show(profile, pairs)


def _round(one: Instance, profile: str, size: Size, pool: int) -> Round:
    """Have all agents once, from a pool of that size or without one; leave none behind."""
    used_s = one.used_s()
    if pool:
        one.set_pool(profile, pool, pool)
    full_s = one.used_s()
    start_s, hits = time.perf_counter(), 0
    for _ in range(size.agents):
        prompt = one.prompt()
        (agent,) = one.spawn(profile, prompt=prompt, cold=not pool)
        one.notes.of(prompt)
        hits += agent["warm"]
    took_s = time.perf_counter() - start_s
    one.empty(profile)
    return Round(took_s, hits, full_s - used_s, one.used_s() - full_s)


def show(profile: str, pairs: list[tuple[Round, Round]]) -> None:
    """Print both ways, and how many times faster the pool is."""
    ratios = [cold.took_s / pooled.took_s for cold, pooled in pairs]
    for way, rounds in zip(("cold", "pool"), zip(*pairs, strict=True), strict=True):
        seconds = _spread([each.took_s for each in rounds])
        hits, before_s, after_s = (median(values) for values in list(zip(*rounds, strict=True))[1:])
        cpu = f"{before_s:>15.1f}{after_s:>8.1f}{before_s + after_s:>8.1f}"
        ratio = _spread(ratios) if way == "pool" else ""
        print(f"{profile:<7}{way:<6}{len(rounds):>7}{seconds:>24}{hits:>7.0f}{cpu}{ratio:>26}", flush=True)
    verdict(f"{profile}: times faster with the pool", median(ratios), 5, "", at_most=False)
    if median(ratios) < FLOOR:
        print(f"{profile}: less than {FLOOR}, the least that was asked for", flush=True)


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
