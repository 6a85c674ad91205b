"""What each command asks the daemon, through a real door with the real table, and what it makes of the answer."""

# ruff: noqa: E501  one case a line: the table is read as a table

from __future__ import annotations

import json
import os
from binascii import b2a_base64

import msgspec
import pytest

from agentd.cli.commands import COMMANDS
from agentd.errors import DeadlineExceeded, UnknownTarget

AGENT = {
    "id": "a1",
    "name": "lead",
    "profile": "shell",
    "team": "crew",
    "role": "lead",
    "state": "idle",
    "reason": "prompt",
    "since_s": 61.0,
    "inbox": 2,
    "cwd": "/",
    "pane": "%1",
    "session": "$1",
    "warm": False,
    "pid": 7,
    "exit_status": None,
}
MESSAGE = {
    "id": "m1",
    "from": "lead",
    "to": "operator",
    "body": "done",
    "key": None,
    "state": "acked",
    "attempts": 1,
    "priority": "normal",
    "reply_to": None,
    "headers": {},
    "created_at": 1.5,
    "expires_at": None,
    "waits_for": "",
    "history": [{"state": "accepted", "at": 1.5, "detail": ""}, {"state": "acked", "at": 2.5, "detail": "by operator"}],
}
POOL = {
    "profile": "claude",
    "place": "/project",
    "worktree": False,
    "trusted": False,
    "floor": 2,
    "ceiling": 4,
    "target": 2,
    "warm": 1,
    "booting": 1,
    "hits": 3,
    "misses": 1,
    "recycle": True,
    "recycled": 1,
    "why": "at least 2: nothing asked for lately",
}
WORKTREE = {
    "agent": "lead",
    "id": "1aaaaaaaaa",
    "state": "stopped",
    "path": "/w",
    "repo": "/p/.git",
    "branch": "fix",
    "own_commits": 2,
    "work": "1 changed file (a.py)",
}
PROJECT_POOL = {"profile": "claude", "place": "/p", "worktree": True, "size": 2, "most": 4}
PROJECT = {
    "file": "/p/agentd.toml",
    "state": "not trusted",
    "digest": "0" * 64,
    "setup": {"command": ["/bin/sh", "-c", "npm ci"], "timeout_s": 600.0, "once": False},
    "pools": [PROJECT_POOL],
    "team": None,
    "would": ["run in each fresh worktree: npm ci"],
}
SHARD = {
    "shard": 0,
    "health": "ok",
    **dict.fromkeys(("inboxes", "waiting", "delivered", "ended", "dead"), 3),
    "message_bytes": 5,
    "oldest_waiting_s": 7.0,
    **dict.fromkeys(("file_bytes", "log_bytes", "journal_bytes", "archive_bytes"), 1500000),
}
RECEIPT = {"id": "m1", "to": "lead", "state": "accepted"}
ERROR = {"code": "not_found", "message": "no such thing", "hint": None, "retryable": False}
STATUS = {
    "version": "0.1.0",
    "pid": 7,
    "uptime_s": 5.0,
    "protocol": 1,
    "agents": {"live": 1, "idle": 1},
    "cache": {**{key: {"hits": 3, "misses": 1} for key in ("l1", "l2", "l3")}, "asks": 4, "invalidations": 2},
    "switches": [{"name": "l3", "on": False, "why": "off by configuration"}],
    "tmux": {"version": "3.5", "servers": [{"index": 0, "agents": 1}]},
    "mailbox": {"messages": 1},
    "pool": [],
    "overrides": ["log.level=debug"],
}
EXPLAINED = {
    "id": "a1",
    "name": "lead",
    "state": "idle",
    "waits_for": "",
    "reason": "prompt",
    "source": "screen",
    "rule": "rules[1] idle",
    "evidence": "$ ",
    "age_s": 0.2,
    "since_s": 3.0,
    "draft": False,
    "would_change": "a message",
}
KEPT = {"first": 0, "end": 9_000_000, "size_bytes": 1_200_000}
SHOWN = {
    **AGENT,
    "resume_id": "s-1",
    "log_path": "/log",
    "env": {"A": "1"},
    "created_at": 1.0,
    "attach": ["true"],
    "messages": {"acked": 3, "dead": 0},
    "transcript": KEPT,
}
PRINTED = {
    "id": "a1",
    "name": "lead",
    "text": "one\ntwo\n",
    "offset": 3,
    "at": 1.0,
    "gaps": [],
    "next": 9,
    "first": 0,
    "end": 9,
}
OWN = {"id": "a1", "name": "lead", "text": "own\n", "path": "/log", "offset": 5, "next": 9, "end": 9}
PASSAGE = {
    "agent": "lead",
    "id": "a1",
    "at": 1.0,
    "offset": 3,
    "next": 9,
    "text": "one",
    "score": 1.0,
    "snippet": "one",
    "matches": [[0, 3]],
}
FOUND = {
    "messages": [{**MESSAGE, "score": 1.0, "snippet": "done", "matches": [[0, 4]]}],
    "left_out": 0,
    "indexed_behind": 0,
}
ASKING = {
    "state": "waiting",
    "waits_for": "permission",
    "reason": "it asks",
    "prompt": "0123456789",
    "asks": "git push",
}
APPROVED = {
    "answered": [
        {"id": "a1", "name": "lead", "answer": "approve", "prompt": "0123456789", "asks": "git push", "then": "working"}
    ],
    "failed": [],
}
DENIED = {"answered": [{**APPROVED["answered"][0], "answer": "deny", "asks": ""}], "failed": []}
STOPPED = {"id": "a1", "name": "lead", "state": "stopped", "kept": 2}
DONE = {"done": ["m1"], "failed": []}
EVENT = {"id": 4, "type": "agent.state", "at": 1.0, "data": {"agent": "a1", "state": "idle", "reason": "the prompt"}}

