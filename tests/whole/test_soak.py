"""A long day: agents come and go, screens are read, messages are sent; what the daemon holds stays the same."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest
from faults import form, say
from instance import Instance, wait_until

SECONDS = form(5.0, 600.0)
WARM_UP_ROUNDS = form(3, 20)
AGENTS = form(4, 6)
SPARE_THREADS = 4  # those that wait for work end by themselves when there is none
MOST_SEARCHED = 300
RSS_SLOPE_KB = 64.0  # a round: each is some 40 calls, 12 messages and 2 agents


@pytest.mark.slow
@pytest.mark.timeout(form(120, 900))
def test_descriptors_threads_and_clients_stay_flat(running: Instance):
    """Descriptors, threads, tmux clients and sessions after hours are those after the first minutes."""
    for number in range(AGENTS):
        running.spawn("sh", name=f"stays-{number}")
    for _ in range(WARM_UP_ROUNDS):
        one_round(running)
    before, rounds = settled(running), 0
    first_rss_kb = rss_kb(running.pid())
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        one_round(running)
        rounds += 1
    after = settled(running)
    assert after.pop("threads") <= before.pop("threads") + SPARE_THREADS
    assert after == before
    assert len(searched(running)) <= MOST_SEARCHED
    slope_kb = (rss_kb(running.pid()) - first_rss_kb) / max(1, rounds)
    say(f"{rounds} rounds in {SECONDS:g} s: {before}; {slope_kb:.1f} KB a round")
    if rounds >= form(10_000, 200):  # of fewer, the first allocations are most of it
        assert slope_kb <= RSS_SLOPE_KB


def one_round(whole: Instance) -> None:
    """Do some of everything, on a connection that is closed afterwards."""
    with whole.client() as client:
        client.call("agents.spawn", profile="sh", name="goes", n=2, cwd=str(whole.directory))
        for number in range(AGENTS):
            client.call("agents.capture", target=f"stays-{number}")
            client.call("agents.explain", target=f"stays-{number}")
            client.call("messages.send", to=f"stays-{number}", body=f": round {time.monotonic_ns()}")
        client.call("sessions.list")
        client.call("agents.list")
        for number in (1, 2):
            client.call("agents.wait", target=f"goes-{number}", until="idle", timeout_s=30.0)
        client.call("agents.stop", targets=["goes-1", "goes-2"], force=True)
        client.call("messages.inbox", all=True)


def held(whole: Instance) -> dict[str, int]:
    """Return how many of each thing the daemon holds, and tmux for it."""
    pid = whole.pid()
    return {
        "descriptors": len(descriptors(whole)) - len(searched(whole)),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
        "clients": len(whole.tmux("list-clients").splitlines()),
        "sessions": len(whole.tmux("list-sessions").splitlines()),
        "children": len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()),
    }


def descriptors(whole: Instance) -> list[str]:
    """Return what each of the daemon's descriptors leads to."""
    found = []
    for entry in Path(f"/proc/{whole.pid()}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found.append(str(entry.readlink()))
    return found


def searched(whole: Instance) -> list[str]:
    """Return the open files of the search indexes: six for each part, which come, and go when parts are merged."""
    return [path for path in descriptors(whole) if "/index/" in path and not path.endswith(".lock")]


def settled(whole: Instance) -> dict[str, int]:
    """Return what is held once two looks, a while apart, agree: a closed connection takes a moment to be let go."""
    looks = [held(whole)]

    def same() -> bool:
        time.sleep(0.3)
        looks.append(held(whole))
        return looks[-1] == looks[-2]

    wait_until(same, "what the daemon holds to stay the same")
    return looks[-1]


def rss_kb(pid: int) -> float:
    """Return a process's resident size in kilobytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1024
