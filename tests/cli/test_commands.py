"""A walk over the table of commands: every command, every way to get it wrong."""

from __future__ import annotations

import json
import os
import shlex
import signal

import anyio
import pytest

from agentd.cli.commands import COMMANDS, GROUPS
from agentd.cli.parser import find, parse

NEEDS_NO_DAEMON = {  # no words after it, no daemon: what then
    **dict.fromkeys(("down", "doctor", "config show", "config path", "config init", "schema", "version", "man"), 0),
    **dict.fromkeys(("up", "restart"), 7),  # from inside a pane
    "mcp": 7,  # from outside of one
    "__complete": 0,
    "hook": 0,
    "repl": 0,
}
QUIET = {"hook", "repl"}  # say nothing when stdin gives nothing
SILENT = {"hook"}  # whatever it is given, it ends well: what it exits with is an order to the agent that runs it
LOOSE = {"__complete"}  # completes half-typed lines, wrong ones too
EVERY = pytest.mark.parametrize("command", COMMANDS.values(), ids=list(COMMANDS))


def one_sentence(ran, code):
    assert (ran.code, ran.out) == (code, "")
    assert ran.err.startswith("agentd: ")
    assert ran.err.count("\n") == 1
    assert "; " in ran.err


@EVERY
def test_without_any_words(command, agentd, directory, tmp_path, monkeypatch):
    if command.words == "demo":
        pytest.skip("starts an instance of its own; the whole tests run it")
    if command.words in ("up", "restart"):
        (tmp_path / "token").write_text("t")
        monkeypatch.setenv("AGENTD_TOKEN_FILE", str(tmp_path / "token"))
    needs_words = any(argument.required for argument in command.arguments) or command.words in ("send", "ack")
    expected = NEEDS_NO_DAEMON.get(command.words, 2 if needs_words else 3)
    ran = agentd(*command.words.split())
    if expected:
        one_sentence(ran, expected)
    else:
        assert (ran.code, ran.err) == (0, "")
        assert bool(ran.out) is (command.words not in QUIET)
    assert not (directory / "agentd.sock").exists()
    assert not (directory / "agentd.out").exists()


@EVERY
def test_unknown_option(command, agentd):
    ran = agentd(*command.words.split(), "--no-such-thing")
    one_sentence(ran, 0 if command.words in SILENT else 2)
    assert "--no-such-thing" in ran.err


@EVERY
def test_too_many_words(command, agentd):
    if any(argument.many for argument in command.arguments):
        pytest.skip("takes any number")
    given = [argument.choices[0] if argument.choices else "x" for argument in command.arguments]
    one_sentence(agentd(*command.words.split(), *given, "surplus"), 0 if command.words in SILENT else 2)


@pytest.mark.parametrize(
    ("command", "option"),
    [(c, o) for c in COMMANDS.values() for o in c.options if o.value],
    ids=lambda part: getattr(part, "words", None) or part.name,
)
def test_values_of_options(command, option, agentd):
    one_sentence(agentd(*command.words.split(), option.name), 2)
    if option.choices or option.kind in ("int", "number", "pair"):
        for bad in ("", "b@d", "-7x", "nan"):
            ran = agentd(*command.words.split(), f"{option.name}={bad}")
            one_sentence(ran, 2)
            assert option.name in ran.err
    if option.high is not None:
        one_sentence(agentd(*command.words.split(), option.name, str(int(option.high) + 1)), 2)


@EVERY
def test_help_says_what_it_does_and_gives_an_example_that_parses(command, agentd):
    ran = agentd(*command.words.split(), "--help")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"usage: agentd {command.words}")
    assert command.doc in ran.out
    assert command.example in ran.out
    assert command.doc.endswith(".")
    assert command.doc.count(". ") == 0
    argv = shlex.split(command.example.partition("agentd ")[2].rstrip(')"'))
    found, rest = find(COMMANDS, argv)
    assert found.home == command.home
    parse(found, rest)


@EVERY
def test_every_command_has_its_function_and_a_group(command):
    module, _, name = command.home.partition(":")
    assert callable(getattr(__import__(f"agentd.cli.{module}", fromlist=[name]), name))
    assert command.group in GROUPS


def test_the_list_of_commands_names_each_once(agentd):
    for words in ((), ("--help",), ("-h",), ("help",)):
        ran = agentd(*words)
        assert ran.code == 0
        named = [line.split("  ")[1] for line in ran.out.splitlines() if line.startswith("  ")]
        assert sorted(named) == sorted(words for words, command in COMMANDS.items() if not command.hidden)


def test_help_of_a_noun_and_by_name(agentd):
    assert "team down" in agentd("team", "--help").out
    assert "agentd ls" not in agentd("team", "--help").out
    assert agentd("help", "team", "up").out == agentd("team", "up", "--help").out


@pytest.mark.parametrize("argv", [("sned",), ("team",), ("team", "upp"), ("profile", "--json"), ("help", "nothing")])
def test_commands_that_do_not_exist(argv, agentd):
    ran = agentd(*argv)
    assert ran.code == 2
    assert ran.err.startswith("agentd: ")


def test_an_error_with_json_is_on_both_streams(agentd):
    for argv in (["--json", "ls"], ["ls", "--json"]):
        ran = agentd(*argv)
        assert ran.code == 3
        error = json.loads(ran.out)["error"]
        assert set(error) == {"code", "message", "hint", "retryable"}
        assert error["code"] == "unavailable"
        assert error["message"] in ran.err
    assert "--json" in agentd("send", "a", "--", "--json").err or agentd("send", "a", "--", "--json").out == ""


def test_an_unexpected_exception_is_one_sentence(agentd, served):
    served.answers.agents_list = lambda _: {"agents": [{}]}  # no daemon of this version says that
    ran = agentd("ls")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "agentd: internal error: KeyError: 'name'; rerun with AGENTD_DEBUG=1 for details\n"


def test_ctrl_c_is_quiet(agentd, served):
    async def press(_):
        os.kill(os.getpid(), signal.SIGINT)
        await anyio.sleep_forever()

    served.answers.agents_list = press
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    try:
        ran = agentd("ls")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (ran.code, ran.out, ran.err) == (130, "", "")


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("shell", "--worktree"), {"worktree": True}),
        (("--worktree", "shell"), {"worktree": True}),
        (("shell", "--worktree", "topic"), {"worktree": True, "branch": "topic"}),
        (("--worktree=topic", "shell"), {"worktree": True, "branch": "topic"}),
        (("shell", "--worktree", "--name", "a"), {"worktree": True, "name": "a"}),
    ],
)
def test_a_worktree_may_be_given_a_branch(agentd, served, words, asked):
    seen = []

    def spawn(params):
        seen.append(params)
        return {"agents": [], "failed": []}

    served.answers.agents_spawn = spawn
    assert agentd("spawn", *words).code == 0
    (params,) = seen
    assert params.profile == "shell"
    assert {key: getattr(params, key) for key in asked} == asked
    assert params.branch == asked.get("branch")
