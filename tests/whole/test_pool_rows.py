"""Rows of the fault matrix with the pool running: reboot, caps, dying clients, many at once, all dead at once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from fault_rows import row
from faults import HUB, SEED, form, say, seeded
from instance import Instance, alive, wait_until
from pooling import BUSY, DEMO, agents, answered, claim, filled, keep, panes, pool, put_profile, written_slots
from test_load import HEALTH_P99_MS, asked, p99
from test_load import SLACK as LOAD_SLACK
from test_pool_faults import ask_until_answered, check_whole, side_by_side

from agentd.client import connect
from agentd.errors import AgentdError, OverLimit, RateLimit

SIZE = 3
DEATHS = form(8, 200)  # of clients
LONGEST_CALL_S = 0.03  # a hand-out's and a cold start's; a client dies at any moment of it
AT_ONCE = form(12, 50)
DYING = form(6, 24)
REFILLED_S = form(90.0, 30.0)  # the short form runs beside other things

# Says when it is about to ask, and asks.
CLIENT = """
import sys
from agentd.client import connect
with connect(autostart=False) as client:
    print(flush=True)
    client.call("agents.spawn", profile="demo", cwd=sys.argv[1], name=sys.argv[2], key=sys.argv[2], prompt=sys.argv[2])
"""


# -- F35: clients that die


@pytest.mark.slow
@pytest.mark.timeout(form(180, 900))
def test_clients_that_die_while_they_ask_cost_nothing(idle_instance: Instance):
    """F35: whatever became of each asking, its key is one agent and one first prompt, and the pool is whole."""
    chance, log = seeded("F35"), idle_instance.directory / "log"
    put_profile(idle_instance, "demo", f'{DEMO}\n[env]\nAGENTD_DEMO_LOG = "{log}"\n')
    idle_instance.up(BUSY, "pool.boots_per_min=10000")
    keep(idle_instance, SIZE)
    names = [f"a-{number}" for number in range(DEATHS)]
    for name in names:
        killed_while_it_asks(idle_instance, name, chance.uniform(0, LONGEST_CALL_S))
    came_to_be = {agent["name"]: agent["id"] for agent in settled_agents(idle_instance)}
    answers: list[dict[str, Any]] = []
    for name in names:
        ask_until_answered(idle_instance, answers, key=name, name=name, prompt=name)
    assert {agent["name"]: agent["id"] for agent in answers}.items() >= came_to_be.items(), "one key, two agents"
    assert sorted(agent["name"] for agent in agents(idle_instance)) == sorted(names)
    wait_until(lambda: len(read_lines(log)) >= DEATHS, "every first prompt to be read", 60)
    filled(idle_instance, SIZE)
    check_whole(idle_instance)
    assert sorted(line["body"] for line in read_lines(log)) == sorted(names), "a first prompt was read twice, or not"
    fences = [agent["fence"] for agent in written(idle_instance) if agent["warm"]]
    assert len(set(fences)) == len(fences), "I10: a fence was given twice"
    directories = {path.name for path in (idle_instance.directory / "agents").iterdir()}
    assert directories == {agent["id"] for agent in written(idle_instance)}, "what was given up left something"
    row("F35", SEED, clients=DEATHS, before_their_end=len(came_to_be), warm=len(fences))


def killed_while_it_asks(whole: Instance, name: str, after_s: float) -> None:
    words = [sys.executable, "-c", CLIENT, str(whole.directory), name]
    with subprocess.Popen(words, env=whole.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        client.stdout.readline()
        time.sleep(after_s)  # not a wait for anything: the moment of its death
        client.kill()


def settled_agents(whole: Instance) -> list[dict[str, Any]]:
    """Return the agents once no asking is under way any more."""
    filled(whole, SIZE)
    return agents(whole)


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def written(whole: Instance) -> list[dict[str, Any]]:
    """Return every agent and slot as it is on disk."""
    with closing(sqlite3.connect(f"file:{whole.directory / 'registry.db'}?mode=ro", uri=True)) as db:
        return [json.loads(data) for (data,) in db.execute("SELECT data FROM agents")]


# -- F41: many at once


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
def test_many_at_once_are_as_many_rows_sessions_and_programs(idle_instance: Instance):
    """F41: those from the pool and the fresh ones alike; each answer is a row on disk and a pane of its own."""
    idle_instance.up(BUSY)
    before = keep(idle_instance, SIZE)
    got = [answer for answer in side_by_side(idle_instance, AT_ONCE) if not isinstance(answer, AgentdError)]
    assert len(got) == AT_ONCE
    for key in ("id", "name", "pid"):
        assert len({agent[key] for agent in got}) == AT_ONCE, f"one {key}, two agents"
    filled(idle_instance, SIZE)
    asked_for = {(agent["id"], agent["name"]) for agent in got}
    assert {(agent["id"], agent["name"]) for agent in written(idle_instance) if not agent["pooled"]} == asked_for
    assert {agent["id"] for agent in got if agent["warm"]} >= before.keys()
    found = pool(idle_instance)
    assert (found["hits"], found["hits"] + found["misses"]) == (sum(agent["warm"] for agent in got), AT_ONCE)
    check_whole(idle_instance)
    answered(idle_instance, *(agent["name"] for agent in got))
    row("F41", 0, spawns=AT_ONCE, warm=found["hits"])


# -- F33, M09: caps


def test_slots_are_under_the_same_caps(idle_instance: Instance):
    """F33, M09: an agent that starts agents gets no more of them because they are booted already."""
    idle_instance.up(BUSY, "agents.spawnable=demo", "agents.family_max=20", "agents.spawns_per_min=4")
    parent = idle_instance.spawn(name="ann", cold=True)
    keep(idle_instance, 2)
    child = asked_by(idle_instance, parent["id"], "child")
    grandchild = asked_by(idle_instance, child["id"], "grandchild")
    great = asked_by(idle_instance, grandchild["id"], "great")
    assert child["warm"] is True
    shown = idle_instance.show("child")
    assert (shown["started_by"], idle_instance.show("great")["started_by"]) == ("ann", "grandchild")
    filled(idle_instance, 2)
    before = panes(idle_instance)
    with pytest.raises(OverLimit, match="spawn_depth"):
        asked_by(idle_instance, great["id"], "too-deep")
    with pytest.raises(RateLimit, match="4 agents a minute"):
        asked_by(idle_instance, parent["id"], "too-many", n=5)
    assert {agent["name"] for agent in agents(idle_instance)} == {"ann", "child", "grandchild", "great"}
    assert panes(idle_instance) == before, "a refusal costs no slot"
    row("M09", 0, refused=2)


def asked_by(whole: Instance, parent: str, name: str, n: int = 1) -> dict[str, Any]:
    token = (whole.directory / "agents" / parent / "token").read_text().strip()
    with connect(environ=whole.environ, autostart=False, token=token) as client:
        return dict(client.call("agents.spawn", profile="demo", name=name, n=n)["agents"][0])


# -- F28: a reboot


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_after_a_reboot_the_pool_is_filled_and_nobody_else_is_touched(idle_instance: Instance):
    """F28: every program and socket is gone, and a pid that a slot had is a stranger's."""
    idle_instance.up(BUSY)
    keep(idle_instance, 2)
    named = claim(idle_instance, name="ann")
    before = filled(idle_instance, 2)
    with idle_instance.client() as client:
        client.call("messages.send", to="ann", body="kept", key="k")
    reboot(idle_instance)
    with subprocess.Popen(["sleep", "600"], env={"PATH": os.environ["PATH"]}) as stranger:
        try:
            have_pid(idle_instance, [*before, named["id"]], stranger.pid)
            idle_instance.up(BUSY)
            after = filled(idle_instance, 2)
            assert stranger.poll() is None, "somebody else's program was ended"
        finally:
            stranger.kill()
    assert not before.keys() & after.keys()
    assert written_slots(idle_instance) == after.keys()
    directories = {path.name for path in (idle_instance.directory / "agents").iterdir()}
    assert directories == after.keys() | {named["id"]}, "what was kept of the dead slots"
    shown = idle_instance.show("ann")
    assert (shown["id"], shown["state"]) == (named["id"], "failed")
    idle_instance.call("agents.respawn", target="ann")
    answered(idle_instance, "ann")
    check_whole(idle_instance)
    row("F28", 0, slots=len(before), agents=1)


