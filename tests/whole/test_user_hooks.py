"""The user's own commands: they run when something happens, and whatever they do holds nobody up."""

from __future__ import annotations

import json
import os
import pty
import select
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import form
from instance import Instance, alive, instance, proc, wait_until

from agentd.errors import EXIT_FAILED, EXIT_USAGE


def configure(whole: Instance, **hooks: Any) -> None:
    """Write the configuration and start the daemon, with a secret in its environment."""
    lines = "".join(f"{name} = {json.dumps(value)}\n" for name, value in hooks.items())
    (whole.directory / "config.toml").write_text(f"[hooks]\n{lines}")
    whole.environ |= {"A_SECRET": "hunter2", "OPENAI_API_KEY": "hunter3"}
    whole.up()


def kept(path: Path) -> list[dict[str, Any]]:
    """Return the lines of JSON that a hook's `cat` kept."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def stats(whole: Instance) -> dict[str, int]:
    with whole.client() as client:
        return dict(client.call("daemon.status")["hooks"])


def failure(whole: Instance, hook: str = "on_state") -> dict[str, Any]:
    """Return what is told first of a hook's failures."""

    def told() -> dict[str, Any] | None:
        return next((row for row in whole.events("hook.failed") if row["hook"] == hook), None)

    return dict(wait_until(told, f"the failure of {hook} to be told"))


class Scripted:
    """An instance whose hooks run what a test writes down."""

    def __init__(self, whole: Instance) -> None:
        self.whole = whole
        self.write()
        run = ["sh", "-c", '. "$1"', "sh"]
        configure(
            whole,
            on_state=[*run, str(whole.directory / "on_state")],
            states=["idle", "stopped", "waiting"],
            on_message=[*run, str(whole.directory / "on_message")],
            messages="acked,expired",
            timeout_s=60,
        )

    def write(self, on_state: str = ":", on_message: str = ":") -> None:
        for name, script in (("on_state", on_state), ("on_message", on_message)):
            new = self.whole.directory / f"{name}.new"
            new.write_text(script + "\n")
            new.rename(self.whole.directory / name)


@pytest.fixture(scope="module")
def shared() -> Iterator[Scripted]:
    """Give an instance whose hooks do nothing yet, and whose daemon runs."""
    with instance() as one:
        yield Scripted(one)


@pytest.fixture
def scripted(shared: Scripted) -> Iterator[Scripted]:
    """Give the shared instance without agents."""
    yield shared
    shared.write()
    shared.whole.tidy()


def test_a_change_of_state_runs_the_command_with_the_event_and_notify_send_with_plain_text(idle_instance: Instance):
    out = idle_instance.directory / "out"
    words = notify_send(idle_instance)
    on_state = f"cat >> {out}; env > {out}.env; umask > {out}.umask; pwd > {out}.pwd"
    configure(idle_instance, on_state=on_state, notify="notify-send")
    idle_instance.spawn(name="a", env={"AGENTD_DEMO_MODE": "asks-permission"})
    idle_instance.cli("send", "a", "<b>make\x1b[2J</b> & go")
    wait_until(lambda: stats(idle_instance)["done"] == 2, "both to end")
    [row] = kept(out)  # idle and working are not asked for
    assert row["type"] == "agent.state"
    wanted = {"name": "a", "state": "waiting", "waits_for": "permission", "asks": "<b>make\ufffd[2J</b> & go"}
    assert wanted.items() <= row["data"].items()
    assert row["data"]["prompt"] == idle_instance.json("ls", "a")[0]["prompt"]
    assert abs(time.time() - row["at"]) < 60
    environ = Path(f"{out}.env").read_text()
    assert "AGENTD_EVENT=agent.state" in environ.splitlines()
    assert f"AGENTD_SOCKET={idle_instance.directory}/agentd.sock" in environ.splitlines()
    assert "hunter" not in environ
    assert Path(f"{out}.umask").read_text().strip() == f"{_umask():04o}"
    assert Path(f"{out}.pwd").read_text().strip() == idle_instance.environ["HOME"]
    assert words.read_text().splitlines() == [
        "--app-name=agentd",
        "--",
        "a is waiting for permission",
        "&lt;b&gt;make\ufffd[2J&lt;/b&gt; &amp; go",
    ]


