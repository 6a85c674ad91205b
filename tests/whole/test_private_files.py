"""What agentd keeps is its user's alone: directories, sockets, files, links, and a log that nobody can forge."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults import form
from instance import Instance, alive, instance, wait_until

from agentd.daemon import EXIT_ALREADY_RUNNING, EXIT_CANNOT_START
from agentd.errors import EXIT_USAGE
from agentd.paths import SOCKET_PATH_MAX_BYTES

NOBODY = 65_534


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance whose daemon runs."""
    with instance() as one:
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents."""
    yield shared
    shared.tidy()


def refused(whole: Instance, *why: str, everywhere: bool = form(False, True)) -> None:
    """`up` says one sentence and the exit code of the contract."""
    done = whole.cli("up", check=False)
    assert done.returncode == EXIT_USAGE, (done.returncode, done.stderr)
    one_sentence(done.stderr, *why)
    if everywhere:
        refused_everywhere(whole, *why)


def refused_everywhere(whole: Instance, *why: str) -> None:
    """`up --json` says what it is, and `up --foreground` the same sentence, with the supervisor's exit code."""
    told = json.loads(whole.cli("up", "--json", check=False).stdout)
    assert told["error"]["code"] == "invalid"
    foreground = whole.cli("up", "--foreground", check=False)
    assert foreground.returncode == EXIT_CANNOT_START
    one_sentence(foreground.stderr, *why)


def one_sentence(text: str, *parts: str) -> None:
    assert text.startswith("agentd: ")
    assert text.count("\n") == 1
    for part in parts:
        assert part in text


def loose(directory: Path) -> list[str]:
    """Return everything below a directory that others may touch."""
    found = [directory, *directory.rglob("*")]
    return [
        f"{path} {path.lstat().st_mode:o}" for path in found if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]


# -- R04, R08: the directory


def test_a_directory_that_is_a_link_is_refused(idle_instance: Instance, tmp_path: Path):
    real = tmp_path / "real"
    real.mkdir(mode=0o700)
    link = idle_instance.directory / "link"
    link.symlink_to(real)
    idle_instance.environ["AGENTD_DIR"] = str(link)
    refused(idle_instance, f"{link} is not a directory (a symlink is not accepted)")
    assert list(real.iterdir()) == []


def test_a_file_in_the_directorys_place_is_refused_and_kept(idle_instance: Instance):
    path = idle_instance.directory / "file"
    path.write_text("mine")
    idle_instance.environ["AGENTD_DIR"] = str(path)
    refused(idle_instance, f"{path} is not a directory", everywhere=True)
    assert path.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_enter_is_refused(idle_instance: Instance, mode: int):
    path = idle_instance.directory / "open"
    path.mkdir()
    path.chmod(mode)
    idle_instance.environ["AGENTD_DIR"] = str(path)
    refused(idle_instance, f"{path} has mode {mode:04o}", "must be 0700")
    assert list(path.iterdir()) == []


def test_a_directory_in_a_place_where_all_may_write_is_refused(idle_instance: Instance):
    place = idle_instance.directory / "place"
    place.mkdir()
    place.chmod(0o777)
    idle_instance.environ["AGENTD_DIR"] = str(place / "d")
    refused(idle_instance, "no sticky bit")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(idle_instance: Instance):
    path = idle_instance.directory / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)
    idle_instance.environ["AGENTD_DIR"] = str(path)
    refused(idle_instance, f"{path} belongs to uid {NOBODY}")


def test_the_same_holds_for_a_runtime_directory_apart(idle_instance: Instance):
    """XDG: state and socket lie in different places, and each is looked at."""
    root = idle_instance.directory
    run = root / "run"
    run.mkdir(mode=0o700)
    (run / "agentd").mkdir()
    (run / "agentd").chmod(0o755)
    environ = idle_instance.environ
    del environ["AGENTD_DIR"]
    environ.update(XDG_RUNTIME_DIR=str(run), XDG_STATE_HOME=str(root / "state"), XDG_CONFIG_HOME=str(root / "config"))
    refused(idle_instance, f"{run / 'agentd'} has mode 0755")


