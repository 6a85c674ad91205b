"""Many agents: they come up in bounded time and memory, and their death at once is no storm."""

from __future__ import annotations

import os
import signal
import statistics
import time
from pathlib import Path

import pytest
from faults import form, pane_pids, say
from instance import Instance, alive, instance, wait_until

AGENTS = form(60, 1000)
UP_S = 60.0
RSS_MB = 300.0
STATUS_CALLS = form(100, 1000)
STATUS_P99_MS = 10.0
HEALTH_P99_MS = 250.0
SLACK = form(10, 1)  # the short form runs beside other things: it looks for the wrong order of magnitude


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
def test_many_agents_come_up_and_die_at_once(running: Instance):
    """L1, L3: the daemon stays small and answers at once, also while every agent dies in the same moment."""
    started = time.monotonic()
    with running.client() as client:
        client.call("agents.spawn", profile="sh", n=AGENTS, cwd=str(running.directory), timeout_s=120)
        wait_until(lambda: states(running) == {"idle": AGENTS}, "all to be idle", UP_S * 2)
    up_s, rss_mb = time.monotonic() - started, rss(running.pid())
    times_ms = sorted(asked(running, "daemon.status") for _ in range(STATUS_CALLS))
    say(f"{AGENTS} agents up in {up_s:.1f} s; daemon {rss_mb:.0f} MB; status p99 {p99(times_ms):.2f} ms")
    assert up_s <= UP_S
    assert rss_mb <= RSS_MB
    assert p99(times_ms) <= STATUS_P99_MS * SLACK

    pids = pane_pids(running)
    for pid in pids.values():
        os.killpg(os.getpgid(pid), signal.SIGKILL)
    started, health_ms = time.monotonic(), []
    while states(running) != {"failed": AGENTS}:
        health_ms.append(asked(running, "daemon.status"))
        assert time.monotonic() - started < UP_S, states(running)
    health_ms.sort()
    took_s = time.monotonic() - started
    health = f"median {statistics.median(health_ms):.1f}, p99 {p99(health_ms):.1f} ms of {len(health_ms)}"
    say(f"all dead at once: failed after {took_s:.1f} s; health {health}")
    assert not any(map(alive, pids.values()))
    assert p99(health_ms) <= HEALTH_P99_MS * SLACK
    running.cli("respawn", "sh-1")
    running.cli("send", "sh-1", "true", "--wait", "delivered", "--timeout", "30")


@pytest.mark.slow
def test_more_agents_than_allowed_are_refused_whole():
    """F33: the one above the limit is refused with a sentence, and those there are untouched."""
    with instance() as whole:
        whole.up("agents.max=3")
        with whole.client() as client:
            client.call("agents.spawn", profile="sh", n=3, cwd=str(whole.directory))
        before = pane_pids(whole)
        done = whole.cli("spawn", "sh", check=False)
        assert done.returncode == 7
        assert "agents.max = 3" in done.stderr
        assert pane_pids(whole) == before


def states(whole: Instance) -> dict[str, int]:
    """Return how many agents are in each state."""
    with whole.client() as client:
        found = [row["state"] for row in client.call("agents.list")["agents"]]
    return {state: found.count(state) for state in found}


def asked(whole: Instance, method: str) -> float:
    """Return how long a call took, in milliseconds, on a connection of its own."""
    with whole.client() as client:
        started = time.perf_counter()
        client.call(method)
        return (time.perf_counter() - started) * 1000


def p99(ordered: list[float]) -> float:
    """Return the value that one of a hundred passes."""
    return ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))] if ordered else 0.0


def rss(pid: int) -> float:
    """Return a process's resident size in megabytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
