"""The daemon is told to end, or to start again, under load: it drains, the agents stay, the clients come back."""

from __future__ import annotations

import os
import signal
import time

from faults import Cast, back_in_s, check_nothing_lost, form, load, say
from instance import Instance, alive, wait_until

DRAIN_S = 5.0
GAP_S = 3.0
SENDERS = form(16, 50)


def test_sigterm_and_a_restart_under_load(running: Instance):
    """F06: it ends within five seconds, then starts again with another setting: agents alive, nothing lost or doubled.

    Clients go on with the next daemon, and the gap of `agentd restart` is short.
    """
    cast = Cast(running, 3)
    with load(cast, senders=SENDERS) as under:
        drained_s, away_s = ended_and_started(running, cast)
        under.more(2 * SENDERS)
        restarted_s = restarted(running)
        under.more(2 * SENDERS)
        ledger = under.stop()
    assert {row["key"]: row["value"] for row in settings(running)}["courier.batch_messages"] == 7
    repeated = check_nothing_lost(cast, ledger)
    say(f"SIGTERM: drained in {drained_s:.2f} s, back {away_s:.2f} s later; restart: {restarted_s:.2f} s")
    say(f"{len(ledger)} sent, {repeated} read twice")
    assert cast.pids_now() == cast.pids
    assert drained_s <= DRAIN_S
    assert restarted_s <= DRAIN_S + GAP_S
    assert repeated == 0, "an orderly end finishes or takes back what it began"


def ended_and_started(whole: Instance, cast: Cast) -> tuple[float, float]:
    """Tell the daemon to end, and start the next; return how long it took to drain, and to answer again."""
    pid = whole.pid()
    os.kill(pid, signal.SIGTERM)
    took_s = time_until_gone(pid)
    assert not (whole.directory / "agentd.sock").exists()
    assert all(alive(pid) for pid in cast.pids.values())
    return took_s, back_in_s(whole)


def restarted(whole: Instance) -> float:
    """Restart the daemon with another setting; return how long that took."""
    before, started = whole.pid(), time.monotonic()
    whole.cli("restart", "--set", "courier.batch_messages=7")
    assert whole.pid() != before
    return time.monotonic() - started


def test_an_idle_daemon_ends_at_once(running: Instance):
    """Nothing is waited for when nothing is under way, not even a client that only listens."""
    agent = running.spawn("sh", name="a")
    for number in (signal.SIGTERM, signal.SIGINT):
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