def notify_send(whole: Instance) -> Path:
    """Give an instance a program of that name; return the file it writes its words into, one on each line."""
    words, place = whole.directory / "words", whole.directory / "bin"
    place.mkdir()
    (place / "notify-send").write_text(f'#!/bin/sh\nfor word in "$@"; do printf "%s\\n" "$word" >> {words}; done\n')
    (place / "notify-send").chmod(0o700)
    whole.environ["PATH"] = f"{place}:{whole.environ['PATH']}"
    return words


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_only_the_states_that_are_named(scripted: Scripted, tmp_path: Path):
    out = tmp_path / "out"
    scripted.write(f"cat >> {out}")
    scripted.whole.spawn(name="a")
    scripted.whole.cli("stop", "a", "--force")
    wait_until(lambda: [row["data"]["state"] for row in kept(out)] == ["idle", "stopped"], "both")


def test_a_change_of_messages_runs_the_command(scripted: Scripted, tmp_path: Path):
    out = tmp_path / "out"
    scripted.write(on_message=f"cat >> {out}")
    scripted.whole.spawn(name="a")
    with scripted.whole.client() as client:
        id_ = client.send("a", "hello").id
    row = wait_until(lambda: kept(out), "the command to run")[0]
    assert (row["type"], row["data"]["ids"], row["data"]["to_name"]) == ("message.acked", [id_], "a")


def test_a_hook_may_answer_for_the_user(scripted: Scripted, tmp_path: Path):
    """It is the operator's own program, so `agentd` in it is the operator."""
    log = tmp_path / "log"
    scripted.write(f"PYTHONPATH={os.environ.get('PYTHONPATH', '')} {sys.executable} -m agentd approve all")
    scripted.whole.spawn(name="a", env={"AGENTD_DEMO_MODE": "asks-permission", "AGENTD_DEMO_LOG": str(log)})
    with scripted.whole.client() as client:
        client.send("a", "make")
    wait_until(lambda: log.exists() and "make" in log.read_text(), "it to be approved")


# -- commands that misbehave


FAILING = {  # what each kind of hook is set to, and why it fails
    "status": {
        "on_state": ("echo why >&2; exit 3", "it exited with status 3"),
        "on_message": (["/nowhere/program"], "/nowhere/program cannot be run: No such file or directory"),
        "notify": ("notify-send", "notify-send cannot be run: No such file or directory"),
    },
    "signal": {
        "on_state": ("kill -SEGV $$", "it was killed by SIGSEGV"),
        "on_message": (["/etc/passwd"], "/etc/passwd cannot be run: Permission denied"),
        "notify": ("osc9", "nobody is attached, so there is no terminal to tell"),
    },
}


@pytest.mark.parametrize("hooks", FAILING.values(), ids=FAILING)
def test_one_that_fails_is_told(idle_instance: Instance, hooks: dict[str, tuple[Any, str]]):
    path_of(idle_instance, "tmux", "sh", "cat")
    settings = {name: value for name, (value, _) in hooks.items()}
    configure(idle_instance, **settings, states="idle", messages="accepted")
    idle_instance.spawn(name="a")
    idle_instance.cli("send", "a", "hello", "--wait", "acked", "--timeout", "20")
    for name, (value, reason) in hooks.items():
        failed = failure(idle_instance, name)
        assert failed["reason"] == reason
        if "why" in value:
            assert failed["output"] == "why"
        assert reason in (idle_instance.directory / "agentd.log").read_text()
    assert alive(idle_instance.pid())


