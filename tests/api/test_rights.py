"""R03, P16: every call of the table by every kind of caller: the allowed set is the `agent_may` column exactly."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from instance import Instance, instance
from knocking import HELLO, Knocker

from agentd.client import Client
from agentd.errors import WIRE_CODES, AgentdError
from agentd.wire import CALL
from agentd.wire.calls import CALLS
from agentd.wire.frames import encode

# What each call needs at least. A new call without a row here fails the first test: whoever adds it says who may.
NOBODY = {"target": "nobody"}
IDS = {"ids": ["m000000000"]}
LEAST: dict[str, dict[str, Any]] = {
    **{f"daemon.{verb}": {} for verb in ("status", "shutdown", "metrics")},
    **{
        f"{noun}.list": {}
        for noun in ("agents", "sessions", "teams", "pool", "worktrees", "profiles", "events", "loops")
    },
    **{name: {} for name in ("config.show", "schema", "agents.whoami", "agents.starting", "events.follow")},
    **{f"messages.{verb}": {} for verb in ("inbox", "take", "dead", "follow")},
    **{f"messages.{verb}": IDS for verb in ("ack", "nack", "extend", "retry", "drop")},
    **{
        f"agents.{verb}": NOBODY
        for verb in ("get", "explain", "respawn", "interrupt", "capture", "answer", "follow", "transcript", "own_log")
    },
    **{f"agents.{verb}": NOBODY for verb in ("approve", "deny", "rotate_token")},
    "notify.test": {},
    **{f"teams.{verb}": {"team": "nobody"} for verb in ("get", "down")},
    "agents.report": {},
    "messages.confirm": {"ids": ["m000000000#1"]},
    "agents.spawn": {"profile": "nothing"},
    "agents.stop": {"targets": ["nobody"]},
    "agents.keys": {"target": "nobody", "keys": ["Enter"]},
    "agents.wait": {"target": "nobody", "until": "idle", "timeout_s": 0.1},
    "messages.send": {"to": "nobody", "body": "x"},
    "messages.send_batch": {"messages": []},
    "messages.get": {"id": "m000000000"},
    "messages.thread": {"id": "m000000000"},
    "messages.wait": {"id": "m000000000", "until": "acked", "timeout_s": 0.1},
    "messages.done": {},
    "messages.search": {"query": "word"},
    "messages.reindex": {},
    "loops.reset": {},
    "mailbox.stats": {},
    "mailbox.export": {},
    "mailbox.import": {"messages": []},
    **{f"mailbox.{verb}": {"shard": 0} for verb in ("verify", "compact")},
    "sessions.get": {"session": "nobody"},
    "teams.up": {"team": {"name": "t"}, "agents": [{"name": "a", "profile": "nothing"}], "cwd": "/"},
    "pool.set": {"profile": "nothing", "size": 0},
    "worktrees.clean": {},
    **{f"projects.{verb}": {"cwd": "/"} for verb in ("get", "untrust", "up")},
    "projects.trust": {"cwd": "/", "digest": "0" * 64},
    "pool.drain": {"profile": "nothing"},
    "profiles.get": {"name": "nothing"},
}
UNKNOWN_FIELD = {"no-such-field": 1}  # the right is looked at before the parameters
ODD = [
    None,
    True,
    0,
    -1,
    1 << 62,
    (1 << 64) - 1,
    -(1 << 63),
    1e308,
    float("nan"),
    float("inf"),
    float("-inf"),
    "",
    "\n",
    "\x00",
    "../../x",
    "%",
    "@",
    "@/",
    "x" * 5000,
    b"x",
    [],
    [[]],
    {},
    {"a": []},
]
ODD += [["m1"] * 3, [""], ["../x"], {"": ""}, "@" * 100, "m" * 32, "\ud7ff\ufffe", "#(true)"]


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        pid = one.pid()
        yield one
        assert one.json("status")["pid"] == pid
        log = [json.loads(line) for line in (one.directory / "agentd.log").read_text().splitlines()]
        assert not [line for line in log if line["level"] in ("error", "critical")]


@pytest.fixture(scope="module")
def token(whole: Instance) -> str:
    agent = whole.spawn(name="ann")
    return (whole.directory / "agents" / agent["id"] / "token").read_text().strip()


@pytest.fixture(scope="module", params=["operator", "agent"])
def caller(whole: Instance, token: str, request: pytest.FixtureRequest) -> Iterator[tuple[str, Client]]:
    with whole.client(token=token if request.param == "agent" else None) as client:
        assert client.call("agents.whoami")["role"] == request.param
        yield request.param, client


def code_of(client: Client, method: str, params: Any) -> str:
    """Make a call, or begin a stream; return its error's code, or nothing."""
    try:
        if CALLS[method].stream:
            next(client.stream(method, params, credit=1, timeout_s=0.05), None)
        else:
            client.call(method, params, timeout_s=5.0)
    except AgentdError as error:
        return error.code if error.code in WIRE_CODES and "\n" not in error.message else f"odd: {error!r}"
    return ""


