"""Bad input while the daemon runs: one sentence, the exit code of the contract, and the good neighbours go on."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import form
from instance import Instance, instance, wait_until

from agentd.cli import main
from agentd.config import load
from agentd.errors import (
    EXIT_FAILED,
    EXIT_NO_DAEMON,
    EXIT_NOT_ALLOWED,
    EXIT_NOT_FOUND,
    EXIT_PARTIAL,
    EXIT_TIMED_OUT,
    EXIT_USAGE,
    InvalidValue,
)

HUGE = "x" * 300_000  # over mailbox.max_body_bytes
WORDS: dict[str, tuple[list[str], int]] = {
    # whom
    "show an unknown agent": (["show", "nobody"], EXIT_NOT_FOUND),
    "show two": (["show", "%demo"], EXIT_NOT_FOUND),
    "show an empty name": (["show", ""], EXIT_USAGE),
    "explain an unknown agent": (["explain", "nobody"], EXIT_NOT_FOUND),
    "list an unknown agent": (["ls", "nobody"], EXIT_NOT_FOUND),
    "list an unknown team": (["ls", "@nobody"], EXIT_NOT_FOUND),
    "list a bare mark": (["ls", "@"], EXIT_NOT_FOUND),
    "list an empty role": (["ls", "@/"], EXIT_NOT_FOUND),
    "send to a bare mark": (["send", "@", "x"], EXIT_NOT_FOUND),
    "list an endless target": (["ls", "x" * 5000], EXIT_USAGE),
    "list an unknown state": (["ls", "--state", "asleep"], EXIT_USAGE),
    "read an unknown agent": (["read", "nobody"], EXIT_NOT_FOUND),
    "events of no type": (["events", "--types", "nope"], EXIT_USAGE),
    "follow events of no type": (["events", "--follow", "--types", "message.*,nope.*"], EXIT_USAGE),
    "export to nowhere": (["mailbox", "export", "/nonexistent/x"], EXIT_NOT_FOUND),
    "a name with a space": (["spawn", "demo", "--name", "Bad Name"], EXIT_USAGE),
    "follow an unknown agent": (["read", "nobody", "--follow"], EXIT_NOT_FOUND),
    "read no lines": (["read", "good", "--lines", "0"], EXIT_USAGE),
    "read words of lines": (["read", "good", "--lines", "many"], EXIT_USAGE),
    "wait for nobody": (["wait", "nobody", "--for", "idle"], EXIT_NOT_FOUND),
    "wait for nothing known": (["wait", "good", "--for", "sleep"], EXIT_USAGE),
    "wait in vain": (["wait", "good", "--for", "failed", "--timeout", "0.1"], EXIT_TIMED_OUT),
    "wait a negative time": (["wait", "good", "--for", "idle", "--timeout", "-1"], EXIT_USAGE),
    "wait for ever": (["wait", "good", "--for", "idle", "--timeout", "inf"], EXIT_USAGE),
    "keys to nobody": (["keys", "nobody", "Enter"], EXIT_NOT_FOUND),
    "no keys": (["keys", "good"], EXIT_USAGE),
    "a key of no keyboard": (["keys", "good", "Hyperspace-Z"], EXIT_USAGE),
    "an empty key": (["keys", "good", ""], EXIT_USAGE),
    "interrupt nobody": (["interrupt", "nobody"], EXIT_NOT_FOUND),
    "rotate-token nobody": (["rotate-token", "nobody"], EXIT_NOT_FOUND),
    "stop nobody": (["stop", "nobody"], EXIT_PARTIAL),
    "respawn nobody": (["respawn", "nobody"], EXIT_NOT_FOUND),
    "respawn what runs": (["respawn", "good"], EXIT_FAILED),
    # starting
    "spawn nothing known": (["spawn", "nothing"], EXIT_NOT_FOUND),
    "spawn a path": (["spawn", "../demo"], EXIT_NOT_FOUND),
    "spawn none": (["spawn", "demo", "-n", "0"], EXIT_USAGE),
    "spawn too many": (["spawn", "demo", "-n", "1000"], EXIT_NOT_ALLOWED),
    "spawn a taken name": (["spawn", "demo", "--name", "good"], EXIT_FAILED),
    "spawn a reserved name": (["spawn", "demo", "--name", "operator"], EXIT_USAGE),
    "spawn a bad name": (["spawn", "demo", "--name", "A b"], EXIT_USAGE),
    "spawn into a bad team": (["spawn", "demo", "--team", "A b"], EXIT_USAGE),
    "spawn in a bad role": (["spawn", "demo", "--role", "A\nb"], EXIT_USAGE),
    "spawn nowhere": (["spawn", "demo", "--cwd", "/no/such/place"], EXIT_USAGE),
    "spawn in a file": (["spawn", "demo", "--cwd", "/etc/passwd"], EXIT_USAGE),
    "spawn with no variable": (["spawn", "demo", "--env", "NOTHING"], EXIT_USAGE),
    "spawn with a bad variable": (["spawn", "demo", "--env", "A B=1"], EXIT_USAGE),
    "spawn with a huge prompt": (["spawn", "demo", "--prompt", "x" * 100_000 + "\x00"[:0], "--name", "A"], EXIT_USAGE),
    # messages
    "send to nobody": (["send", "nobody", "x"], EXIT_NOT_FOUND),
    "send to no team": (["send", "@nobody", "x"], EXIT_NOT_FOUND),
    "send with a bad priority": (["send", "good", "x", "--priority", "urgent"], EXIT_USAGE),
    "send with no time to live": (["send", "good", "x", "--ttl", "0"], EXIT_USAGE),
    "send with an endless key": (["send", "good", "x", "--key", "k" * 201], EXIT_USAGE),
    "send in answer to an endless id": (["send", "good", "x", "--reply-to", "m" * 33], EXIT_USAGE),
    "send two texts": (["send", "good", "x", "y"], EXIT_USAGE),
    "send a batch of no file": (["send", "--batch", "/no/such/file"], EXIT_NOT_FOUND),
    "send a batch of a directory": (["send", "--batch", "/"], EXIT_USAGE),
    "send a batch and a target": (["send", "good", "--batch", "-"], EXIT_USAGE),
    "send and wait in vain": (["send", "deaf", "x", "--wait", "acked", "--timeout", "0.1"], EXIT_TIMED_OUT),
    "inbox of nobody": (["inbox", "nobody"], EXIT_NOT_FOUND),
    "inbox of none": (["inbox", "--limit", "0"], EXIT_USAGE),
    "an unknown message": (["msg", "m0000000000"], EXIT_NOT_FOUND),
    "a message with no id": (["msg", "hello"], EXIT_NOT_FOUND),
    "a message with a path": (["msg", "../../x"], EXIT_NOT_FOUND),
    "a message with an endless id": (["msg", "m" * 5000], EXIT_USAGE),
    "ack an unknown message": (["ack", "m0000000000"], EXIT_PARTIAL),
    "ack nothing": (["ack"], EXIT_USAGE),
    "nack an unknown message": (["nack", "m0000000000"], EXIT_PARTIAL),
    "nack with an endless reason": (["nack", "m0000000000", "--detail", "x" * 501], EXIT_USAGE),
    "retry an unknown message": (["dead", "retry", "m0000000000"], EXIT_PARTIAL),
    "drop an unknown message": (["dead", "drop", "m0000000000"], EXIT_PARTIAL),
    "dead letters of nobody": (["dead", "ls", "nobody"], EXIT_NOT_FOUND),
    # the rest
    "an unknown team": (["team", "show", "nobody"], EXIT_NOT_FOUND),
    "a team that is no name": (["team", "show", "../x"], EXIT_USAGE),
    "down with an unknown team": (["team", "down", "nobody"], EXIT_NOT_FOUND),
    "a team of no file": (["team", "up", "/no/such/file"], EXIT_NOT_FOUND),
    "a team of a directory": (["team", "up", "/"], EXIT_USAGE),
    "an unknown profile": (["profile", "show", "nothing"], EXIT_NOT_FOUND),
    "an unknown command": (["sned", "good", "x"], EXIT_USAGE),
    "an unknown option": (["ls", "--colour"], EXIT_USAGE),
    "call nothing known": (["call", "agents.fly"], EXIT_USAGE),
    "call with no JSON": (["call", "agents.list", "{nope"], EXIT_USAGE),
    "call with a list": (["call", "agents.list", "[1]"], EXIT_USAGE),
    "call with a wrong type": (["call", "agents.get", '{"target": 7}'], EXIT_USAGE),
    "call with an unknown field": (["call", "agents.get", '{"target": "good", "colour": 1}'], EXIT_USAGE),
    "call without what it needs": (["call", "agents.get", "{}"], EXIT_USAGE),
    "call with a batch that is none": (["call", "messages.send_batch", '{"messages": 7}'], EXIT_USAGE),
    "call with a deep value": (["call", "agents.get", '{"target": ' + "[" * 200 + "]" * 200 + "}"], EXIT_USAGE),
    "call with no number": (
        ["call", "agents.wait", '{"target": "good", "until": "idle", "timeout_s": NaN}'],
        EXIT_USAGE,
    ),
    "call with an endless number": (
        ["call", "agents.wait", '{"target": "good", "until": "idle", "timeout_s": 1e400}'],
        2,
    ),
    "events since a word": (["events", "--since", "yesterday"], EXIT_USAGE),
    "restart with a bad setting": (["up", "--set", "nonsense"], EXIT_USAGE),
}


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_bad_profiles(one)
        one.up("agents.max=50")
        one.spawn(name="good")
        one.spawn(name="deaf", env={"AGENTD_DEMO_MODE": "deaf"})
        yield one


def one_sentence(text: str) -> str:
    assert text.startswith("agentd: "), text
    assert text.count("\n") == 1, text
    assert text.rstrip("\n").isprintable(), text
    assert len(text) < 1000, text
    return text


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def ran(
    whole: Instance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Ran]]:
    """Give a function that runs a command line in this process: a process for each of so many is dear."""

    def run(*words: str) -> Ran:
        capsys.readouterr()
        code = main([*words, "--json"])
        done = capsys.readouterr()
        assert "Traceback" not in done.err
        return Ran(code, done.out, done.err)

    for name in [name for name in os.environ if name not in whole.environ]:
        monkeypatch.delenv(name)
    for name, value in whole.environ.items():
        monkeypatch.setenv(name, value)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield run


@pytest.mark.parametrize(("words", "code"), WORDS.values(), ids=WORDS)
def test_one_sentence_and_the_exit_code(ran: Callable[..., Ran], words: list[str], code: int):
    done = ran(*words)
    assert done.code == code, done
    sentence = one_sentence(done.err)
    found = [json.loads(line) for line in done.out.splitlines()]
    assert len(found) == 1, done.out
    error = found[0]["failed"][0]["error"] if found[0].get("failed") else found[0]["error"]
    assert {"code", "message", "hint", "retryable"} <= error.keys()
    assert error["code"] != "internal"
    assert error["message"].partition("; ")[0][:40] in sentence


def test_the_daemon_took_no_harm(whole: Instance):
    assert [agent["name"] for agent in whole.json("ls")] == ["deaf", "good"]
    assert '"level": "error"' not in (whole.directory / "agentd.log").read_text()


@pytest.mark.parametrize(
    ("text", "code"),
    [("", EXIT_USAGE), (" \n", EXIT_USAGE), (HUGE, EXIT_NOT_ALLOWED), ("x" * 1_000_001, EXIT_NOT_ALLOWED)],
    ids=["empty", "blank", "over the mailbox's limit", "over the frame's limit"],
)
def test_a_text_from_stdin_that_cannot_be_sent(whole: Instance, text: str, code: int):
    done = whole.cli("send", "good", "-", "--json", check=False, input_=text)
    assert done.returncode == code, (done.returncode, done.stderr)
    one_sentence(done.stderr)
    assert json.loads(done.stdout)["error"]["message"]


BAD_LINES = {
    "no JSON": "{",
    "no object": "7",
    "no target": '{"body": "x"}',
    "no body": '{"to": "good"}',
    "an unknown field": '{"to": "good", "body": "x", "from": "operator"}',
    "an unknown target": '{"to": "nobody", "body": "x"}',
    "a wrong type": '{"to": 7, "body": "x"}',
    "a wrong priority": '{"to": "good", "body": "x", "priority": "urgent"}',
    "a wrong header": '{"to": "good", "body": "x", "headers": {"a": 1}}',
    "no number": '{"to": "good", "body": "x", "ttl_s": NaN}',
    "a number too large": '{"to": "good", "body": "x", "ttl_s": 1e400}',
    "a body too large": json.dumps({"to": "good", "body": HUGE}),
    "a lone surrogate": '{"to": "good", "body": "\\ud800", "key": 1}',
    "an endless key": json.dumps({"to": "good", "body": "x", "key": "k" * 201}),
    "too deep": '{"to": "good", "body": ' + "[" * 50_000 + "]" * 50_000 + "}",
}


def test_a_bad_line_of_a_batch_never_stops_the_good_ones(whole: Instance):
    lines = [json.dumps({"to": "good", "body": "first"})]
    for bad in BAD_LINES.values():
        lines += [bad, json.dumps({"to": "good", "body": "next"})]
    done = whole.cli("send", "--batch", "-", check=False, input_="\n".join(lines) + "\n")
    assert done.returncode == EXIT_PARTIAL
    receipts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [receipt["line"] for receipt in receipts] == list(range(1, len(lines) + 1))
    assert all(receipt["state"] == "accepted" for receipt in receipts[::2])
    told = {name: receipt.get("error") for name, receipt in zip(BAD_LINES, receipts[1::2], strict=True)}
    assert {name: error for name, error in told.items() if not error or error["code"] == "internal"} == {}
    assert told["an unknown target"]["code"] == "unknown_target"
    assert told["a body too large"]["code"] == "over_limit"
    last = receipts[-1]["id"]
    wait_until(lambda: whole.json("msg", last)["state"] == "acked", "the last good line to be read")


HEAD = '[team]\nname = "t"\n'
GOOD = '[[agents]]\nname = "w"\nprofile = "demo"\n'
BAD_TEAMS = {
    "no TOML": "[team",
    "not UTF-8": "\udcff",
    "empty": "",
    "no team": GOOD,
    "no agents": HEAD,
    "an unknown table": HEAD + GOOD + "[more]\n",
    "an unknown key of the team": '[team]\nname = "t"\ncolour = 1\n' + GOOD,
    "an unknown key of an agent": HEAD + GOOD + "colour = 1\n",
    "a bad team name": '[team]\nname = "A b"\n' + GOOD,
    "a reserved team name": '[team]\nname = "all"\n' + GOOD,
    "a name of the wrong type": HEAD + "[[agents]]\nname = 7\nprofile = 'demo'\n",
    "a bad agent name": HEAD + "[[agents]]\nname = 'A b'\nprofile = 'demo'\n",
    "a bad role": HEAD + GOOD + 'role = "A b"\n',
    "a count of none": HEAD + GOOD + "count = 0\n",
    "a count of words": HEAD + GOOD + 'count = "many"\n',
    "twice the same name": HEAD + GOOD + GOOD,
    "a bad variable": HEAD + GOOD + 'env = {"A B" = "1"}\n',
    "one branch for several": HEAD + GOOD + 'count = 2\nworktree = "topic"\n',
    "a team directory that is none": '[team]\nname = "t"\ncwd = 7\n' + GOOD,
}


@pytest.mark.parametrize("text", BAD_TEAMS.values(), ids=BAD_TEAMS)
def test_a_bad_team_file_starts_nothing(whole: Instance, ran: Callable[..., Ran], tmp_path: Path, text: str):
    file = tmp_path / "team.toml"
    file.write_bytes(text.encode(errors="surrogateescape"))
    done = ran("team", "up", str(file))
    assert done.code == EXIT_USAGE, done
    one_sentence(done.err)
    assert json.loads(done.out)["error"]["code"] == "invalid"
    with whole.client() as client:
        assert client.call("teams.list")["teams"] == []
        assert len(client.call("agents.list")["agents"]) == 2


def test_an_agent_of_a_team_that_cannot_start_is_named_and_the_rest_run(whole: Instance, tmp_path: Path):
    file = tmp_path / "team.toml"
    nowhere = '[[agents]]\nname = "lost"\nprofile = "demo"\ncwd = "/no/such/place"\n'
    file.write_text(HEAD + GOOD + '[[agents]]\nname = "odd"\nprofile = "nothing"\n' + nowhere)
    done = whole.cli("team", "up", str(file), "--json", check=False)
    assert done.returncode == EXIT_PARTIAL, done.stderr
    answer = json.loads(done.stdout)
    assert [agent["name"] for agent in answer["agents"]] == ["w"]
    assert {row["name"]: row["error"]["code"] for row in answer["failed"]} == {"odd": "not_found", "lost": "invalid"}
    assert len(done.stderr.splitlines()) == 2
    whole.cli("team", "down", "t")


BAD_PROFILES = {
    "no TOML": "command = ",
    "not UTF-8": "\udcff",
    "no command": 'doc = "x"\n',
    "an unknown key": 'command = "x"\ncolour = 1\n',
    "an unknown key below": 'command = "x"\n[input]\ncolour = 1\n',
    "a wrong type": "command = 7\n",
    "a wrong value": 'command = "x"\ndelivery = "carrier pigeon"\n',
    "a bad pattern": 'command = "x"\n[[rules]]\nstate = "idle"\nscreen = "("\n',
    "another name": 'command = "x"\nname = "other"\n',
    "a composer without text": 'command = "x"\n[input]\ncomposer = "^>"\n',
    "a number out of range": 'command = "x"\n[input]\nmax_inline_bytes = 1\n',
}


def bad_profile(why: str) -> str:
    return "bad-" + why.lower().replace(" ", "-")


def add_bad_profiles(whole: Instance) -> None:
    """Give an instance, before its daemon starts, every bad profile beside the good ones."""
    profiles = whole.directory / "profiles"
    profiles.mkdir()
    for why, text in BAD_PROFILES.items():
        (profiles / f"{bad_profile(why)}.toml").write_bytes(text.encode(errors="surrogateescape"))


@pytest.mark.parametrize("why", BAD_PROFILES)
def test_a_bad_profile_is_named_and_harms_no_other(ran: Callable[..., Ran], why: str):
    """That the daemon started, and the good agents with it, is the other half."""
    done = ran("spawn", bad_profile(why))
    assert done.code == EXIT_USAGE, done
    assert f"{bad_profile(why)}.toml" in one_sentence(done.err)
    assert json.loads(done.out)["error"]["code"] == "invalid"


def test_every_bad_profile_is_listed(whole: Instance):
    listed = whole.cli("profile", "ls").stdout
    assert [why for why in BAD_PROFILES if f"{bad_profile(why)}.toml" not in listed] == []


BAD_SETTINGS = [
    "nonsense=1",
    "agents.max=many",
    "agents.max=0",
    "agents.max=1e9",
    "agents=1",
    "tmux.width=",
    "log.level=loud",
    "courier.confirm_s=nan",
    "rpc.max_frame_bytes=-1",
    "mailbox.shards=1.5",
    "=1",
]
NO_REDIS = "cache.redis_url=http://localhost"  # the daemon finds out


@pytest.mark.parametrize("setting", BAD_SETTINGS)
def test_a_bad_setting_is_refused_by_its_name(setting: str):
    with pytest.raises(InvalidValue) as caught:
        load("/nonexistent/config.toml", {}, [setting])
    assert setting.partition("=")[0].split(".")[-1] in one_sentence(f"agentd: {caught.value.message}\n")


@pytest.mark.parametrize("setting", [*form(["nonsense=1"], BAD_SETTINGS), NO_REDIS])
def test_a_bad_setting_is_one_sentence(idle_instance: Instance, setting: str):
    done = idle_instance.cli("up", "--set", setting, check=False)
    assert done.returncode in (EXIT_USAGE, EXIT_FAILED), (done.returncode, done.stderr)
    assert setting.partition("=")[0].split(".")[-1] in one_sentence(done.stderr)
    assert not (idle_instance.directory / "agentd.sock").exists()


def test_a_missing_tmux_is_one_sentence(idle_instance: Instance):
    done = idle_instance.cli("up", "--set", "tmux.binary=/no/such/tmux", check=False)
    assert done.returncode == EXIT_NO_DAEMON
    assert "/no/such/tmux" in one_sentence(done.stderr)


def test_attach_without_a_terminal_says_what_to_do(whole: Instance):
    done = whole.cli("attach", "good", check=False)
    assert done.returncode == EXIT_USAGE
    assert "agentd read good" in one_sentence(done.stderr)
