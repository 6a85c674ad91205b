"""However many are started at once, one daemon serves an instance."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import form
from instance import Instance, instance, pids, proc, wait_until

STARTS = form(7, 20)
ROUNDS = form(2, 10)  # the first from nothing, the others after a kill -9
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
def test_of_many_started_at_once_one_runs(idle_instance: Instance):
    """F08, R06: all of them say so, and name the same process; also right after a kill -9."""
    for _ in range(ROUNDS):
        started = [start(idle_instance) for _ in range(STARTS)]
        said = [program.communicate(timeout=60) for program in started]
        assert [program.returncode for program in started] == [0] * STARTS, said
        pid = idle_instance.pid()
        assert {f"(pid {pid})" in out for out, _ in said} == {True}, said
        wait_until(lambda pid=pid: daemons(idle_instance) == [pid], "the others to be gone", 10)
        assert idle_instance.json("status")["pid"] == pid
        idle_instance.kill()


def by_xdg(whole: Instance, runtime: str) -> dict[str, str]:
    """Return an environment in which the places are XDG's, with this runtime directory."""
    places = {"XDG_STATE_HOME": "state", "XDG_CONFIG_HOME": "config", "XDG_RUNTIME_DIR": runtime}
    for place in places.values():
        (whole.directory / place).mkdir(mode=0o700, exist_ok=True)
    return {name: str(whole.directory / place) for name, place in places.items()}


@pytest.fixture(scope="module")
def placed() -> Iterator[Instance]:
    """Give an instance that runs at XDG's places."""
    with instance() as whole:
        del whole.environ["AGENTD_DIR"]
        whole.environ |= by_xdg(whole, "run-1")
        whole.cli("up")
        yield whole
        whole.cli("down", "--agents", "stop")


def refused_a_second(whole: Instance, **elsewhere: str) -> str:
    """Start one more daemon, which must leave the one that runs alone; return what it said."""
    pid = whole.json("status")["pid"]
    second = start(whole, "--foreground", **elsewhere)
    out, err = second.communicate(timeout=30)
    assert second.returncode == ALREADY_RUNNING, (out, err)
    assert daemons(whole) == [pid]
    assert whole.json("status")["pid"] == pid
    return err


def test_a_second_in_the_foreground_says_that_one_runs(placed: Instance):
    """R05: it exits with the status that means `try later`, and harms neither socket nor daemon."""
    said = refused_a_second(placed)
    assert len(said.splitlines()) == 1
    assert str(placed.json("status")["pid"]) in said


def test_another_runtime_directory_makes_no_second_daemon(placed: Instance):
    """R06: the state is what two must not share; the socket's place decides nothing."""
    elsewhere = by_xdg(placed, "run-2")
    refused_a_second(placed, **elsewhere)
    assert not (Path(elsewhere["XDG_RUNTIME_DIR"]) / "agentd" / "agentd.sock").exists()


def test_another_state_directory_makes_no_second_daemon_at_the_socket(placed: Instance):
    """R06, the other half: two states must not share a socket."""
    other = placed.directory / "state-2"
    other.mkdir(mode=0o700)
    refused_a_second(placed, XDG_STATE_HOME=str(other))


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