FINE = {"", *WIRE_CODES} - {"internal", "unavailable"}


def test_every_call_has_a_row_here():
    assert set(LEAST) == set(CALLS)


@pytest.mark.parametrize("method", CALLS)
def test_who_may_is_what_the_table_says(caller: tuple[str, Client], method: str):
    """Denied before the parameters are looked at, so that a refusal tells nothing of what is there."""
    role, client = caller
    may = role == "operator" or CALLS[method].agent_may
    assert (code_of(client, method, UNKNOWN_FIELD) == "denied") is not may
    if CALLS[method].stream:
        return
    if not may:
        assert code_of(client, method, LEAST[method]) == "denied"
    elif method != "daemon.shutdown":
        assert code_of(client, method, LEAST[method]) in {"", "unknown_target", "not_found", "deadline"}


@pytest.mark.parametrize("method", CALLS)
def test_no_parameters_make_the_daemon_fail(caller: tuple[str, Client], method: str):
    """P16: whatever is given, the answer is one of the wire's codes and never `internal`."""
    role, client = caller
    chosen = random.Random(f"{role} {method}")
    fields = CALLS[method].params.__struct_fields__
    tries = [{**LEAST[method], field: odd} for field in fields for odd in ODD]
    tries += [{field: chosen.choice(ODD) for field in fields if chosen.random() < 0.7} for _ in range(20)]
    if method == "daemon.shutdown":
        tries = [params for params in tries if params.get("agents") not in ("keep", "stop") and params]
    for params in tries:
        assert code_of(client, method, params) in FINE, params


AROUND = [
    *({"deadline_ms": odd} for odd in ODD if odd),
    *({"credit": odd} for odd in ODD),
    *({"key": odd} for odd in ODD),
    *(odd for odd in ODD if isinstance(odd, dict)),
]
INDIRECT = ["rpc.batch", "mcp.tools", "mcp.call"]


@pytest.mark.parametrize("role", ["operator", "agent"])
def test_nothing_around_the_parameters_makes_the_daemon_fail(whole: Instance, token: str, role: str):
    """P16: odd options, odd things in the place of parameters, and odd calls inside others."""
    hello = encode([0, {"v": [1], "token": token}]) if role == "agent" else HELLO
    inside = [[[method, odd]] for method in CALLS for odd in ODD[:3]] + [[odd] for odd in ODD]
    calls = [["agents.whoami", {}, options] for options in AROUND]
    calls += [[method, odd, {}] for method in ["agents.whoami", "agents.follow", "\n", *INDIRECT] for odd in ODD]
    calls += [["rpc.batch", batch, {}] for batch in inside]
    calls += [["mcp.call", {"name": odd, "arguments": again}, {}] for odd in ODD for again in ODD]
    calls += [["mcp.call", {"name": "send", "arguments": odd, "key": odd}, {}] for odd in ODD]
    with Knocker(whole, hello) as knocker:
        knocker.read()
        for number, call in enumerate(calls, 1):
            knocker.say(encode([CALL, number, *call]))
            kind, id_, answer, *_ = knocker.read()
            assert (kind, id_) == (2, number) or (kind == 3 and id_ == number and answer in FINE), (call, answer)
            assert "internal" not in repr(answer), (call, answer)
