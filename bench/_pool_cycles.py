"""What is left behind by many agents that are asked for and ended; beside as many without the pool."""

from __future__ import annotations

import os
import subprocess
import time
from typing import NamedTuple

from bench._pool import PLAIN, UNHURRIED, Instance, children, instance, wait
from bench.load import rss_mb

WARM = 4
MARKS_PERCENT = (10, 50, 100)


class Found(NamedTuple):
    """What there is of each at rest."""

    descriptors: int
    daemon_children: int
    programs: int
    sessions: int
    daemon_mb: float


def run(quick: bool, rounds: int | None, settings: list[str]) -> None:
    """Print the table; `rounds` is how many cycles."""
    cycles = rounds or (50 if quick else 2000)
    print(f"{cycles} cycles, {WARM} warm slots; at rest after so many of them")
    heads = f"{'':<6}{'cycles':>7}{'missed':>8}{'descriptors':>13}{'children':>10}{'programs':>10}{'sessions':>10}"
    print(f"{heads}{'daemon MB':>11}{'cycles/s':>10}", flush=True)
    for way in ("pool", "cold"):
        with instance(UNHURRIED, *settings) as one:
            _cycle(one, cycles, way)


def _cycle(one: Instance, cycles: int, way: str) -> None:
    if way == "pool":
        one.set_pool(PLAIN, WARM, WARM)
    marks = {cycles * percent // 100 for percent in MARKS_PERCENT}
    _show(way, 0, 0, _found(one), 0.0)
    missed, start_s = 0, time.monotonic()
    for number in range(1, cycles + 1):
        if way == "pool":
            one.wait_warm(PLAIN)
        prompt = one.prompt()
        agents = one.spawn(PLAIN, prompt=prompt, cold=way == "cold")
        one.notes.of(prompt)
        one.stop(agents)
        missed += way == "pool" and not agents[0]["warm"]
        if number in marks:
            _show(way, number, missed, _found(one), number / (time.monotonic() - start_s))


def _found(one: Instance) -> Found:
    """Count when the pool is full again and everything else has ended."""
    one.wait_full()
    slots = sum(row["target"] for row in one.pools())
    wait("every other program has ended", lambda: one.programs() == slots)
    return Found(
        len(os.listdir(f"/proc/{one.daemon}/fd")),
        len(children([one.daemon])),
        one.programs(),
        sum(map(_sessions, one.directory.glob("tmux*.sock"))),
        rss_mb(one.daemon),
    )


def _sessions(socket: os.PathLike[str]) -> int:
    argv = ["tmux", "-N", "-S", os.fspath(socket), "list-sessions"]
    return subprocess.run(argv, capture_output=True, check=True).stdout.count(b"\n")


def _show(way: str, number: int, missed: int, found: Found, per_s: float) -> None:
    counts = f"{found.descriptors:>13}{found.daemon_children:>10}{found.programs:>10}{found.sessions:>10}"
    print(f"{way:<6}{number:>7}{missed:>8}{counts}{found.daemon_mb:>11.1f}{per_s:>10.1f}", flush=True)
