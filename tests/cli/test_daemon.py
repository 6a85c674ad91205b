"""Starting and stopping the daemon; a small program plays the daemon's side of the pipe."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import textwrap
import threading

import pytest

from agentd.cli import launching
from agentd.errors import DeadlineExceeded, InvalidValue, NotFound, Unavailable

PLAYER = """\
#!{python}
import json, os, sys
with open({seen!r}, "w") as file:
    json.dump([sys.argv[1:], dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid()], file)
{plays}
"""


@pytest.fixture
def plays(tmp_path, monkeypatch, directory):
    """Give a function that says what the program does instead of being the daemon."""

    def play(body: str):
        program = tmp_path / "player"
        values = {"python": sys.executable, "seen": str(tmp_path / "seen"), "plays": textwrap.dedent(body)}
        program.write_text(PLAYER.format(**values))
        program.chmod(0o700)
        monkeypatch.setattr(launching.sys, "executable", str(program))

    yield play
    monkeypatch.undo()


def say(line: str) -> str:
    return f"os.write(int(os.environ['AGENTD_READY_FD']), {line.encode()!r})"


def test_ready(plays, tmp_path, monkeypatch, directory):
    for name in ("TMUX", "TMUX_PANE", "AGENTD_SOCKET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("AGENTD_TMUX__WIDTH", "120")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AGENTD_DIR", os.path.relpath(directory))
    plays(say("ready\n"))
    pid = launching.launch(["agents.max=5"])
    argv, environ, cwd, own_session = json.loads((tmp_path / "seen").read_text())
    assert pid
    assert argv == ["-m", "agentd", "up", "--foreground", "--set", "agents.max=5"]
    assert not {"TMUX", "TMUX_PANE", "AGENTD_SOCKET", "AGENTD_TOKEN_FILE"} & environ.keys()
    assert (environ["AGENTD_DIR"], environ["AGENTD_TMUX__WIDTH"], cwd, own_session) == (
        str(directory),
        "120",
        "/",
        True,
    )
    assert (directory / "agentd.out").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700
    os.waitpid(pid, 0)


def test_an_error_is_passed_on_with_its_code(plays):
    plays(say("error invalid tmux.width is 0; it must be from 20 to 1000\n"))
    with pytest.raises(InvalidValue) as caught:
        launching.launch([])
    assert (caught.value.message, caught.value.hint) == ("tmux.width is 0", "it must be from 20 to 1000")


def test_another_one_runs(plays):
    plays(say("error exists an agentd with pid 7 holds the lock; use it\n"))
    assert launching.launch([]) is None


def test_death_without_a_word_shows_the_last_lines(plays, directory):
    directory.mkdir(mode=0o700)
    (directory / "agentd.out").write_text("from an earlier life\n")
    (directory / "agentd.out").chmod(0o600)
    plays("print('first'); print('last words', file=sys.stderr, flush=True); sys.exit(3)")
    with pytest.raises(Unavailable, match="last words") as caught:
        launching.launch([])
    assert "earlier" not in caught.value.message
    assert str(directory / "agentd.out") in str(caught.value.hint)


def test_a_daemon_that_is_not_ready_in_time(plays, monkeypatch):
    monkeypatch.setattr(launching, "START_TIMEOUT_S", 0.05)
    plays("sys.stdin.read(); import signal; signal.alarm(5); signal.pause()")
    with pytest.raises(DeadlineExceeded, match="not ready"):
        launching.launch([])


def test_up_and_restart_are_refused_inside_a_pane(agentd, tmp_path, monkeypatch):
    (tmp_path / "token").write_text("t")
    monkeypatch.setenv("AGENTD_TOKEN_FILE", str(tmp_path / "token"))
    for command in ("up", "restart"):
        assert agentd(command).code == 7


def test_up_when_it_runs_already(agentd, served):
    served.answers.daemon_status = lambda _: {"pid": 7, "overrides": []}
    ran = agentd("up")
    assert (ran.code, ran.out) == (0, "already running (pid 7)\n")
    assert "agentd restart --set" in agentd("up", "--set", "agents.max=5").out
    assert json.loads(agentd("up", "--json").out) == {"pid": 7, "started": False}


def test_up_while_one_that_was_killed_still_takes_connections(agentd, plays, directory):
    directory.mkdir(mode=0o700)
    plays(say("ready\n"))
    with socket.socket(socket.AF_UNIX) as dying:
        dying.bind(str(directory / "agentd.sock"))
        dying.listen(4)

        def hang_up() -> None:
            while True:
                try:
                    dying.accept()[0].close()
                except OSError:
                    return

        ends = threading.Thread(target=hang_up)
        ends.start()
        ran = agentd("up", "--json")
        dying.shutdown(socket.SHUT_RDWR)
        ends.join()
    assert json.loads(ran.out)["started"], ran.err
    os.waitpid(json.loads(ran.out)["pid"], 0)


@pytest.mark.parametrize("agents", ["keep", "stop"])
def test_down_waits_until_the_process_is_gone(agents, agentd, served):
    def shutdown(params):
        asked.append(params.agents)
        process.terminate()
        return {"pid": process.pid, "agents": params.agents}

    asked: list[str] = []
    process = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    served.answers.daemon_status = lambda _: {"pid": process.pid, "overrides": [], "agents": {"live": 3}}
    served.answers.daemon_shutdown = shutdown
    ran = agentd("down", "--agents", agents)
    assert (ran.code, asked) == (0, [agents])
    assert ran.out.startswith(f"stopped (pid {process.pid})")
    assert ("3 agents stay alive" in ran.out) == (agents == "keep")
    assert process.wait() == -15


def test_down_without_a_daemon(agentd):
    assert agentd("down").out == "not running\n"
    assert json.loads(agentd("down", "--agents", "stop", "--json").out) == {"stopped": False, "pid": None}


def test_gone_sees_the_dead_and_the_unreaped():
    process = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert process.stdout.read() == b""
    launching.until(lambda: launching.gone(process.pid) or None, 10, "still there")
    process.wait()
    process.stdout.close()
    assert launching.gone(process.pid)
    assert not launching.gone(os.getpid())


def test_until_gives_up_with_its_sentence(monkeypatch):
    with pytest.raises(DeadlineExceeded, match="nothing came in 0 s"):
        launching.until(lambda: None, 0, "nothing came")
    with pytest.raises(NotFound):
        launching.until(lambda: (_ for _ in ()).throw(NotFound("x")), 1, "y")
