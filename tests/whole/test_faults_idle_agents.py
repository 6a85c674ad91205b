"""The daemon is killed while many agents idle: the next one takes over every one of them, and holds on to nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from faults import back_in_s, form, pane_pids, say
from instance import Instance, alive, wait_until

SHELLS = form(20, 160)
DEMOS = form(4, 40)
BACK_S = form(4.0, 2.0)  # 2 s is the promise; the short form runs beside other tests on shared cores


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
def test_every_idle_agent_is_taken_over(running: Instance):
    """F01, R07: pids unchanged, an answer within two seconds, and no agent holds our lock, files or socket."""
    with running.client() as client:
        for profile, count in (("sh", SHELLS), ("demo", DEMOS)):
            client.call("agents.spawn", profile=profile, n=count, cwd=str(running.directory), timeout_s=60)
    wait_until(lambda: states(running) == {"idle": SHELLS + DEMOS}, "all to be idle", 60)
    before, pids = agents(running), pane_pids(running)
    running.kill()
    assert all(alive(pid) for pid in pids.values())
    assert held_by(pids.values(), running.directory) == []
    away_s = back_in_s(running)
    say(f"{len(before)} idle agents: back in {away_s:.2f} s")
    assert agents(running) == before
    assert pane_pids(running) == pids
    assert held_by(pids.values(), running.directory) == []
    started = time.monotonic()
    with running.client() as client:
        ids = [receipt["id"] for receipt in client.call("messages.send", to="all", body=": hello")["receipts"]]
        assert len(ids) == len(before)
        for id_ in ids:
            client.call("messages.wait", id=id_, until="delivered", timeout_s=60.0)
    say(f"all delivered to {time.monotonic() - started:.2f} s later")
    assert away_s <= BACK_S


def agents(whole: Instance) -> dict[str, tuple[str, int]]:
    """Return each agent's id, and its name and pid."""
    with whole.client() as client:
        return {row["id"]: (row["name"], row["pid"]) for row in client.call("agents.list")["agents"]}


def states(whole: Instance) -> dict[str, int]:
    """Return how many agents are in each state."""
    with whole.client() as client:
        found = [row["state"] for row in client.call("agents.list")["agents"]]
    return {state: found.count(state) for state in found}


def held_by(pids: object, directory: Path) -> list[str]:
    """Return what programs hold open below a directory, and their sockets."""
    return [f"{pid}: {target}" for pid in pids for target in open_files(pid) if is_ours(target, directory)]


def is_ours(target: str, directory: Path) -> bool:
    return target.startswith((str(directory), "socket:"))


def open_files(pid: int) -> list[str]:
    """Return what a process's descriptors stand for."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry))
        except FileNotFoundError:  # closed since
            continue
    return found
