"""Identity from inside a real pane: whatever a program claims, it speaks as its agent or not at all (M01, R03)."""

from __future__ import annotations

import itertools
import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from instance import Instance, instance, wait_until

from agentd.errors import EXIT_NOT_ALLOWED, EXIT_OK, EXIT_USAGE, AgentdError, Unauthenticated

AGENTD = f"{sys.executable} -m agentd"
numbers = itertools.count()


class Ran(NamedTuple):
    """How a command inside a pane ended."""

    code: int
    out: str
    err: str


class Pane:
    """A shell agent, and commands that run inside its pane."""

    def __init__(self, whole: Instance, name: str) -> None:
        self.whole = whole
        self.agent: dict[str, Any] = whole.spawn("shell", name=name)
        self.token = whole.directory / "agents" / self.agent["id"] / "token"

    def run(self, script: str) -> Ran:
        """Run a script of sh there; return how it ended."""
        base = self.whole.directory / f"run-{next(numbers)}"
        base.write_text(script + "\n")
        with self.whole.client() as client:
            line = f"sh {base} > {base}.out 2> {base}.err < /dev/null; echo $? > {base}.code"
            client.call("messages.send", {"to": self.agent["id"], "body": line})
        code = wait_until(lambda: read(base, "code").strip(), f"{script!r} to end")
        ran = Ran(int(code), read(base, "out"), read(base, "err"))
        assert "Traceback" not in ran.err, ran.err
        return ran


def read(base: Path, suffix: str) -> str:
    path = Path(f"{base}.{suffix}")
    return path.read_text() if path.exists() else ""


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        yield one


@pytest.fixture(scope="module")
def ann(whole: Instance) -> Pane:
    return Pane(whole, "ann")


@pytest.fixture(scope="module")
def bob(whole: Instance) -> Pane:
    return Pane(whole, "bob")


def senders(whole: Instance, body: str) -> list[str]:
    """Return who the operator's messages with this body are from."""
    with whole.client() as client:
        messages = client.call("messages.inbox", {"all": True, "limit": 10_000})["messages"]
    return [message["from"] for message in messages if message["body"] == body]


RAW = """
import os, sys
from agentd.client import connect
from agentd.errors import AgentdError
environ = {name: os.environ[name] for name in ("AGENTD_SOCKET", "AGENTD_TOKEN_FILE") if name in os.environ}
try:
    with connect(environ=environ, autostart=False) as client:
        print(CALL)
except AgentdError as error:
    sys.exit(error.exit_code)
"""
# Leaves the pane for good: no ancestor in it, no terminal of it; then becomes what it is given.
ESCAPE = """
import os, sys, time
if os.fork():
    os.wait()
    end = time.monotonic() + 20
    while not os.path.exists(sys.argv[1]) and time.monotonic() < end:
        time.sleep(0.02)
    sys.exit(int(open(sys.argv[1]).read()))
os.setsid()
before = os.getpid()
if os.fork():
    os._exit(0)
while os.getppid() == before:
    time.sleep(0.01)
import subprocess
code = subprocess.run(sys.argv[2:]).returncode
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(code))
os.rename(sys.argv[1] + ".new", sys.argv[1])
"""


def raw(call: str) -> str:
    return f"{sys.executable} -c {shlex.quote(RAW.replace('CALL', call))}"


WAYS_IN = {
    "with the token": f"{AGENTD} send operator BODY",
    "without the token": f"env -u AGENTD_TOKEN_FILE {AGENTD} send operator BODY",
    "with an empty token": f"AGENTD_TOKEN_FILE= {AGENTD} send operator BODY",
    "with nothing but the socket": f'env -i AGENTD_SOCKET="$AGENTD_SOCKET" {AGENTD} send operator BODY',
    "as somebody else by name": f"AGENTD_AGENT=bob AGENTD_AGENT_ID=$BOB {AGENTD} send operator BODY",
    "without the terminal": f"setsid {AGENTD} send operator BODY",
    "in the background": f"(env -u AGENTD_TOKEN_FILE {AGENTD} send operator BODY & wait $!)",
    "by a batch": f"""echo '{{"to": "operator", "body": "BODY"}}' | {AGENTD} send --batch -""",
    "with a header": raw(
        "client.call('messages.send', {'to': 'operator', 'body': 'BODY', 'headers': {'from': 'bob', 'sender': 'bob'}})"
    ),
    "by a call": f"""{AGENTD} call messages.send '{{"to": "operator", "body": "BODY"}}'""",
}


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
def test_a_message_from_a_pane_is_its_agents(whole: Instance, ann: Pane, bob: Pane, way: str):
    body = f"body-{next(numbers)}"
    ran = ann.run(way.replace("BODY", body).replace("$BOB", bob.agent["id"]))
    assert ran.code == EXIT_OK, ran.err
    assert senders(whole, body) == ["ann"]


REFUSED = {
    "the token of another agent": f"cp $BOBS copy; AGENTD_TOKEN_FILE=copy {AGENTD} send operator BODY",
    "the token file of another agent": f"AGENTD_TOKEN_FILE=$BOBS {AGENTD} send operator BODY",
    "an invented token": f"echo 0123456789abcdef > made; AGENTD_TOKEN_FILE=made {AGENTD} send operator BODY",
    "a token that is none": f"printf '\\000\\377' > odd; AGENTD_TOKEN_FILE=odd {AGENTD} send operator BODY",
    "no token file where one is named": f"AGENTD_TOKEN_FILE=/nowhere {AGENTD} send operator BODY",
}