CASES = [  # command line, call, parameters that differ from the table's defaults, answer, a word of the human form
    ("status", "daemon.status", {}, STATUS, "1 idle"),
    ("ls", "agents.list", {}, {"agents": [AGENT]}, "lead"),
    ("ls", "agents.list", {}, {"agents": []}, "agentd spawn shell"),
    ("ls @crew --state idle", "agents.list", {"target": "@crew", "state": "idle"}, {"agents": []}, "no agent is idle"),
    ("show lead", "agents.get", {"target": "lead"}, SHOWN, "3 acked"),
    ("show lead", "agents.get", {"target": "lead"}, SHOWN, "1.2M, agentd transcript lead"),
    ("show lead", "agents.get", {"target": "lead"}, SHOWN, "own log      /log"),
    ("explain lead", "agents.explain", {"target": "lead"}, EXPLAINED, "rules[1] idle"),
    ("read lead --lines 5", "agents.capture", {"target": "lead", "lines": 5}, {"text": "$ ls\n"}, "$ ls"),
    ("read lead --answer", "agents.answer", {"target": "lead"}, {"id": "a1", "text": "all of it"}, "all of it"),
    ("wait lead --for idle --timeout 9", "agents.wait", {"target": "lead", "until": "idle", "timeout_s": 9}, {"agent": AGENT}, "idle"),
    ("wait lead --for reply", "agents.wait", {"target": "lead", "until": "reply"}, {"agent": AGENT, "message": MESSAGE}, "done"),
    ("attach lead --json", "agents.get", {"target": "lead"}, SHOWN, "attach"),
    ("keys lead C-c Enter", "agents.keys", {"target": "lead", "keys": ["C-c", "Enter"]}, {"pressed": 2}, "C-c"),
    ("approve", "agents.list", {"state": "waiting"}, {"agents": [{**AGENT, **ASKING}]}, "git push"),
    ("approve", "agents.list", {"state": "waiting"}, {"agents": []}, "no agent waits"),
    ("approve lead --prompt 0123456789", "agents.approve", {"target": "lead", "prompt": "0123456789"}, APPROVED, "approved lead: git push"),
    ("deny lead --reason no", "agents.deny", {"target": "lead", "reason": "no"}, DENIED, "denied lead"),
    ("notify test", "notify.test", {}, {"hooks": [{"hook": "on_state", "command": ["sh"], "took_ms": 3, "error": None, "output": "hi"}]}, "well"),
    ("notify test", "notify.test", {}, {"hooks": []}, "no hook is set"),
    ("interrupt lead", "agents.interrupt", {"target": "lead"}, {"pressed": 1}, "interrupted"),
    ("stop lead @crew --force", "agents.stop", {"targets": ["lead", "@crew"], "force": True}, {"stopped": [STOPPED], "failed": []}, "2 messages"),
    ("rotate-token lead", "agents.rotate_token", {"target": "lead"}, {"id": "a1", "name": "lead"}, "lead has a new token"),
    ("respawn lead", "agents.respawn", {"target": "lead"}, {"agent": AGENT}, "lead is idle"),
    ("respawn lead --fresh", "agents.respawn", {"target": "lead", "fresh": True}, {"agent": AGENT}, "lead is idle"),
    ("whoami", "agents.whoami", {}, {"role": "operator", "id": None, "name": "operator"}, "operator"),
    ("send lead hi --key k --priority high --ttl 5 --reply-to m0", "messages.send", {"to": "lead", "body": "hi", "key": "k", "priority": "high", "ttl_s": 5, "reply_to": "m0"}, RECEIPT, "m1 to lead: accepted"),
    ("inbox lead --all --limit 5", "messages.inbox", {"target": "lead", "all": True, "limit": 5}, {"messages": [MESSAGE]}, "done"),
    ("inbox", "messages.inbox", {}, {"messages": []}, "no messages"),
    ("msg m1", "messages.get", {"id": "m1"}, MESSAGE, "by operator"),
    ("msg m1 --thread", "messages.thread", {"id": "m1"}, {"messages": [MESSAGE]}, "done"),
    ("loops ls", "loops.list", {}, {"chains": [{"trace": "m1", "messages": 9, "hops": 3, "refused": 2}], "pairs": [{"from": "lead", "to": "aide", "retry_after_ms": 900}]}, "aide"),
    ("loops ls", "loops.list", {}, {"chains": [], "pairs": []}, "no loops"),
    ("loops reset m1 lead", "loops.reset", {"names": ["m1", "lead"]}, {"done": ["m1", "lead"], "failed": []}, "lead: messages flow again"),
    ("loops reset", "loops.reset", {}, {"done": ["all"], "failed": []}, "all: messages flow again"),
    ("inbox --take --lease 5 --limit 2", "messages.take", {"lease_s": 5, "limit": 2}, {"messages": [{**MESSAGE, "lease": "m1#1"}]}, "m1#1"),
    ("inbox --take", "messages.take", {}, {"messages": []}, "no messages to take"),
    ("extend m1#1 m2 --lease 9", "messages.extend", {"ids": ["m1#1", "m2"], "lease_s": 9}, DONE, "held longer"),
    ("ack --all", "messages.ack", {"all": True}, DONE, "acked"),
    ("ack m1", "messages.ack", {"ids": ["m1"]}, DONE, "acked"),
    ("nack m1 --delay 3 --detail busy", "messages.nack", {"ids": ["m1"], "delay_s": 3, "detail": "busy"}, DONE, "given back"),
    ("search done --in messages --to lead --limit 5", "messages.search", {"query": "done", "in": "messages", "target": "lead", "limit": 5}, FOUND, "done"),
    ("search one --in transcripts --to lead", "messages.search", {"query": "one", "in": "transcripts", "target": "lead"}, {"passages": [PASSAGE], "left_out": 0, "indexed_behind": 0}, "lead   3"),
    ("search one --in transcripts", "messages.search", {"query": "one", "in": "transcripts"}, {"passages": [], "left_out": 0, "indexed_behind": 0}, "no passage has one"),
    ("transcript lead --offset 3", "agents.transcript", {"target": "lead", "offset": 3}, PRINTED, "one\ntwo\n"),
    ("transcript lead --lines 2", "agents.transcript", {"target": "lead", "lines": 2}, PRINTED, "two"),
    ("transcript lead --since 2000", "agents.transcript", {"target": "lead", "since": 2000.0}, PRINTED, "two"),
    ("transcript lead --own --offset 5", "agents.own_log", {"target": "lead", "offset": 5}, OWN, "own"),
    ("mailbox reindex --in transcripts", "messages.reindex", {"in": "transcripts"}, {"indexed_behind": 7, "engine": "fts5"}, "7 bytes"),
    ("mailbox stats", "mailbox.stats", {}, {"shards": [SHARD]}, "1.5M"),
    ("mailbox reindex", "messages.reindex", {}, {"indexed_behind": 7, "engine": "fts5"}, "7 messages"),
    ("dead", "messages.dead", {}, {"messages": []}, "no dead letters"),
    ("dead ls lead", "messages.dead", {"target": "lead"}, {"messages": [MESSAGE]}, "m1"),
    ("dead retry m1", "messages.retry", {"ids": ["m1"]}, DONE, "m1"),
    ("dead drop m1", "messages.drop", {"ids": ["m1"]}, DONE, "m1"),
    ("team ls", "teams.list", {}, {"teams": [{"name": "crew", "agents": 2, "live": 1}]}, "crew"),
    ("team ls", "teams.list", {}, {"teams": []}, "team up"),
    ("team show crew", "teams.get", {"team": "crew"}, {"name": "crew", "cwd": "/", "agents": [AGENT]}, "lead"),
    ("team down crew", "teams.down", {"team": "crew"}, {"stopped": [STOPPED], "failed": []}, "1 stopped"),
    ("worktree ls", "worktrees.list", {}, {"worktrees": [WORKTREE]}, "1 changed file"),
    ("worktree clean lead --force", "worktrees.clean", {"targets": ["lead"], "force": True}, {"done": [{"agent": "lead", "path": "/w", "kept": ""}], "failed": []}, "lead: removed"),
    ("pool", "pool.list", {}, {"pools": [POOL]}, "at least 2"),
    ("pool ls", "pool.list", {}, {"pools": []}, "agentd pool set"),
    ("pool set claude 2 --most 4 --cwd /project --trust", "pool.set", {"profile": "claude", "size": 2, "most": 4, "cwd": "/project", "trust": True}, {"pools": [POOL]}, "/project"),
    ("pool set demo 1 --cwd /project --recycle", "pool.set", {"profile": "demo", "size": 1, "cwd": "/project", "recycle": True}, {"pools": [POOL]}, "RECYCLED"),
    ("pool drain claude --cwd /project", "pool.drain", {"profile": "claude", "cwd": "/project"}, {"ended": 2}, "2 ended"),
    ("project", "projects.get", {"cwd": os.getcwd()}, PROJECT, "would run in each fresh worktree: npm ci"),
    ("project show --cwd /p/sub", "projects.get", {"cwd": "/p/sub"}, PROJECT, "not trusted: nothing in it is used"),
    ("project untrust --cwd /p", "projects.untrust", {"cwd": "/p"}, {"file": "/p/agentd.toml", "state": "not trusted"}, "/p/agentd.toml is not trusted"),
    ("project up --cwd /p", "projects.up", {"cwd": "/p"}, {"file": "/p/agentd.toml", "pools": [PROJECT_POOL], "team": "crew", "agents": [AGENT], "failed": []}, "lead"),
    ("profile ls", "profiles.list", {}, {"profiles": [{"name": "sh", "doc": "", "origin": "built-in", "command": ["sh"], "delivery": "type", "version": "3.2", "error": None}]}, "3.2"),
    ("profile ls", "profiles.list", {}, {"profiles": [{"name": "x", "doc": "", "origin": "/x.toml", "command": [], "delivery": "", "version": "", "error": "/x.toml, line 3: bad"}]}, "not taken: /x.toml, line 3: bad"),
    ("profile show sh", "profiles.get", {"name": "sh"}, {"name": "sh", "command": "sh"}, '"command": "sh"'),
    ("events --since 3 --types agent.state", "events.list", {"since": 3, "types": ["agent.state"]}, {"events": [EVENT], "last": 4}, "agent=a1"),
    ("events", "events.list", {}, {"events": [], "last": 0}, "--follow"),
    ("metrics", "daemon.metrics", {}, {"messages_accepted_total": 3}, "messages_accepted_total"),
    ('call agents.list {"state":"idle"}', "agents.list", {"state": "idle"}, {"agents": []}, "agents"),
]  # fmt: skip
LISTS = {
    "ls": "agents",
    "inbox": "messages",
    "dead": "messages",
    "msg": "messages",
    "team ls": "teams",
    "profile ls": "profiles",
    "pool": "pools",
    "worktree ls": "worktrees",
    "approve": "agents",
    "notify test": "hooks",
    "events": "events",
    "search": "messages",
}


