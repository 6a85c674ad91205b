"""What agents that stand ready add to the daemon's own memory, and to tmux; beside as many agents of somebody's."""

from __future__ import annotations

import time
from statistics import median
from typing import NamedTuple

from bench._pool import PLAIN, UNHURRIED, Instance, instance, verdict, wait
from bench.load import rss_mb

SETTLE_S = 2.0  # what starting leaves behind


class Sizes(NamedTuple):
    """Resident sizes in MB."""

    daemon: float
    tmux: float


def run(quick: bool, rounds: int | None, settings: list[str]) -> None:
    """Print the table."""
    agents, rounds = (6, rounds or 1) if quick else (20, rounds or 3)
    print(f"{agents} agents, {rounds} rounds, each a new instance; MB added: median (least to most)")
    print(f"{'':<12}{'daemon before':>15}{'daemon':>26}{'tmux':>26}", flush=True)
    for way in ("warm slots", "cold agents"):
        found = []
        for _ in range(rounds):
            with instance(UNHURRIED, *settings) as one:
                before = _sizes(one)
                _fill(one, agents, way)
                found.append((before, _sizes(one)))
        _show(way, found)


def _fill(one: Instance, agents: int, way: str) -> None:
    if way == "warm slots":
        one.set_pool(PLAIN, agents, agents)
        return
    one.spawn(PLAIN, n=agents)
    wait(
        "every agent is idle",
        lambda: sum(row["state"] == "idle" for row in one.client.call("agents.list")["agents"]) == agents,
    )


def _sizes(one: Instance) -> Sizes:
    time.sleep(SETTLE_S)
    return Sizes(rss_mb(one.daemon), sum(rss_mb(pid) for pid in one.tmux()))


def _show(way: str, found: list[tuple[Sizes, Sizes]]) -> None:
    added = [Sizes(after.daemon - before.daemon, after.tmux - before.tmux) for before, after in found]
    daemon = [each.daemon for each in added]
    figures = "".join(f"{_spread(values):>26}" for values in (daemon, [each.tmux for each in added]))
    print(f"{way:<12}{median(before.daemon for before, _ in found):>15.1f}{figures}", flush=True)
    if way == "warm slots":
        verdict("added to the daemon by warm slots", max(daemon), 50, " MB", at_most=True)


def _spread(values: list[float]) -> str:
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