@pytest.mark.parametrize("way", REFUSED.values(), ids=REFUSED)
def test_a_false_token_is_refused(whole: Instance, ann: Pane, bob: Pane, way: str):
    body = f"body-{next(numbers)}"
    ran = ann.run(f"cd {whole.directory}; " + way.replace("BODY", body).replace("$BOBS", str(bob.token)))
    assert ran.code == EXIT_NOT_ALLOWED, ran
    assert ran.err.startswith("agentd: ")
    assert senders(whole, body) == []


@pytest.mark.parametrize("field", ["from", "sender", "from_id", "agent_id", "id", "state"])
def test_a_claimed_sender_is_refused(whole: Instance, ann: Pane, field: str):
    body = f"body-{next(numbers)}"
    one = {"to": "operator", "body": body, field: "operator"}
    assert ann.run(raw(f"client.call('messages.send', {one!r})")).code == EXIT_USAGE
    many = ann.run(raw(f"client.call('messages.send_batch', {{'messages': [{one!r}]}})"))
    assert "'code': 'invalid'" in many.out
    assert senders(whole, body) == []


OPERATORS = [
    "spawn shell",
    "stop bob",
    "keys bob Enter",
    "interrupt bob",
    "read bob",
    "respawn bob",
    "dead",
    "dead retry m123",
    "dead drop m123",
    "events",
    "metrics",
    "team down x",
    "loops ls",
    "loops reset",
    "inbox bob",
    "inbox operator",
    "up",
    "restart",
    "down",
    "down --agents stop",
]


def test_an_agent_may_not_do_what_the_operator_may(whole: Instance, ann: Pane, bob: Pane):
    """Every refusal is one sentence and exit 7, with the token and without; nothing happened."""
    before = whole.pid()
    for token in ("", "env -u AGENTD_TOKEN_FILE "):
        lines = [f"{token}{AGENTD} {words} >/dev/null 2>err; echo $? $(wc -l < err)" for words in OPERATORS]
        codes = ann.run(f"cd {whole.directory}\n" + "\n".join(lines)).out.split("\n")
        told = dict(zip(OPERATORS, codes, strict=False))
        if token:  # without it the client does not know where it is: these find the daemon running
            assert told.pop("up").split()[0] in ("0", "7")
            assert told.pop("restart").split()[0] in ("3", "7")
        assert {words: code for words, code in told.items() if code != "7 1"} == {}
    assert whole.pid() == before
    assert whole.json("show", "bob")["pid"] == bob.agent["pid"]


def test_an_agent_reads_and_acknowledges_its_own_messages_only(whole: Instance, ann: Pane, bob: Pane):
    with whole.client() as client:
        other = client.call("messages.send", {"to": "bob", "body": ": secret"})["id"]
    assert ann.run(f"{AGENTD} msg {other}").code == 5
    acked = ann.run(f"{AGENTD} ack {other}")
    assert acked.code == 4, acked
    assert "secret" not in acked.out + acked.err
    assert whole.json("msg", other)["state"] != "acked"


def test_whoami_says_whose_pane_it_is(ann: Pane):
    for prefix in ("", "env -u AGENTD_TOKEN_FILE "):
        who = json.loads(ann.run(f"{prefix}{AGENTD} whoami --json").out)
        assert (who["role"], who["name"], who["id"]) == ("agent", "ann", ann.agent["id"])
    assert ann.whole.json("whoami")["role"] == "operator"


def escaped(whole: Instance, command: str) -> str:
    script = whole.directory / "escape.py"
    script.write_text(ESCAPE)
    done = whole.directory / f"escaped-{next(numbers)}"
    return f"{sys.executable} {script} {done} {command}"


def test_a_program_that_left_the_pane_does_not_become_the_operator(whole: Instance, ann: Pane):
    with_token = ann.run(escaped(whole, f"{AGENTD} whoami --json"))
    assert json.loads(with_token.out)["name"] == "ann"
    without = ann.run(escaped(whole, f"env -u AGENTD_TOKEN_FILE {AGENTD} whoami --json"))
    assert without.code == EXIT_NOT_ALLOWED, without
    assert "left its pane" in without.err
    below = ann.run(escaped(whole, f'env -i AGENTD_SOCKET="$AGENTD_SOCKET" {AGENTD} whoami --json'))
    assert below.code == EXIT_NOT_ALLOWED, below  # the program above it still has its environment
    # The limit that docs/architecture.md names, and the proof that the others did leave the pane.
    wiped = ann.run(f'env -i AGENTD_SOCKET="$AGENTD_SOCKET" {escaped(whole, f"{AGENTD} whoami --json")}')
    assert json.loads(wiped.out)["role"] == "operator"


def test_the_token_of_an_ended_agent_is_worth_nothing(whole: Instance):
    gone = Pane(whole, "gone")
    token = gone.token.read_text().strip()
    with whole.client(token=token) as client:
        assert client.call("agents.whoami")["name"] == "gone"
    whole.cli("stop", "gone")
    with pytest.raises(Unauthenticated), whole.client(token=token) as client:
        client.call("agents.whoami")
    whole.cli("respawn", "gone")
    with pytest.raises(AgentdError), whole.client(token=token) as client:
        client.call("agents.whoami")
    again = gone.token.read_text().strip()
    assert again != token
    with whole.client(token=again) as client:
        assert client.call("agents.whoami")["name"] == "gone"
