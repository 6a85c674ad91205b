"""`agentd repl`: scripts in this process, and a person at a real terminal."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest
from instance import wait_until
from typing_shell import typing_shell

from agentd.cli import repl
from agentd.paths import Paths

ROW = {"id": "a1", "name": "ada", "profile": "demo", "team": "", "role": "", "state": "idle", "since_s": 1.0}


@pytest.fixture
def ada(served):
    """Give a daemon with one agent."""
    served.answers.agents_list = lambda _: {"agents": [{**ROW, "inbox": 0, "cwd": "/"}]}
    served.answers.teams_list = lambda _: {"teams": []}
    return served


@pytest.fixture
def script(agentd, monkeypatch):
    """Give a function that runs lines."""

    def run(text, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        return agentd("repl", *options)

    return run


def test_a_script_over_one_connection(script, ada):
    ran = script("ls\n# a remark\n\nagentd ls --json\nsend ada 'two words'\nexit\nnot reached\n")
    assert (ran.code, ran.err) == (0, "")
    _heads, row, listed, receipt = ran.out.splitlines()
    assert row.startswith("ada ")
    assert json.loads(listed)[0]["name"] == "ada"
    assert receipt == "m1 to ada: accepted"
    assert [message.body for message in ada.answers.sent] == ["two words"]
    assert max(ada.connections) == len([count for count in ada.connections if count]) == 1


def test_errors_are_one_line_each_and_end_nothing(script, ada):
    ran = script("lss\nteam show nobody\nsend ada 'open\nsend ada -\nmcp\nup --foreground\nls\n")
    assert "ada" in ran.out
    lines = ran.err.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("agentd: ") and "; " in line for line in lines)
    assert ran.code == 2  # of the first that failed
    assert script("team show nobody\nls\n").code == 5


def test_json_for_every_line(script, ada):
    ran = script("ls\nteam show nobody\n", "--json")
    agents, error = map(json.loads, ran.out.splitlines())
    assert agents[0]["name"] == "ada"
    assert error["error"]["code"] == "not_found"


def test_a_script_needs_no_daemon_and_keeps_no_history(script, directory):
    assert script("version\nhelp\n").code == 0
    assert script("ls\n").code == 3
    assert not directory.exists()


def test_history_is_private_and_cut_back(directory):
    paths = Paths.find(os.environ)
    history = repl.History(paths)
    for number in range(2 * repl.KEPT_LINES + 1):
        history.add(f"show a{number}")
    assert os.stat(paths.repl_history).st_mode & 0o777 == 0o600
    assert len(repl.History(paths).lines()) == repl.KEPT_LINES
    with open(paths.repl_history) as file:
        assert len(file.read().splitlines()) == repl.KEPT_LINES
    assert history.lines()[-1] == f"show a{2 * repl.KEPT_LINES}"


def test_history_follows_no_symlink(directory, tmp_path, capsys):
    paths = Paths.find(os.environ)
    directory.mkdir(mode=0o700)
    (tmp_path / "victim").write_text("kept\n")
    os.symlink(tmp_path / "victim", paths.repl_history)
    history = repl.History(paths)
    history.add("show a")
    assert "not remembered" in capsys.readouterr().err
    assert history.lines() == []
    assert (tmp_path / "victim").read_text() == "kept\n"


def test_at_a_terminal(ada, directory):
    pytest.importorskip("readline")
    argv = [sys.executable, "-m", "agentd", "repl"]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with typing_shell(argv, environ) as typing:
        typing.until(r"agentd> $")
        typing.type("sh\tad\t\n")  # show ada
        typing.until(r"show ada .*agentd> $")
        typing.type("agentd team sh\t\n")
        typing.until(r"needs TEAM; .*agentd> $")
        typing.type("half a li")
        typing.until("half a li")
        typing.interrupt(r"agentd> $")
        typing.type("read ada\n")  # which is never answered here
        typing.until("read ada\n")
        wait_until(lambda: ada.answers.begun == 1, "the call")
        typing.interrupt(r"agentd> $")
        typing.type(" ls\n")
        typing.until(r"ada .*agentd> $")
        typing.type("\x1b[A\n")  # the line before, which was not `ls`: it began with a space
        wait_until(lambda: ada.answers.begun == 2, "the call once more")
        typing.interrupt(r"agentd> $")
        typing.type("\x04")
        assert typing.ended() == 0
    lines = (directory / "repl_history").read_text().splitlines()
    assert lines == ["show ada ", "agentd team show ", "read ada", "read ada"]