def test_a_path_too_long_for_a_socket_is_one_sentence(idle_instance: Instance):
    long = idle_instance.directory / ("d" * 120)
    idle_instance.environ["AGENTD_DIR"] = str(long)
    refused(idle_instance, f"the system allows {SOCKET_PATH_MAX_BYTES}")
    for words in (["ls"], ["send", "a", "b"], ["down"]):
        done = idle_instance.cli(*words, check=False)
        assert done.returncode == EXIT_USAGE
        one_sentence(done.stderr, f"the system allows {SOCKET_PATH_MAX_BYTES}")
    if long.exists():
        assert not [path for path in long.iterdir() if path.suffix == ".sock"]


# -- R05: the socket


def test_the_socket_of_a_killed_daemon_is_replaced(whole: Instance):
    whole.kill()
    assert (whole.directory / "agentd.sock").is_socket()
    whole.up()
    assert whole.json("status")["agents"]["live"] == 0


@pytest.mark.parametrize("name", ["agentd.sock", "tmux-0.sock", "tmux-7.sock"])
def test_a_file_at_the_sockets_path_is_refused_and_kept(idle_instance: Instance, name: str):
    path = idle_instance.directory / name
    path.write_text("mine")
    refused(
        idle_instance,
        f"{path} is there and is not a socket; it was left alone",
        everywhere=form(name == "agentd.sock", True),
    )
    assert path.read_text() == "mine"
    wait_until(lambda: not idle_instance.processes(), "what was started to end")


def test_a_second_daemon_is_refused(whole: Instance):
    before = whole.pid()
    assert whole.cli("up").stdout == f"already running (pid {before})\n"
    done = whole.cli("up", "--foreground", check=False)
    assert done.returncode == EXIT_ALREADY_RUNNING
    one_sentence(done.stderr, str(before))
    assert whole.pid() == before


# -- R01: another user