def reboot(whole: Instance) -> None:
    """End everything of an instance at once, and have no socket left of it."""
    whole.kill()
    for pid in whole.processes():
        with suppress(ProcessLookupError):  # one ends as another does
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not whole.processes(), "everything to be gone")
    for path in (
        *whole.directory.glob("*.sock"),
        *whole.directory.glob("tmux-*.conf"),
        *whole.directory.glob("*.lock"),
    ):
        path.unlink()


def have_pid(whole: Instance, ids: list[str], pid: int) -> None:
    """Have it on disk that the programs of these had this pid."""
    with closing(sqlite3.connect(whole.directory / "registry.db")) as db, db:
        for id_ in ids:
            (text,) = db.execute("SELECT data FROM agents WHERE id=?", (id_,)).fetchone()
            data = json.loads(text)
            data["pane"]["pid"] = pid
            db.execute("UPDATE agents SET data=? WHERE id=?", (json.dumps(data), id_))


# -- L3: all dead at once


@pytest.mark.slow
@pytest.mark.timeout(form(180, 300))
@pytest.mark.parametrize("what", form(["half by half"], ["half by half", "programs", "server"]))
def test_all_slots_dead_at_once_are_no_storm(idle_instance: Instance, what: str):
    """L3: each is replaced once, as many at a time as may boot at once, and the daemon answers meanwhile."""
    runs = idle_instance.directory / "runs"
    args = 'args = ["-P", "-m", "agentd.testing.demo_agent"]'
    program = f"args = ['-c', 'echo $$ >>{runs}; exec {sys.executable} -P -m agentd.testing.demo_agent']"
    put_profile(idle_instance, "demo", DEMO.replace('"{python}"', '"/bin/sh"').replace(args, program))
    idle_instance.up(
        BUSY,
        "pool.boots_at_once=2",
        "pool.slot_mb=10",
        "pool.boots_per_min=1000",
        *(["tmux.servers=2"] if what == "half by half" else []),
    )
    idle_instance.spawn(name="ann", cold=True)
    before = keep(idle_instance, DYING)
    wait_until(lambda: proven(idle_instance), "the slots to be taken for good ones")
    booted = len(runs.read_text().splitlines())
    end_all(idle_instance, what)
    started, health_ms, most = time.monotonic(), [], 0
    while (row_ := pool(idle_instance))["warm"] < DYING or before.keys() & written_slots(idle_instance):
        health_ms.append(asked(idle_instance, "daemon.status"))
        most = max(most, row_["booting"])
        assert time.monotonic() - started < REFILLED_S, row_
    refilled_s = time.monotonic() - started
    assert not before.keys() & filled(idle_instance, DYING).keys()
    assert len(runs.read_text().splitlines()) == booted + DYING, "each is replaced once"
    assert most <= 2
    assert p99(sorted(health_ms)) <= HEALTH_P99_MS * LOAD_SLACK
    assert not any(alive(pid) for pid in before.values())
    check_whole(idle_instance)
    say(f"{DYING} slots dead at once ({what}): filled after {refilled_s:.1f} s, at most {most} booting")
    row("L3", 0, slots=DYING, refilled_s=round(refilled_s, 1), health_p99_ms=round(p99(sorted(health_ms)), 1))


def end_all(whole: Instance, what: str) -> None:
    """Kill every program of an agent or slot, or every tmux server, or the first server and what is on the others."""
    servers = whole.servers()
    dying = {"programs": [], "server": servers, "half by half": servers[:1]}[what]
    for server in servers:
        if server in dying:
            os.kill(int(whole.tmux("display-message", "-p", "#{pid}", server=server)), signal.SIGKILL)
        else:
            end_programs(whole, server)


def end_programs(whole: Instance, server: int) -> None:
    for line in whole.tmux("list-panes", "-a", "-F", "#{pane_pid} #{session_name}", server=server).splitlines():
        pid, _, session = line.partition(" ")
        if session != HUB:
            os.killpg(os.getpgid(int(pid)), signal.SIGKILL)


def proven(whole: Instance) -> bool:
    """Tell whether no slot is so young that its end would be taken for a boot that failed."""
    now_ns = time.time_ns()
    return all(now_ns - agent["since_ns"] > 5.5e9 for agent in written(whole) if agent["pooled"])
