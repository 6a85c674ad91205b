"""What agentd hears tmux by is killed, flooded and imitated: it listens again, and goes on delivering."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from faults import Cast, check_nothing_lost, form, load, rows, say
from instance import Instance, instance, pids, proc, wait_until

ROUNDS = form(2, 30)
# Printed by a program: what tmux would say in control mode of an end, an answer and an output.
IMITATION = "\\n".join(
    ["%%exit", "%%end 1 1 1", "%%begin 1 1 1", "%%error 1 1 1", "%%output %%0 x", "%%pane-mode-changed"]
)


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    """Give an instance whose daemon runs; each test stops its agents."""
    with instance() as whole:
        whole.up()
        yield whole


@pytest.fixture(autouse=True)
def _nobody_is_left(running: Instance) -> Iterator[None]:
    yield
    with running.client() as client:
        client.call("agents.stop", targets=["all"], force=True)
    wait_until(lambda: len(listeners(running)) == 4, "the control clients to be there")


def listeners(whole: Instance) -> list[int]:
    """Return the daemon's control clients."""
    mark = str(whole.directory).encode()
    found = [pid for pid in pids() if parent(pid) == whole.pid()]
    return [pid for pid in found if mark in (line := proc(pid, "cmdline")) and b"\0-C" in line]


def parent(pid: int) -> int:
    return int((proc(pid, "stat").rpartition(b")")[2].split() or [b"", b"0"])[1])


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
def test_control_clients_are_killed_under_load(running: Instance):
    """F13: one, then all of them; the server and every agent live, and no delivery is lost or doubled."""
    cast = Cast(running, 3)
    server = running.tmux("display-message", "-p", "#{pid}")
    with load(cast, senders=10) as under:
        for number in range(ROUNDS):
            before = wait_until(lambda: len(found := listeners(running)) == 4 and found, "four control clients")
            for pid in before if number % 2 else before[:1]:
                os.kill(pid, signal.SIGKILL)
            wait_until(
                lambda before=before: len(found := listeners(running)) == 4 and set(found) != set(before), "new clients"
            )
            under.more(30)
        ledger = under.stop()
    repeated = check_nothing_lost(cast, ledger)
    say(f"control clients killed {ROUNDS} times: {len(ledger)} sent, 0 lost, {repeated} read twice")
    assert running.tmux("display-message", "-p", "#{pid}") == server
    assert cast.pids_now() == cast.pids
    assert running.json("status")["pid"] == running.pid()


def test_a_death_while_nobody_listened_is_seen(running: Instance):
    """An agent that ends just when the clients are gone is not thought alive."""
    agent = running.spawn("sh", name="a")
    for pid in listeners(running):
        os.kill(pid, signal.SIGKILL)
    os.kill(agent["pid"], signal.SIGKILL)
    wait_until(lambda: running.json("show", "a")["state"] == "failed", "the death to be seen", 10)
    assert "SIGKILL" in running.json("show", "a")["reason"]


def test_a_program_that_talks_like_tmux(running: Instance):
    """T12, F13: its lines are text on its screen; the next messages go out and come back as always."""
    talker = running.spawn("shell", name="talker")
    running.spawn(name="other")
    before = listeners(running)
    for _ in range(5):
        running.cli("send", "talker", f"printf '{IMITATION}\\n'", "--wait", "delivered", "--timeout", "20")
        running.cli("send", "other", "and you?", "--wait", "reply", "--timeout", "20")
    wait_until(lambda: "%end 1 1 1" in running.screen(talker), "the lines to be printed")
    assert "%exit" in running.cli("read", "talker").stdout
    assert listeners(running) == before, "a line of a program cost a connection"
    assert running.json("show", "talker")["state"] == "idle"


def test_a_flood_beside_the_others(running: Instance):
    """An agent that prints without end gets its messages, and its neighbour does not wait for it."""
    log = running.directory / "flood.log"
    running.spawn(name="flood", env={"AGENTD_DEMO_MODE": "flood", "AGENTD_DEMO_LOG": str(log)}, ready=False)
    running.spawn(name="quiet")
    ids = [running.json("send", "flood", f"through the flood {number}")["id"] for number in range(5)]
    running.cli("send", "quiet", "and you?", "--wait", "reply", "--timeout", "10")
    wait_until(lambda: [row["id"] for row in rows(log)] == ids, "the flooding agent to read its messages")
    for pid in listeners(running):
        os.kill(pid, signal.SIGKILL)
    last = running.json("send", "flood", "after the clients were killed")["id"]
    wait_until(lambda: [row["id"] for row in rows(log)] == [*ids, last], "the flooding agent to read one more")