KNOCK = """
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
peer = socket.socket(socket.AF_UNIX)
try:
    peer.connect(sys.argv[1])
except PermissionError:
    sys.exit("EACCES")
peer.settimeout(10)
said = b""
while chunk := peer.recv(4096):
    said += chunk
print(said)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_turned_away_by_the_mode_and_by_the_daemon(whole: Instance):
    path = whole.directory / "agentd.sock"
    argv = [sys.executable, "-c", KNOCK, str(path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr.strip() == "EACCES"
    whole.directory.chmod(0o711)
    path.chmod(0o666)
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    finally:
        path.chmod(0o600)
        whole.directory.chmod(0o700)
    assert "denied" in done.stdout, done
    assert f"you are uid {NOBODY}" in done.stdout
    assert str(NOBODY) in (whole.directory / "agentd.log").read_text(), "refusals are written down"
    audit = [json.loads(line) for line in (whole.directory / "access.jsonl").read_text().splitlines()]
    assert ("closed", "denied", NOBODY) in [(line["what"], line.get("code"), line["uid"]) for line in audit]


# -- S03: modes


def test_nothing_is_open_to_others_whatever_the_umask(idle_instance: Instance):
    old = os.umask(0)
    try:
        root = idle_instance.directory / "fresh"
        idle_instance.environ["AGENTD_DIR"] = str(root)
        idle_instance.cli("up")
        idle_instance.spawn(name="d")
        idle_instance.spawn("sh", name="s")
        made = idle_instance.directory / "home" / "made"  # an agent's file, which is not ours: its user's umask holds
        idle_instance.cli("send", "d", "hello", "--wait", "reply", "--timeout", "20")
        with idle_instance.client() as client:
            client.send("s", f"umask > {made}")
        wait_until(lambda: made.exists() and made.read_text(), "the agent to write")
        idle_instance.cli("stop", "d")
    finally:
        os.umask(old)
    found = loose(root)
    idle_instance.cli("down", "--agents", "stop")
    assert found == []
    assert made.read_text().strip() == "0000"


# -- S02: links

LINKED = ["registry.db", "agentd.log", "agentd.out", "state.lock", "run.lock", "instance", "tmux-0.conf"]


@pytest.mark.parametrize("name", LINKED)
def test_a_link_in_the_place_of_our_file_is_refused(idle_instance: Instance, tmp_path: Path, name: str):
    target = tmp_path / "target"
    target.write_text("mine")
    (idle_instance.directory / name).symlink_to(target)
    done = idle_instance.cli("up", check=False)
    if name == "tmux-0.conf" and done.returncode == 0:  # replaced in one step, never written through
        assert not (idle_instance.directory / name).is_symlink()
    else:
        assert done.returncode == EXIT_USAGE, (done.returncode, done.stderr)
        one_sentence(done.stderr, name, "it is a symlink")
    assert target.read_text() == "mine"
    assert stat.S_IMODE(target.stat().st_mode) & 0o044


def test_a_link_in_the_place_of_a_shard_is_refused(whole: Instance, tmp_path: Path):
    whole.cli("down")
    shard = next(path for path in sorted((whole.directory / "mailbox").iterdir()) if path.suffix == ".db")
    target = tmp_path / "shard.db"
    shard.rename(target)
    shard.symlink_to(target)
    before = target.read_bytes()
    done = whole.cli("up", check=False)
    after = target.read_bytes()
    shard.unlink()
    target.rename(shard)
    whole.up()
    assert done.returncode == EXIT_USAGE, done.stderr
    one_sentence(done.stderr, shard.name, "it is a symlink")
    assert after == before


@pytest.mark.parametrize("what", ["agents", "token"])
def test_a_link_in_the_place_of_a_token_is_refused(whole: Instance, tmp_path: Path, what: str):
    target = tmp_path / "target"
    if what == "agents":
        target.mkdir(mode=0o755)
        agents, away = whole.directory / "agents", whole.directory / "away"
        agents.mkdir(exist_ok=True, mode=0o700)
        agents.rename(away)
        agents.symlink_to(target)
        done = whole.cli("spawn", "demo", check=False)
        agents.unlink()
        away.rename(agents)
        left = list(target.iterdir())
    else:
        target.write_text("mine")
        agent = whole.spawn(name="a")
        whole.cli("stop", "a")
        token = whole.directory / "agents" / agent["id"] / "token"
        token.unlink()
        token.symlink_to(target)
        done = whole.cli("respawn", "a", check=False)
        left = [] if target.read_text() == "mine" else ["written"]
    assert done.returncode == EXIT_USAGE, (done.returncode, done.stderr)
    one_sentence(done.stderr)
    assert left == []
    assert whole.json("status")["agents"]["live"] == 0


# -- S09: the log

FORGED = '\n{"level": "error", "event": "forged"}\n'


def test_no_text_forges_a_line_of_the_log(whole: Instance):
    with whole.client() as client:
        agent = whole.spawn(name="a")
        client.call("messages.send", {"to": "a", "body": FORGED, "key": FORGED, "headers": {FORGED: FORGED}})
        for method, params in {
            "agents.get": {"target": FORGED},
            FORGED: {},
            "agents.spawn": {"profile": FORGED},
            "agents.keys": {"target": "a", "keys": [FORGED[:30]]},
            "messages.nack": {"ids": ["m0"], "detail": FORGED},
            "teams.up": {"team": {"name": FORGED}, "agents": [{}], "cwd": FORGED},
        }.items():
            with pytest.raises(Exception):  # noqa: B017  whatever it is called, it is refused
                client.call(method, params, raise_failed=True) if method == "messages.nack" else client.call(
                    method, params
                )
        client.call("agents.spawn", {"profile": "demo", "name": "b", "env": {"X": FORGED}, "prompt": FORGED})
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(str(whole.directory / "agentd.sock"))
    peer.sendall(FORGED.encode() * 100)
    peer.close()
    os.kill(agent["pid"], 9)
    wait_until(lambda: not alive(agent["pid"]), "the agent to end")
    whole.cli("down", "--agents", "stop")
    lines = (whole.directory / "agentd.log").read_text().split("\n")
    assert lines.pop() == ""
    rows = [json.loads(line) for line in lines]
    assert rows
    assert all({"event", "level", "timestamp"} <= row.keys() for row in rows)
    assert "forged" not in {row["event"] for row in rows}


@pytest.fixture(autouse=True)
def _no_instance_left(idle_instance: Instance) -> Iterator[None]:
    """Let the harness end the daemon of the directory that it made."""
    before = idle_instance.environ["AGENTD_DIR"]
    yield
    idle_instance.environ["AGENTD_DIR"] = before