class Asked(list):
    """Answers a call and keeps its parameters; a coroutine where the door expects one."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def __call__(self, params):
        self.append(params)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def answers(served, method, answer):
    asked = Asked(answer)
    setattr(served.answers, method.replace(".", "_"), asked)
    return asked


@pytest.mark.parametrize(("line", "method", "params", "answer", "shown"), CASES, ids=[case[0] for case in CASES])
def test_what_is_asked_and_shown(line, method, params, answer, shown, agentd, served):
    asked = answers(served, method, answer)
    argv = line.split()
    ran = agentd(*argv)
    assert (ran.code, ran.err) == (0, "")
    assert shown in ran.out
    given = msgspec.to_builtins(asked[0])
    assert {key: value for key, value in given.items() if value != default_of(asked[0], key) or key in params} == params

    ran = agentd(*argv, "--json")
    assert (ran.code, ran.err) == (0, "")
    values = [json.loads(text) for text in ran.out.splitlines()]
    key = next(
        (
            key
            for start, key in LISTS.items()
            if line.startswith(start)
            and method.endswith(("list", "inbox", "dead", "search", "take", "thread", "test", "pool.set"))
        ),
        None,
    )
    if line.startswith("events"):
        assert values == answer["events"]
    elif line.startswith("attach"):
        assert values == [{"id": "a1", "name": "lead", "attach": ["true"]}]
    elif "transcripts" in line and method.endswith("search"):
        assert values == [answer["passages"]]
    elif key:
        assert values == [answer[key]]
    else:
        assert values == [answer]


def default_of(params, name):
    field = next(field for field in msgspec.structs.fields(params) if field.encode_name == name)
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def test_every_command_that_asks_is_tried():
    tried = {line.split()[0] for line, *_ in CASES}
    alone = {
        "up",
        "down",
        "restart",
        "spawn",
        "doctor",
        "config",
        "completion",
        "schema",
        "demo",
        "mcp",
        "version",
        "hook",
        "__complete",
        "repl",
        "man",
        "top",
    }
    assert tried | alone == {words.split()[0] for words in COMMANDS}


def test_spawn_starts_here_and_waits_for_each(agentd, served, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    spawned = answers(served, "agents.spawn", {"agents": [{**AGENT, "state": "starting"}], "failed": []})

    async def wait(params):
        waited.append(params)
        return {"agent": AGENT}

    waited: list = []
    served.answers.agents_wait = wait
    ran = agentd(
        "spawn",
        "shell",
        "-n2",
        "--cwd",
        "sub",
        "--env",
        "A=b=c",
        "--prompt",
        "go",
        "--wait",
        "idle",
        "--timeout",
        "5",
        "--json",
    )
    assert ran.code == 0
    assert json.loads(ran.out)["agents"][0]["state"] == "idle"
    (params,) = spawned
    assert (params.n, params.cwd, params.env, params.prompt) == (2, str(tmp_path / "sub"), {"A": "b=c"}, "go")
    assert (waited[0].target, waited[0].until) == ("a1", "idle")
    assert 0 < waited[0].timeout_s <= 5
    agentd("spawn", "shell")
    assert spawned[-1].cwd == str(tmp_path)


def test_some_refused_is_exit_4_and_each_is_named(agentd, served):
    answers(served, "agents.spawn", {"agents": [AGENT], "failed": [{"name": "w-2", "error": ERROR}]})
    answers(served, "agents.stop", {"stopped": [], "failed": [{"target": "x", "error": ERROR}]})
    answers(served, "messages.ack", {"done": [], "failed": [{"id": "m9", "error": ERROR}]})
    for argv, name in ((("spawn", "shell"), "w-2"), (("stop", "x"), "x"), (("ack", "m9"), "m9")):
        ran = agentd(*argv)
        assert ran.code == 4
        assert ran.err == f"agentd: {name}: no such thing\n"


@pytest.mark.parametrize(
    ("error", "code"), [(UnknownTarget("no agent x", hint="agentd ls"), 5), (DeadlineExceeded("too late"), 6)]
)
def test_the_daemons_errors_have_their_exit_codes(error, code, agentd, served):
    answers(served, "agents.get", error)
    ran = agentd("show", "x", "--json")
    assert (ran.code, json.loads(ran.out)["error"]["code"]) == (code, error.code)
    assert ran.err.startswith(f"agentd: {error.message}")


def waits(served, outcomes):
    async def wait(params):
        asked.append(params)
        outcome = outcomes[params.id]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    asked: list = []
    served.answers.messages_wait = wait
    return asked


def test_send_waits_for_each_recipient_and_prints_the_reply(agentd, served):
    parts = [{**RECEIPT, "id": "m1"}, {**RECEIPT, "id": "m2", "to": "w"}]
    answers(served, "messages.send", {**RECEIPT, "receipts": parts})
    reply = {"message": {**MESSAGE, "state": "acked"}, "reply": {**MESSAGE, "body": "yes"}}
    asked = waits(served, {"m1": reply, "m2": reply})
    ran = agentd("send", "@crew", "hi", "--wait", "reply", "--timeout", "5")
    assert (ran.code, ran.out.count("yes"), ran.out.count("acked")) == (0, 2, 2)
    assert [params.until for params in asked] == ["reply", "reply"]
    told = json.loads(agentd("send", "@crew", "hi", "--wait", "reply", "--json").out)
    assert [part["reply"]["body"] for part in told["receipts"]] == ["yes", "yes"]


def test_a_wait_that_times_out_still_prints_the_receipt(agentd, served):
    answers(served, "messages.send", RECEIPT)
    waits(served, {"m1": DeadlineExceeded("m1 was not acked in 1 s", hint="agentd msg m1")})
    ran = agentd("send", "lead", "hi", "--wait", "acked", "--timeout", "1")
    assert (ran.code, ran.out) == (6, "m1 to lead: accepted\n")
    assert ran.err == "agentd: m1 was not acked in 1 s; agentd msg m1\n"
    ran = agentd("send", "lead", "hi", "--wait", "acked", "--timeout", "1", "--json")
    assert ran.code == 6
    told = json.loads(ran.out)
    assert (told["id"], told["error"]["code"]) == ("m1", "deadline")


def test_send_reads_stdin(agentd, served, tmp_path, monkeypatch):
    sent = answers(served, "messages.send", RECEIPT)
    for data, argv in ((b"two\nlines\n", ("send", "lead", "-")), ("é".encode(), ("send", "lead"))):
        (tmp_path / "in").write_bytes(data)
        with (tmp_path / "in").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert agentd(*argv).code == 0
    assert [params.body for params in sent] == ["two\nlines", "é"]
    for data, code in ((b"", 2), (b" \n", 2), (b"\xff", 2), (b"x" * 1_000_001, 7)):
        (tmp_path / "in").write_bytes(data)
        with (tmp_path / "in").open() as stdin:
            monkeypatch.setattr("sys.stdin", stdin)
            assert agentd("send", "lead", "-").code == code
    assert len(sent) == 2


def test_following(agentd, served):
    async def events(params):
        asked.append(params)
        yield EVENT
        yield {**EVENT, "id": 5}

    async def printed(params):
        asked.append(params)
        parts = (b"one\ntwo\nthree\n", b"\x1b]0;x\x07four\r\n")
        for part in parts:
            yield {"data": b2a_base64(part, newline=False).decode()} if params.raw else {"text": part.decode()}

    asked: list = []
    served.answers.events_follow = events
    served.answers.agents_follow = printed
    ran = agentd("events", "--follow", "--since", "3", "--types", "agent.*,message.dead", "--json")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [4, 5]
    assert (asked[0].since, asked[0].types) == (3, ["agent.*", "message.dead"])
    assert agentd("read", "lead", "--follow", "--lines", "2").out == "two\nthree\n␛]0;x␇four\n"
    assert agentd("read", "lead", "--follow", "--raw").out.endswith("\x1b]0;x\x07four\r\n")
    assert agentd("read", "lead", "--follow", "--raw", "--lines", "2").out.startswith("two\nthree\n")
    assert len(agentd("call", "agents.follow", '{"target": "lead"}').out.splitlines()) == 2


TEAM = """
[team]
name = "crew"
[[agents]]
name = "lead"
profile = "demo"
"""


def test_team_up_sends_the_file_as_data(agentd, served, tmp_path):
    row = {**AGENT, "started": True}
    asked = answers(served, "teams.up", {"team": "crew", "agents": [row], "failed": [{"name": "w", "error": ERROR}]})
    (tmp_path / "t.toml").write_text(TEAM)
    ran = agentd("team", "up", str(tmp_path / "t.toml"))
    assert (ran.code, ran.err) == (4, "agentd: w: no such thing\n")
    assert "1 started, 0 were running" in ran.out
    assert asked[0].team == {"name": "crew"}
    assert asked[0].agents == [{"name": "lead", "profile": "demo"}]
    assert asked[0].cwd == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "[team]"),
        ("[team", "not TOML"),
        ("\xff", "not TOML"),
        ("[team]\nname = 1\n", "[team] with a `name`"),
        ("[team]\nname = 'x'\n", "[[agents]] is missing"),
        ("agents = 3\n[team]\nname = 'x'\n", "[[agents]] is missing"),
        (TEAM + "[tasks]\n", "`tasks` is unknown"),
        (TEAM + "[[agents]]\nname = 'w'\n", "number 2: `profile`"),
    ],
)
def test_a_bad_team_file_is_one_sentence_with_the_place(text, says, agentd, tmp_path):
    (tmp_path / "t.toml").write_text(text, encoding="latin-1")
    ran = agentd("team", "up", str(tmp_path / "t.toml"))
    assert ran.code == 2
    assert says in ran.err
    assert ran.err.count("\n") == 1
    assert agentd("team", "up", str(tmp_path / "none.toml")).code == 5


@pytest.mark.parametrize("argv", [("call", "x", "[1]"), ("call", "x", "{"), ("call", "x", "[" * 100_000)])
def test_parameters_that_are_no_object(argv, agentd):
    ran = agentd(*argv)
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_a_transcript_is_read_part_by_part_and_followed(agentd, served):
    def part(text, offset, next_, end):
        return {**PRINTED, "text": text, "offset": offset, "next": next_, "end": end}

    def transcript(params):
        asked.append(params.offset)
        return {None: part("one\n", 0, 4, 8), 4: part("two\n", 4, 8, 12)}[params.offset]

    async def follow(params):
        asked.append(params.offset)
        yield part("three", 8, 13, 13)

    asked: list = []
    served.answers.agents_transcript = transcript
    served.answers.agents_follow = follow
    assert agentd("transcript", "lead").out == "one\ntwo\n"
    assert asked == [None, 4], "no more than there was at first"
    assert agentd("transcript", "lead", "--follow").out == "one\ntwo\nthree\n"
    assert asked[2:] == [None, 4, 8]
    assert len(agentd("transcript", "lead", "--follow", "--json").out.splitlines()) == 3


def test_the_bytes_of_a_transcript(agentd, served):
    data = "".join(map(chr, range(32)))
    answers(served, "agents.transcript", {**PRINTED, "data": b2a_base64(data.encode(), newline=False).decode()})
    assert agentd("transcript", "lead", "--raw").out == data


@pytest.mark.parametrize(
    "words", ["--since 1h --offset 2", "--offset 2 --lines 3", "--own --follow", "--own --since 1h"]
)
def test_beginnings_that_contradict_each_other(words, agentd, served):
    ran = agentd("transcript", "lead", *words.split())
    assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)
