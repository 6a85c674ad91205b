"""The tmux server is killed: its agents are failed and say why, what outlived it is ended, and messages wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from faults import form, rows, say
from instance import Instance, alive, wait_until

from agentd.errors import AgentdError

AGENTS = form(6, 14)
DEAF_TO_HUP = form(2, 4)
SEEN_S = 1.0
SLACK_S = 2.0  # for a machine that does other things, too


def kill_tmux(whole: Instance, server: int = 0) -> int:
    """kill -9 one of the instance's tmux servers; return its pid."""
    pid = int(whole.tmux("display-message", "-p", "#{pid}", server=server))
    os.kill(pid, signal.SIGKILL)
    return pid


def by_name(whole: Instance) -> dict[str, dict[str, Any]]:
    with whole.client() as client:
        return {row["name"]: row for row in client.call("agents.list")["agents"]}


def test_agents_of_a_killed_server_fail_and_come_back_with_their_messages(running: Instance):
    """F09: failed within a second, with a reason; `respawn` keeps id and inbox, and what waited is delivered."""
    with running.client() as client:
        client.call("agents.spawn", profile="sh", n=AGENTS, cwd=str(running.directory), timeout_s=60)
    deaf = [deaf_to_hup(running, f"deaf-{number}") for number in range(DEAF_TO_HUP)]
    log = running.directory / "a.log"
    agent = running.spawn(name="a", env={"AGENTD_DEMO_LOG": str(log), "AGENTD_DEMO_MODE": "stubborn"})
    pids = [row["pid"] for row in by_name(running).values()]
    daemon = running.pid()
    kill_tmux(running)
    started = time.monotonic()
    wait_until(lambda: {row["state"] for row in by_name(running).values()} == {"failed"}, "all to be failed", 10)
    failed_s = time.monotonic() - started
    assert {row["reason"] for row in by_name(running).values()} == {"lost: its tmux server ended"}
    wait_until(lambda: not any(map(alive, [*pids, *deaf])), "what outlived the server to be ended", 10)
    say(f"tmux killed: {len(pids)} agents failed after {failed_s:.2f} s, gone {time.monotonic() - started:.2f} s after")
    assert running.pid() == daemon
    assert alive(daemon)
    receipt = running.json("send", "a", "are you back?")
    waiting = running.json("msg", receipt["id"])
    assert (waiting["state"], waiting["waits_for"]) == ("accepted", "a is failed: lost: its tmux server ended")
    assert running.json("explain", "a")["reason"] == "lost: its tmux server ended"
    running.cli("respawn", "a")
    wait_until(lambda: [row["id"] for row in rows(log)] == [receipt["id"]], "the waiting message to be read")
    assert by_name(running)["a"]["id"] == agent["id"]
    wait_until(lambda: running.json("msg", receipt["id"])["state"] == "acked", "the answer")
    running.cli("stop", "a", "--force")  # asking it would take its time
    assert failed_s <= SEEN_S + SLACK_S


def deaf_to_hup(whole: Instance, name: str) -> int:
    """Make a shell that the end of its terminal does not end; return the pid of what it runs."""
    pid_file = whole.directory / name
    whole.spawn("shell", name=name)
    whole.cli("send", name, f"trap '' HUP; sleep 1000 & echo $! > {pid_file}; wait")
    wait_until(lambda: pid_file.exists() and pid_file.read_text().strip(), f"{name} to ignore hang-ups")
    return int(pid_file.read_text())


def test_a_killed_server_and_a_killed_daemon(running: Instance):
    """Both die: the next daemon finds no pane, says so, and ends what outlived them."""
    survivor = deaf_to_hup(running, "deaf")
    running.spawn("sh", name="a")
    running.kill()
    kill_tmux(running)
    running.up()
    wait_until(lambda: {row["state"] for row in by_name(running).values()} == {"failed"}, "both to be failed", 10)
    assert all("gone" in row["reason"] for row in by_name(running).values())
    wait_until(lambda: not alive(survivor), "what outlived both to be ended", 10)
    for name in ("a", "deaf"):
        running.cli("respawn", name)
        running.cli("send", name, "true", "--wait", "delivered", "--timeout", "20")


def test_a_server_killed_while_agents_are_stopped(running: Instance):
    """Whoever stops them is answered, none is thought alive afterwards, and each can be started again."""
    names = [f"s-{number}" for number in range(6)]
    for name in names:
        running.spawn(name=name, env={"AGENTD_DEMO_MODE": "stubborn"})
    stop = subprocess.Popen(
        [sys.executable, "-m", "agentd", "stop", *names],
        env=running.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: "/exit" in running.screen(by_name(running)["s-0"]), "the first to be asked to end")
    kill_tmux(running)
    said = stop.communicate(timeout=30)[1]
    assert "Traceback" not in said
    wait_until(lambda: started(running, "other"), "tmux to be there again", 10)
    wait_until(lambda: live(running) == ["other"], "only what was started since to be alive", 10)
    running.cli("respawn", "s-0")
    running.cli("wait", "s-0", "--for", "idle", "--timeout", "10")
    running.cli("stop", "s-0", "--force")


def started(whole: Instance, name: str) -> bool:
    """Start an agent; False when there is no tmux server at this moment, which a caller may try again."""
    try:
        return bool(whole.spawn("sh", name=name))
    except AgentdError as error:
        if not error.retryable:
            raise
        return False


def live(whole: Instance) -> list[str]:
    with whole.client() as client:
        assert client.call("daemon.status")["agents"]["live"] == sum(
            row["pid"] is not None for row in by_name(whole).values()
        )
    return [name for name, row in by_name(whole).items() if row["pid"] is not None]
