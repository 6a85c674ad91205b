"""The daemon is told to end, or to start again, under load: it drains, the agents stay, the clients come back."""

from __future__ import annotations

import os
import signal
import time

import pytest
from faults import Cast, back_in_s, check_nothing_lost, load, say
from instance import Instance, alive, wait_until

DRAIN_S = 5.0
GAP_S = 3.0


def test_sigterm_under_load(running: Instance):
    """F06: it ends within five seconds with status kept: agents alive, clients go on with the next daemon."""
    cast = Cast(running, 3)
    with load(cast) as under:
        pid = running.pid()
        os.kill(pid, signal.SIGTERM)
        took_s = time_until_gone(pid)
        assert not (running.directory / "agentd.sock").exists()
        assert all(alive(pid) for pid in cast.pids.values())
        away_s = back_in_s(running)
        under.more(100)
        ledger = under.stop()
    repeated = check_nothing_lost(cast, ledger)
    say(f"SIGTERM: drained in {took_s:.2f} s, back {away_s:.2f} s later; {len(ledger)} sent, {repeated} read twice")
    assert cast.pids_now() == cast.pids
    assert took_s <= DRAIN_S
    assert repeated == 0, "an orderly end finishes or takes back what it began"


def test_restart_under_load(running: Instance):
    """F06: `agentd restart` with another setting; the gap is short and nothing is lost or doubled."""
    cast = Cast(running, 3)
    with load(cast) as under:
        before = running.pid()
        started = time.monotonic()
        running.cli("restart", "--set", "courier.batch_messages=7")
        took_s = time.monotonic() - started
        assert running.pid() != before
        under.more(100)
        ledger = under.stop()
    assert {row["key"]: row["value"] for row in settings(running)}["courier.batch_messages"] == 7
    repeated = check_nothing_lost(cast, ledger)
    say(f"restart: {took_s:.2f} s; {len(ledger)} sent, {repeated} read twice")
    assert cast.pids_now() == cast.pids
    assert took_s <= DRAIN_S + GAP_S
    assert repeated == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_daemon_ends_at_once(running: Instance, number: signal.Signals):
    """Nothing is waited for when nothing is under way, not even a client that only listens."""
    agent = running.spawn("sh", name="a")
    with running.client() as client:
        following = client.events(follow=True)
        client.call("daemon.status")
        pid = running.pid()
        os.kill(pid, number)
        assert time_until_gone(pid) <= DRAIN_S + 1
        following.close()
    assert alive(agent["pid"])
    running.up()
    assert running.json("show", "a")["pid"] == agent["pid"]


def settings(whole: Instance) -> list[dict[str, object]]:
    """Return the daemon's settings, from itself."""
    with whole.client() as client:
        return list(client.call("config.show")["settings"])


def time_until_gone(pid: int) -> float:
    """Wait until a process has ended; return how long that took."""
    started = time.monotonic()
    wait_until(lambda: not alive(pid), "the daemon to be gone")
    return time.monotonic() - started