def test_one_that_is_not_there_is_told_and_one_that_hangs_is_killed_with_its_children(idle_instance: Instance):
    pids = idle_instance.directory / "pids"
    hang = (
        f"sleep 1000 & echo $! >> {pids}; echo $$ >> {pids}; trap '' TERM HUP; cat > /dev/null; sleep 1000; sleep 1000"
    )
    configure(
        idle_instance,
        on_state=hang,
        states="idle",
        on_message="/nowhere/program",
        messages="accepted",
        timeout_s=2,
    )
    idle_instance.spawn(name="a")
    with idle_instance.client() as client:
        client.send("a", "hello")
    assert failure(idle_instance, "on_message")["reason"] == "it exited with status 127"
    assert failure(idle_instance)["reason"] == "it was killed after 2 s"
    for pid in pids.read_text().split():
        wait_until(lambda pid=int(pid): not alive(pid), "it to be gone")


def path_of(whole: Instance, *programs: str) -> None:
    """Leave nothing on the path of an instance but these programs."""
    place = whole.directory / "bin"
    place.mkdir()
    for name in programs:
        (place / name).symlink_to(next(p for d in os.environ["PATH"].split(":") if (p := Path(d) / name).exists()))
    whole.environ["PATH"] = str(place)


def test_what_one_prints_is_kept_in_part_and_can_harm_nobody(scripted: Scripted):
    """Megabytes are read and forgotten; escape sequences are replaced; a line of it cannot forge one of the log."""
    scripted.write(r"printf '\033]0;x\007first\n{\"event\": \"forged\"}\n'; head -c 20000000 /dev/zero | tr '\\0' y")
    scripted.whole.spawn(name="a")
    log = scripted.whole.directory / "agentd.log"

    def told() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        return [line for line in lines if "\ufffdfirst" in str(line.get("output"))]

    (line,) = wait_until(told, "its end")
    assert line["event"] == "hook"
    assert line["output"].startswith("\ufffd]0;x\ufffdfirst\n{")
    assert len(line["output"]) <= 4096


def test_one_that_leaves_a_child_with_its_output_is_done_when_it_ends(scripted: Scripted, tmp_path: Path):
    pid = tmp_path / "pid"
    scripted.write(f"sleep 1000 & echo $! > {pid}.new; mv {pid}.new {pid}; exit 0")
    scripted.whole.spawn(name="a")
    wait_until(pid.exists, "it to run")
    wait_until(lambda: stats(scripted.whole)["running"] == 0, "it to be done", 20)
    assert alive(int(pid.read_text()))
    os.kill(int(pid.read_text()), 9)


def test_a_flood_is_dropped_with_a_count_and_nobody_waits(idle_instance: Instance):
    """Two slow ones at once and three that wait: of forty events the rest is dropped, and deliveries do not notice."""
    go = idle_instance.directory / "go"
    slow = f"echo x >> {go}.ran; while ! test -e {go}; do sleep 0.05; done"
    configure(idle_instance, on_message=slow, messages="accepted", at_once=2, queue=3, timeout_s=100)
    idle_instance.spawn(name="a")
    with idle_instance.client() as client:
        for number in range(40):
            client.call("messages.send", to="a", body=f"{number}")
        wait_until(
            lambda: client.call("messages.inbox", target="a", all=True)["messages"][-1]["state"] == "acked",
            "all to be dealt with meanwhile",
        )
        found = client.call("daemon.status")["hooks"]
    assert (found["running"], found["queued"]) == (2, 3)
    accepted = len(idle_instance.events("message.accepted"))
    assert accepted >= 40
    assert found["dropped"] == accepted - 5
    dropped = idle_instance.events("hook.dropped")
    assert 1 <= len(dropped) <= 3  # told now and then, with a count
    assert dropped[0]["queue"] == 3
    go.touch()
    wait_until(lambda: stats(idle_instance)["done"] == 5, "those that had a place to run")
    assert Path(f"{go}.ran").read_text() == "x\n" * 5


def test_failures_are_told_now_and_then_only_and_those_that_run_end_with_the_daemon(idle_instance: Instance):
    pid = idle_instance.directory / "pid"
    configure(
        idle_instance,
        on_message="exit 1",
        messages="accepted",
        queue=1000,
        on_state=f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 1000; true",
        states="idle",
        timeout_s=200,
    )
    idle_instance.spawn("sh", name="a")
    wait_until(pid.exists, "it to run")
    with idle_instance.client() as client:
        for _ in range(12):
            client.call("messages.send", to="a", body="true")
    wait_until(lambda: stats(idle_instance)["failed"] >= 12, "all to fail")
    told = idle_instance.events("hook.failed")
    assert 1 <= len(told) <= 4
    assert all(row["hook"] == "on_message" for row in told)
    idle_instance.cli("down")
    wait_until(lambda: not alive(int(pid.read_text())), "it to be gone")


