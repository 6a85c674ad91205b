"""The daemon is killed again and again under load: nothing acknowledged is lost, nobody's program ends."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import time

import pytest
from faults import Cast, back_in_s, check_nothing_lost, form, load, say, seeded, summary
from instance import Instance

KILLS = form(4, 30)
AGENTS = form(4, 6)
SENDERS = form(20, 50)
BACK_S = form(4.0, 2.0)  # 2 s is the promise; the short form runs beside other tests on shared cores
MOST_S = 6.0


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
def test_the_daemon_is_killed_at_random_moments_under_load(running: Instance):
    """G1, G2, G3, G5, F05: many senders with keys; their ledgers and the agents' own logs agree after every kill."""
    chance = seeded("kill storm")
    cast = Cast(running, AGENTS)
    away = []
    with load(cast, senders=SENDERS) as under:
        for number in range(KILLS):
            time.sleep(chance.uniform(0.05, form(0.6, 1.0)))  # the moment is what is random here
            running.kill()
            if number % 4 == 3:
                kill_while_it_starts(running, chance)
            away.append(back_in_s(running))
            assert cast.pids_now() == cast.pids
            under.more(50)
        ledger = under.stop()
    repeated = check_nothing_lost(cast, ledger)
    again = sum(row["duplicate"] for row in ledger)
    say(f"{KILLS} kills: {len(ledger)} acknowledged, 0 lost, {repeated} read twice, {again} sends repeated by key")
    say(f"back: {summary(away)}: {' '.join(f'{seconds:.2f}' for seconds in away)}")
    assert cast.pids_now() == cast.pids
    assert statistics.median(away) <= BACK_S
    assert max(away) <= MOST_S


def kill_while_it_starts(whole: Instance, chance: random.Random) -> None:
    """Start a daemon and kill it somewhere in its start: recovery, too, is a moment to die in."""
    program = subprocess.Popen(
        [sys.executable, "-m", "agentd", "up", "--foreground"], env=whole.environ, stderr=subprocess.DEVNULL
    )
    time.sleep(chance.uniform(0.1, 0.8))
    program.kill()
    program.wait()
