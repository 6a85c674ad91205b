"""However many are started at once, one daemon serves an instance."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from faults import form
from instance import Instance, pids, proc, wait_until

STARTS = 20
ROUNDS = form(3, 10)
ALREADY_RUNNING = 75


def daemons(whole: Instance) -> list[int]:
    """Return the daemons that run from the instance's directory."""
    mark = str(whole.directory).encode()
    return [pid for pid in pids() if b"--foreground" in proc(pid, "cmdline") and mark in proc(pid, "environ")]


def start(whole: Instance, *words: str, **environ: str) -> subprocess.Popen[str]:
    """Begin `agentd up`."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentd", "up", *words],
        env=whole.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
@pytest.mark.timeout(form(120, 600))
def test_of_twenty_started_at_once_one_runs(idle_instance: Instance):
    """F08, R06: all twenty say so, and name the same process; also right after a kill -9."""
    for _ in range(ROUNDS):
        started = [start(idle_instance) for _ in range(STARTS)]
        said = [program.communicate(timeout=60) for program in started]
        assert [program.returncode for program in started] == [0] * STARTS, said
        pid = idle_instance.pid()
        assert {f"(pid {pid})" in out for out, _ in said} == {True}, said
        wait_until(lambda pid=pid: daemons(idle_instance) == [pid], "the others to be gone", 10)
        assert idle_instance.json("status")["pid"] == pid
        idle_instance.kill()
    idle_instance.up()


def test_a_second_in_the_foreground_says_that_one_runs(running: Instance):
    """R05: it exits with the status that means `try later`, and harms neither socket nor daemon."""
    second = start(running, "--foreground")
    out, err = second.communicate(timeout=30)
    assert second.returncode == ALREADY_RUNNING, (out, err)
    assert str(running.pid()) in err
    assert len(err.splitlines()) == 1
    assert running.json("status")["pid"] == running.pid()


def by_xdg(whole: Instance, runtime: str) -> dict[str, str]:
    """Return an environment in which the places are XDG's, with this runtime directory."""
    places = {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config", "XDG_RUNTIME_DIR": runtime}
    for place in places.values():
        (whole.directory / place).mkdir(mode=0o700, exist_ok=True)
    return {name: str(whole.directory / place) for name, place in places.items()}


def test_another_runtime_directory_makes_no_second_daemon(idle_instance: Instance):
    """R06: the state is what two must not share; the socket's place decides nothing."""
    del idle_instance.environ["AGENTD_DIR"]
    idle_instance.environ |= by_xdg(idle_instance, "run-1")
    idle_instance.cli("up")
    pid = idle_instance.json("status")["pid"]
    elsewhere = by_xdg(idle_instance, "run-2")
    second = start(idle_instance, "--foreground", **elsewhere)
    out, err = second.communicate(timeout=30)
    assert second.returncode == ALREADY_RUNNING, (out, err)
    assert daemons(idle_instance) == [pid]
    assert not (Path(elsewhere["XDG_RUNTIME_DIR"]) / "agentd" / "agentd.sock").exists()
    assert idle_instance.json("status")["pid"] == pid


def test_another_state_directory_makes_no_second_daemon_at_the_socket(idle_instance: Instance):
    """R06, the other half: two states must not share a socket."""
    del idle_instance.environ["AGENTD_DIR"]
    idle_instance.environ |= by_xdg(idle_instance, "run-1")
    idle_instance.cli("up")
    pid = idle_instance.json("status")["pid"]
    other = idle_instance.directory / "state-2"
    other.mkdir(mode=0o700)
    second = start(idle_instance, "--foreground", XDG_STATE_HOME=str(other))
    out, err = second.communicate(timeout=30)
    assert second.returncode == ALREADY_RUNNING, (out, err)
    assert daemons(idle_instance) == [pid]


def test_a_killed_daemon_leaves_nothing_that_hinders_the_next(running: Instance):
    """R05, R07: with agents alive the socket is stale and the locks are free; what is no socket is left alone."""
    agent = running.spawn("sh", name="a")
    running.kill()
    assert (running.directory / "agentd.sock").exists()
    running.up()
    assert running.json("show", "a")["pid"] == agent["pid"]
    running.kill()
    socket = running.directory / "agentd.sock"
    socket.unlink()
    socket.write_text("mine")
    refused = running.cli("up", check=False)
    assert refused.returncode != 0
    assert "not a socket" in refused.stderr
    assert socket.read_text() == "mine"
    socket.unlink()
    running.up()
    assert os.getpgid(agent["pid"])
