"""Completion: what the engine offers, and real shells at real terminals that ask it."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typing_shell import typing_shell

from agentd.cli import completion
from agentd.cli.commands import COMMANDS
from agentd.cli.words import split

AGENTS = [
    {"name": "lead", "id": "7lead", "team": "crew", "role": "boss", "profile": "claude", "state": "idle"},
    {"name": "le-2", "id": "8le2", "team": "crew", "role": "", "profile": "shell", "state": "waiting"},
    {"name": "old", "id": "9old", "team": "", "role": "", "profile": "demo", "state": "stopped"},
]


@pytest.fixture
def crew(served):
    """Give a daemon in which a small crew runs."""

    def agents_list(params):
        live = [row for row in AGENTS if row["state"] != "stopped"]
        return {"agents": [row for row in AGENTS if row["state"] == params.state] if params.state else live}

    def events_list(params):
        ids = [["m1"], ["m2", "m3"]]
        events = [{"type": "message.accepted", "data": {"ids": each}} for each in ids]
        return {"events": [] if params.limit == 1 else events, "last": 5000}

    served.answers.agents_list = agents_list
    served.answers.events_list = events_list
    served.answers.teams_list = lambda _: {"teams": [{"name": "review"}]}
    served.answers.profiles_list = lambda _: {"profiles": [{"name": "mine"}]}
    served.answers.pool_list = lambda _: {"pools": [{"profile": "claude"}]}
    served.answers.messages_dead = lambda _: {"messages": [{"id": "mdead"}]}
    return served


def offered(line: str) -> list[str]:
    """Return what may stand at the end of a line."""
    return completion.endings(f"agentd {line}", None)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sp", ["spawn"]),
        ("te", ["team"]),
        ("team ", ["up", "ls", "show", "down"]),
        ("--json team sh", ["show"]),
        ("help tea", ["team"]),
        ("help team s", ["show"]),
        ("--v", ["--version"]),
        ("wait x --for re", ["reply"]),
        ("ls --state=wa", ["--state=waiting"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("completion bash ", ["--json", "--help"]),
        ("down --json --", ["--agents", "--help"]),
        ("dead r", ["retry"]),
        ("call teams.u", ["teams.up"]),
        ("keys lead Esc", ["Escape"]),
        ("up --set mailbox.batch", ["mailbox.batch_wait_ms="]),
        ("events --types agent.st", ["agent.state"]),
        ("events --types daemon.*,agent.st", ["daemon.*,agent.state"]),
        ("spawn go", ["goose"]),
        ("spawn demo --env=A=1 -n3 --", None),
        ("nothing ", []),
        ("team up ", []),  # a file: the shell's own business
        ("send 'a b' ", []),
        ("send -- --", []),
    ],
)
def test_what_is_offered_without_a_daemon(line, found, directory):
    assert (found is None and "--env" in offered(line)) or offered(line) == found
    assert not directory.exists()


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("send ", ["lead", "le-2", "@review", "@crew", "all", "operator"]),
        ("stop lead l", ["lead", "le-2"]),
        ("ls @c", ["@crew", "@crew/boss"]),
        ("stop %", ["%claude", "%shell"]),
        ("send 7", ["7lead"]),
        ("show le", ["lead", "le-2"]),
        ("show o", ["old"]),
        ("show 9", ["9old"]),
        ("respawn ", ["old"]),
        ("rotate-token ", ["lead", "le-2"]),
        ("approve ", ["le-2"]),
        ("msg ", ["m2", "m3", "m1"]),
        ("send lead hi --reply-to m3", ["m3"]),
        ("dead drop ", ["mdead"]),
        ("team show ", ["review", "crew"]),
        ("spawn mine --team=c", ["--team=crew"]),
        ("spawn mine --team crew --role ", ["boss"]),
        ("spawn ", ["mine"]),
        ("pool drain ", ["claude"]),
        ("call agents.li", ["agents.list"]),
        ("send lead 'hello there' --pri", ["--priority"]),
        ('show "le', ["lead", "le-2"]),
    ],
)
def test_what_is_offered_of_a_running_crew(line, found, crew):
    assert offered(line) == found


def test_only_what_the_shell_replaces_is_printed(agentd, crew):
    assert agentd("__complete", "--line=agentd ls --state=wa", "--typed=wa").out == "waiting\n"
    assert agentd("__complete", "--line=agentd team show cre", "--typed=ew").out == "crew\n"
    assert agentd("__complete", "--line=agentd send @rev", "--typed=rev").out == "review\n"
    assert agentd("__complete", "--", "send", "lea").out == "lead\n"


def test_names_are_printed_without_control_characters(agentd, served):
    served.answers.agents_list = lambda _: {"agents": [{**AGENTS[0], "name": "le\x1b[2Jt"}]}
    served.answers.teams_list = lambda _: {"teams": []}
    assert agentd("__complete", "--", "send", "le").out.splitlines() == ["le␛[2Jt"]


def test_it_never_complains(agentd):
    for words in ([], ["send", ""], ["send", "--wait", ""], ["--", "--"], ["\x00"], ["send", "a", "b", "c", ""]):
        ran = agentd("__complete", "--", *words)
        assert (ran.code, ran.err) == (0, "")


def test_every_command_can_be_completed():
    for words, command in COMMANDS.items():
        if not command.hidden:
            *before, last = words.split()
            assert last in completion.candidates(before, last[:1])


@settings(deadline=None)
@given(st.text(alphabet="ab '\"\\\t\n=-é") | st.text())
def test_a_line_is_cut_as_a_shell_cuts_it(line):
    finished, begun, quote = split(line)
    try:
        expected = shlex.split(line)
    except ValueError:
        assert quote
        return
    if "\\\n" not in line:  # a shell takes both away; who types one line has none
        assert finished + ([] if begun is None else [begun]) == expected


# real shells


@pytest.fixture
def environ(crew, tmp_path):
    """Give the environment of a shell that finds this agentd and its crew, and a file to fall back on."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "agentd"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m agentd "$@"\n')
    program.chmod(0o700)
    (tmp_path / "team-file.toml").touch()
    paths = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return {**os.environ, **paths, "HOME": str(tmp_path), "PS1": "$ ", "HISTFILE": ""}


SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"], 'eval "$(agentd completion bash)"'),
    "zsh": (["-f", "-i"], 'autoload -Uz compinit; compinit -u -D; eval "$(agentd completion zsh)"'),
    "fish": (["--no-config", "-i"], "agentd completion fish | source"),
}


@pytest.fixture(params=SHELLS)
def shell(request, environ, tmp_path, monkeypatch):
    """Give a shell that completes."""
    program = shutil.which(request.param)
    if program is None:
        pytest.skip(f"no {request.param} here")
    options, install = SHELLS[request.param]
    monkeypatch.chdir(tmp_path)
    with typing_shell([program, *options], environ) as typing:
        typing.type(f"{install}; echo RE''ADY\n")
        typing.until(r"READY.*[$>#%] $")
        yield SimpleNamespace(name=request.param, keys=typing.type, until=typing.until)


def test_a_shell_completes_at_its_terminal(shell):
    for keys, completed in [
        ("agentd send lea\t", r"send lead "),
        ("agentd team sh\tcre\t", r"show .{0,3}crew "),
        ("agentd ls @crew/\t", r"ls @crew/boss "),
        ("agentd spawn mine --team=cr\t", r"--team=crew "),
        ("agentd stop %sh\t", r"stop %shell "),
        ("agentd up --set mailbox.batch\t7", r"mailbox\.batch_wait_ms=7"),
        ("agentd send lead 'hello there' --pri\t", r"--priority "),
        ("agentd wait lead --for re\t", r"--for reply "),
    ]:
        shell.keys("\x15")  # forget the line
        shell.keys(keys)
        shell.until(completed)
    if shell.name != "fish":  # whose own function for files is not there without its data
        shell.keys("\x15")
        shell.keys("agentd team up team-f\t")
        shell.until(r"up team-file\.toml")


@pytest.mark.parametrize("name", SHELLS)
def test_scripts_are_read_by_their_shells(name, agentd, tmp_path):
    ran = agentd("completion", name)
    assert ran.code == 0
    program = shutil.which(name)
    if program is None:
        pytest.skip(f"no {name} here")
    (tmp_path / "script").write_text(ran.out)
    done = subprocess.run([program, "-n", str(tmp_path / "script")], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_script_for_zsh_may_be_a_file_of_its_fpath(environ, tmp_path):
    program = shutil.which("zsh")
    if program is None:
        pytest.skip("no zsh here")
    (tmp_path / "functions").mkdir()
    with open(tmp_path / "functions" / "_agentd", "w") as file:
        file.write(completion.SCRIPTS["zsh"])
    with typing_shell([program, "-f", "-i"], environ) as typing:
        typing.type(f"fpath=({tmp_path}/functions $fpath); autoload -Uz compinit; compinit -u -D; echo RE''ADY\n")
        typing.until(r"READY.*[$>#%] $")
        typing.type("agentd send lea\t")
        typing.until("send lead ")