def test_without_hooks_nothing_runs(running: Instance):
    running.spawn(name="a")
    assert stats(running) == {"done": 0, "failed": 0, "dropped": 0, "running": 0, "queued": 0}
    assert running.cli("notify", "test").stdout == "no hook is set; see [hooks] in `agentd config show`\n"


# -- notifications


def test_osc_9_reaches_the_terminals_that_are_attached(idle_instance: Instance):
    configure(idle_instance, notify="osc9")
    agent = idle_instance.spawn(name="a", env={"AGENTD_DEMO_MODE": "asks-permission"})
    pid, terminal = pty.fork()
    if pid == 0:
        environ = {**idle_instance.environ, "TERM": "xterm-256color"}
        os.execvpe("tmux", ["tmux", "-S", agent["socket"], "attach-session", "-t", agent["session"]], environ)
    try:
        read_until(terminal, b"demo>")
        idle_instance.cli("send", "a", "make\x07\x1b[2J it")
        seen = read_until(terminal, b"\x1b]9;")
        seen += read_until(terminal, b"\x07") if b"\x07" not in seen.partition(b"\x1b]9;")[2] else b""
        told = seen.partition(b"\x1b]9;")[2].partition(b"\x07")[0]
        assert told.decode() == "a is waiting for permission: make\ufffd\ufffd[2J it"
    finally:
        idle_instance.cli("stop", "a", "--force")
        os.close(terminal)
        os.waitpid(pid, 0)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """Return what a terminal shows up to the wanted bytes."""
    seen = b""
    deadline = time.monotonic() + 20
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        if select.select([terminal], [], [], 0.1)[0]:
            seen += os.read(terminal, 65_536)
    return seen


# -- trying them


def test_each_hook_can_be_tried(scripted: Scripted, tmp_path: Path):
    out = tmp_path / "out"
    scripted.write(f"cat >> {out}; echo fine", "exit 4")
    ran = scripted.whole.cli("notify", "test", "--json", check=False)
    assert ran.returncode == EXIT_FAILED
    state, message = json.loads(ran.stdout)
    assert (state["hook"], state["error"], state["output"]) == ("on_state", None, "fine")
    assert (message["hook"], message["error"]) == ("on_message", "it exited with status 4")
    assert kept(out)[0]["data"]["example"] is True
    shown = scripted.whole.cli("notify", "test", check=False).stdout
    assert "well" in shown
    assert "it exited with status 4" in shown


BAD_SETTINGS = [
    ("on_state = 7", "hooks.on_state is 7; it must be a text or a list of texts"),
    ("states = ['ill']", "it must be some of starting, idle, working, waiting, stopped, failed"),
    ("notify = 'loud'", "it must be one of none, notify-send, osc9"),
    ("on_stat = 'x'", "no setting `hooks.on_stat`"),
]


@pytest.mark.parametrize(("line", "words"), form(BAD_SETTINGS[:2], BAD_SETTINGS))
def test_a_bad_setting_is_one_line(idle_instance: Instance, line: str, words: str):
    (idle_instance.directory / "config.toml").write_text(f"[hooks]\n{line}\n")
    ran = idle_instance.cli("up", check=False)
    assert ran.returncode == EXIT_USAGE
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_no_descriptor_of_the_daemon_reaches_a_command(scripted: Scripted, tmp_path: Path):
    out = tmp_path / "fds"
    scripted.write(f"ls -l /proc/$$/fd > {out}.new; mv {out}.new {out}")
    scripted.whole.spawn(name="a")
    wait_until(out.exists, "it to run")
    listed = out.read_text()
    assert "socket:" not in listed
    assert str(scripted.whole.directory / "mailbox") not in listed
    assert proc(scripted.whole.pid(), "cmdline")
