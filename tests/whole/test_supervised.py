"""Under a supervisor such as systemd, which the tests play: its socket, its notifications, its watchdog."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from instance import DEADLINE_S, Instance, proc, wait_until

from agentd.daemon import EXIT_CANNOT_START
from agentd.supervisor import VARIABLES

# What systemd does between fork and exec.
EXEC = """
import os, sys
given = int(sys.argv[1])
if given >= 0:
    os.dup2(given, 3)
    os.environ["LISTEN_FDS"] = sys.argv[2]
    os.environ["LISTEN_PID"] = sys.argv[3] or str(os.getpid())
os.execv(sys.executable, [sys.executable, "-m", "agentd", "up", "--foreground"])
"""


class Systemd:
    """A supervisor with one service."""

    def __init__(self, whole: Instance) -> None:
        self.whole = whole
        self.notify_path = str(whole.directory / "notify")
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind(self.notify_path)
        self.notified.settimeout(DEADLINE_S)
        self.listener: socket.socket | None = None
        self.process: subprocess.Popen[str] | None = None

    def bind_abstract(self, name: str) -> None:
        """Be notified at a socket without a file."""
        self.notified.close()
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notified.bind("\0" + name)
        self.notified.settimeout(DEADLINE_S)
        self.notify_path = f"@{name}"

    def listen(self, path: Path | None = None, kind: int = socket.SOCK_STREAM) -> None:
        self.listener = socket.socket(socket.AF_UNIX, kind)
        self.listener.bind(str(path or self.whole.directory / "agentd.sock"))
        if kind == socket.SOCK_STREAM:
            self.listener.listen()

    def start(self, *, count: str = "1", pid: str = "", **environ: str) -> subprocess.Popen[str]:
        fds = (self.listener.fileno(),) if self.listener else ()
        argv = [sys.executable, "-c", EXEC, str(fds[0] if fds else -1), count, pid]
        env = self.whole.environ | {"NOTIFY_SOCKET": self.notify_path} | environ
        self.process = subprocess.Popen(argv, env=env, pass_fds=fds, stderr=subprocess.PIPE, text=True)
        return self.process

    def told(self) -> dict[str, str]:
        """Return the next notification."""
        lines = self.notified.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode

    def close(self) -> None:
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()
            self.process.communicate()
        for sock in (self.listener, self.notified):
            if sock:
                sock.close()


@pytest.fixture
def systemd(idle_instance: Instance) -> Iterator[Systemd]:
    one = Systemd(idle_instance)
    yield one
    one.close()


def test_it_serves_the_socket_it_is_given_says_when_and_leaves_it(systemd: Systemd, idle_instance: Instance):
    systemd.listen()
    with idle_instance.client() as early:  # connects before there is a daemon, as systemd means it
        process = systemd.start()
        status = early.call("daemon.status", timeout_s=DEADLINE_S)
        told = systemd.told()
        assert (told["READY"], told["MAINPID"]) == ("1", str(process.pid))
        assert status["pid"] == process.pid
    agent = idle_instance.spawn("shell")
    environ = proc(agent["pid"], "environ").split(b"\0")
    assert any(pair.startswith(b"AGENTD_AGENT_ID=") for pair in environ)
    assert not [name for name in VARIABLES if any(pair.startswith(name.encode() + b"=") for pair in environ)]
    assert not any("agentd.sock" in target for target in open_sockets(agent["pid"]))
    assert systemd.stop() == 0
    assert systemd.told()["STOPPING"] == "1"
    assert (idle_instance.directory / "agentd.sock").is_socket()  # it is systemd's
    with idle_instance.client() as waiting:  # and the next client starts the next daemon
        process = systemd.start()
        assert waiting.call("daemon.status", timeout_s=DEADLINE_S)["pid"] == process.pid


def open_sockets(pid: int) -> list[str]:
    """Return which Unix sockets a process has open, by the path they listen at."""
    inodes = {}
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        words = line.split()
        if len(words) > 7:
            inodes[words[6]] = words[7]
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            target = os.readlink(link)
            found.append(inodes.get(target.removeprefix("socket:[").rstrip("]"), ""))
    return found


def test_without_a_socket_it_makes_its_own_and_notifies_an_abstract_socket_too(
    systemd: Systemd, idle_instance: Instance
):
    if sys.platform == "linux":  # abstract sockets are its own
        systemd.bind_abstract(f"agentd-test-{os.getpid()}")
    process = systemd.start(WATCHDOG_USEC="200000")
    assert systemd.told()["READY"] == "1"
    assert [systemd.told(), systemd.told()] == [{"WATCHDOG": "1"}] * 2
    with idle_instance.client() as client:
        assert client.call("daemon.status")["pid"] == process.pid
        client.call("daemon.shutdown")
    told = {"WATCHDOG": "1"}
    while told == {"WATCHDOG": "1"}:
        told = systemd.told()
    assert told["STOPPING"] == "1"
    assert process.wait(DEADLINE_S) == 0
    assert not (idle_instance.directory / "agentd.sock").exists()


def test_what_was_meant_for_another_process_is_not_taken(systemd: Systemd, idle_instance: Instance):
    systemd.listen(idle_instance.directory / "other.sock")
    process = systemd.start(pid="1", WATCHDOG_USEC="1000", WATCHDOG_PID="1")
    assert systemd.told()["READY"] == "1"
    with idle_instance.client() as client:
        assert client.call("daemon.status")["pid"] == process.pid
    assert systemd.stop() == 0
    assert systemd.told()["STOPPING"] == "1"  # and no watchdog before it


def test_a_supervisor_that_is_gone_is_no_reason_to_fail(systemd: Systemd, idle_instance: Instance):
    systemd.start(NOTIFY_SOCKET=str(idle_instance.directory / "nobody"))
    wait_until((idle_instance.directory / "agentd.sock").exists, "the socket")
    with idle_instance.client() as client:
        assert client.call("daemon.status", timeout_s=DEADLINE_S)["agents"]["live"] == 0


@pytest.mark.parametrize("wrong", ["elsewhere", "datagram", "two", "no socket"])
def test_a_socket_that_cannot_be_ours_is_refused_in_a_sentence(systemd: Systemd, idle_instance: Instance, wrong: str):
    kind = socket.SOCK_DGRAM if wrong == "datagram" else socket.SOCK_STREAM
    systemd.listen(idle_instance.directory / "other.sock" if wrong == "elsewhere" else None, kind)
    if wrong == "no socket":
        assert systemd.listener
        with open(os.devnull) as file:
            os.dup2(file.fileno(), systemd.listener.fileno())
    process = systemd.start(count="2" if wrong == "two" else "1")
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == EXIT_CANNOT_START, said
    assert said.count("\n") == 1
    assert said.startswith("agentd: invalid the supervisor")


def test_a_daemon_that_a_supervised_program_starts_beside_itself_takes_nothing_of_it(idle_instance: Instance):
    """`agentd up` from a unit: the socket and the notifications are that unit's."""
    given = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "NOTIFY_SOCKET": str(idle_instance.directory / "n")}
    done = idle_instance.cli("up", "--json", **given)
    pid = json.loads(done.stdout)["pid"]
    environ = proc(pid, "environ")
    assert not any(name.encode() in environ for name in VARIABLES)
