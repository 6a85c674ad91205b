"""One daemon for an instance, and its socket."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys

import pytest

from agentd.doors.listening import AlreadyRunning, InstanceLock, bind, unbind
from agentd.errors import InvalidValue
from agentd.paths import Paths

STARTER = """
import sys
from agentd.doors.listening import AlreadyRunning, InstanceLock
from agentd.paths import Paths
try:
    with InstanceLock(Paths(sys.argv[1], sys.argv[2], sys.argv[1])):
        print("alive", flush=True)
        sys.stdin.read()
except AlreadyRunning as error:
    print("refused", error.pid, flush=True)
"""


@pytest.fixture
def paths(tmp_path) -> Paths:
    return Paths(str(tmp_path / "state"), str(tmp_path / "run"), str(tmp_path / "config"))


def starter(state: str, runtime: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-c", STARTER, state, runtime]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def end(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.communicate("", timeout=20)


def test_of_twenty_parallel_starts_one_lives(paths):
    processes = [starter(paths.state_dir, paths.runtime_dir) for _ in range(20)]
    try:
        said = [process.stdout.readline().split()[0] for process in processes]
        assert sorted(said) == ["alive"] + ["refused"] * 19
    finally:
        end(processes)


def test_another_runtime_dir_with_the_same_state_is_refused_too(paths, tmp_path):
    with InstanceLock(paths), pytest.raises(AlreadyRunning) as caught:
        InstanceLock(Paths(paths.state_dir, str(tmp_path / "run2"), paths.config_dir)).acquire()
    assert caught.value.pid == os.getpid()
    assert str(os.getpid()) in caught.value.message
    assert caught.value.code == "exists"


def test_a_refused_start_keeps_no_lock(paths, tmp_path):
    elsewhere = Paths(str(tmp_path / "other"), paths.runtime_dir, paths.config_dir)
    with InstanceLock(paths), pytest.raises(AlreadyRunning):
        InstanceLock(elsewhere).acquire()
    with InstanceLock(elsewhere):
        pass


def test_a_killed_holder_leaves_nothing_behind(paths):
    process = starter(paths.state_dir, paths.runtime_dir)
    assert process.stdout.readline() == "alive\n"
    process.kill()
    end([process])
    with InstanceLock(paths):
        pass


def test_children_do_not_inherit_the_lock(paths):
    lock = InstanceLock(paths)
    lock.acquire()
    argv = [sys.executable, "-IS", "-c", "print(flush=True); input()"]
    child = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=False)
    try:
        child.stdout.readline()  # its exec is over: only then are descriptors closed
        lock.release()
        with InstanceLock(paths):  # the child lives
            assert child.poll() is None
    finally:
        child.communicate(b"\n")


@pytest.mark.parametrize("spoil", ["mode", "symlink", "file", "lock symlink"])
def test_a_runtime_dir_that_is_not_ours_alone_is_refused(paths, tmp_path, spoil):
    run = tmp_path / "run"
    if spoil == "mode":
        run.mkdir(mode=0o755)
    elif spoil == "symlink":
        (tmp_path / "real").mkdir(mode=0o700)
        run.symlink_to(tmp_path / "real")
    elif spoil == "file":
        run.write_text("")
    else:
        run.mkdir(mode=0o700)
        (tmp_path / "victim").write_text("keep me")
        (run / "run.lock").symlink_to(tmp_path / "victim")
    with pytest.raises(InvalidValue):
        InstanceLock(paths).acquire()
    assert not (tmp_path / "victim").exists() or (tmp_path / "victim").read_text() == "keep me"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make a directory somebody else's")
def test_a_runtime_dir_of_somebody_else_is_refused(paths, tmp_path):
    (tmp_path / "run").mkdir(mode=0o700)
    os.chown(tmp_path / "run", 65534, 65534)
    with pytest.raises(InvalidValue, match="belongs to uid 65534"):
        InstanceLock(paths).acquire()


def test_a_socket_is_private_and_accepts(tmp_path):
    path = str(tmp_path / "agentd.sock")
    with bind(path) as listener, socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        client.connect(path)
        listener.accept()[0].close()
    assert os.listdir(tmp_path) == ["agentd.sock"]
    unbind(path)
    unbind(path)
    assert os.listdir(tmp_path) == []


def test_a_stale_socket_is_replaced(tmp_path):
    path = str(tmp_path / "agentd.sock")
    bind(path).close()
    with bind(path):
        pass


def test_a_served_socket_is_left_to_its_owner(tmp_path):
    path = str(tmp_path / "agentd.sock")
    with bind(path), pytest.raises(AlreadyRunning, match="answers at"):
        bind(path)
    assert os.path.exists(path)


@pytest.mark.parametrize("kind", ["file", "symlink", "directory"])
def test_what_is_no_socket_is_not_deleted(tmp_path, kind):
    path = tmp_path / "agentd.sock"
    if kind == "file":
        path.write_text("precious")
    elif kind == "symlink":
        path.symlink_to(tmp_path / "elsewhere")
    else:
        path.mkdir()
    with pytest.raises(InvalidValue, match="is not a socket"):
        bind(str(path))
    assert os.path.lexists(path)
    assert kind != "file" or path.read_text() == "precious"


def test_a_path_that_is_too_long_says_so(tmp_path):
    with pytest.raises(InvalidValue, match="the system allows"):
        bind(str(tmp_path / ("x" * 120)))


def test_a_directory_that_is_missing_says_so(tmp_path):
    with pytest.raises(InvalidValue, match="cannot listen at"):
        bind(str(tmp_path / "no" / "agentd.sock"))
