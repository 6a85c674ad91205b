"""Rows of the door with a real daemon: who is who, slow readers, dying clients, descriptors, floods (R02, R09-R15)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fault_rows import row
from faults import SEED, form, say, seeded
from instance import Instance, instance, wait_until
from knocking import HELLO, PYTHON, Knocker, cpu_s, descriptors, knockers, many_files, metrics, threads
from serving import in_thread
from test_load import rss

from agentd.errors import AgentdError
from agentd.wire.frames import CALL, FrameReader, encode

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Instance:
    """Give the instance that most of these tests share, with a daemon that runs and nothing else."""
    shared.tidy()
    return shared


# -- R02: a user namespace

SOMEBODY = ["unshare", "--user", "--map-user=4242"]
HIDDEN = [*SOMEBODY, "--pid", "--fork"]

# Writes what it is given, reads so many frames, and prints who it believes to be and what it read.
ASK = """
import os, socket, sys
path, words, wanted = sys.argv[1], bytes.fromhex(sys.argv[2]), int(sys.argv[3])
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(20)
peer.connect(path)
peer.sendall(words)
said = rest = b""
while wanted and (chunk := peer.recv(65536)):
    said, rest = said + chunk, rest + chunk
    while wanted and len(rest) >= 4 and len(rest) >= 4 + (size := int.from_bytes(rest[:4], "big")):
        rest, wanted = rest[4 + size:], wanted - 1
print(os.getuid(), said.hex())
"""


def may(*words: str) -> bool:
    """Tell whether this system lets us have namespaces of our own."""
    if not shutil.which(words[0]):
        return False
    return subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0


def asking(whole: Instance, token: str = "") -> list[str]:
    """Return the words of a program that says hello, asks who it is, and makes a call that is written down."""
    (script := whole.directory / "ask.py").write_text(ASK)
    hello = encode([0, {"v": [1], "token": token}]) if token else HELLO
    calls = [encode([CALL, 1, "agents.whoami", {}]), encode([CALL, 2, "notify.test", {}])]
    return [*PYTHON, str(script), str(whole.directory / "agentd.sock"), b"".join([hello, *calls]).hex(), "3"]


def heard(text: str) -> tuple[int, list[Any]]:
    """Return who the program believed to be and what it was told behind its greeting, or instead of that."""
    uid, data = text.split()
    frames = FrameReader().feed(bytes.fromhex(data))
    return int(uid), frames[1:] or frames


def asked_from(whole: Instance, namespace: list[str], token: str = "") -> tuple[int, list[Any]]:
    done = subprocess.run([*namespace, *asking(whole, token)], capture_output=True, text=True, timeout=30, check=True)
    return heard(done.stdout)


@pytest.mark.skipif(not may(*SOMEBODY), reason="this system has no user namespaces for us")
def test_who_is_somebody_else_in_a_namespace_is_its_own_uid(whole: Instance):
    """R02: the kernel says who it is; it is an agent with that agent's token alone, and else the user's program."""
    agent = whole.spawn("sh", name="ann")
    token = (whole.directory / "agents" / agent["id"] / "token").read_text().strip()
    uid, (me, _) = asked_from(whole, SOMEBODY)
    assert (uid, me[2]["role"]) == (4242, "operator")
    line = json.loads((whole.directory / "access.jsonl").read_text().splitlines()[-1])
    assert (line["method"], line["uid"]) == ("notify.test", os.getuid())
    _, (me, test) = asked_from(whole, SOMEBODY, token)
    assert (me[2]["role"], me[2]["id"], test[2]) == ("agent", agent["id"], "denied")
    _, told = asked_from(whole, SOMEBODY, "0123456789abcdef")
    assert [frame[:3] for frame in told] == [[3, 0, "unauthenticated"]]
    row("R02", 0, ways=3)


@pytest.mark.skipif(not may(*HIDDEN), reason="this system has no namespaces for us")
def test_who_hides_its_processes_in_a_namespace_is_found_nevertheless(whole: Instance):
    """R02: in a pane, with user and process ids of its own and without a token, it is still that pane's agent."""
    agent, out = whole.spawn("sh", name="ann"), whole.directory / f"out-{time.time_ns()}"
    (line := whole.directory / "line").write_text(f"env -i PATH=$PATH {' '.join([*HIDDEN, *asking(whole)])} >{out}\n")
    whole.send("ann", f"sh {line}; mv {out} {out}.done")
    done = Path(f"{out}.done")
    _, (me, test) = heard(wait_until(lambda: done.exists() and done.read_text(), "the program in the pane to end"))
    assert (me[2]["role"], me[2]["id"], test[2]) == ("agent", agent["id"], "denied")


# -- R14: no descriptors left

FILES = 128
CROWD = 300
CPU_SHARE = 0.2
WATCHED_S = form(2.0, 15.0)
BACK_S = 2.0


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("prlimit"), reason="needs prlimit")
@pytest.mark.parametrize("first_words", form(["HELLO"], ["HELLO", "none"]))
def test_more_clients_than_descriptors_cost_little_and_nothing_lasting(idle_instance: Instance, first_words: str):
    """R14: the daemon lives, sleeps, and serves who comes when they are gone; who is in is served all along."""
    up = ["prlimit", f"--nofile={FILES}", sys.executable, "-m", "agentd", "up"]
    subprocess.run(up, env=idle_instance.environ, capture_output=True, timeout=60, check=True)
    pid, before = idle_instance.pid(), descriptors(idle_instance.pid())
    with Knocker(idle_instance) as inside, many_files():
        inside.read()
        used_s, began_s, calls = cpu_s(pid), time.monotonic(), 0
        with knockers(idle_instance, CROWD, HELLO if first_words == "HELLO" else b""):
            while time.monotonic() - began_s < WATCHED_S:
                inside.asked_ms(calls := calls + 1)
                time.sleep(0.05)  # not a wait for anything: a client of an ordinary pace
            share = (cpu_s(pid) - used_s) / WATCHED_S
        back_s = answered_after_s(idle_instance)
    wait_until(lambda: descriptors(pid) <= before + 5, "the descriptors to be given back", 5)
    assert idle_instance.pid() == pid
    assert share < CPU_SHARE
    assert back_s <= BACK_S
    logs = [idle_instance.directory / name for name in ("agentd.log", "agentd.out")]
    written = sum(path.stat().st_size for path in logs if path.exists())
    assert written < 1000 * CROWD, "the log of a crowd is a line each"
    say(f"{CROWD} clients, {FILES} descriptors: CPU {share:.1%}, back after {back_s:.2f} s, {written} bytes of log")
    row("R14", 0, clients=CROWD, cpu_share=round(share, 3), back_s=round(back_s, 2), first_words=first_words)


def answered_after_s(whole: Instance) -> float:
    """Return how long it takes until a message is taken again."""
    began_s = time.monotonic()
    while True:
        try:
            whole.send("operator", "still there?")
        except AgentdError:
            assert time.monotonic() - began_s < 5 * BACK_S
        else:
            return time.monotonic() - began_s


# -- R12: who stops reading

EVENTS = form(6000, 50_000)
BEFORE = form(1000, 10_000)  # so many are kept in memory, whoever reads; the short form fills that meanwhile
GROWTH_MB = form(12.0, 4.2)  # the row's 4 MiB; what is sent to the one that stopped would be 30 or more
AT_ONCE = 500
STREAMS = 60  # of one connection, which fill its output at once


@pytest.mark.slow
@pytest.mark.parametrize("limit", form(["size"], ["size", "time"]))
def test_a_subscriber_that_stops_reading_costs_no_memory_and_only_itself(idle_instance: Instance, limit: str):
    """R12: it is cut when too much waits or for too long; one without credit waits for nothing and is held."""
    idle_instance.up(*(["rpc.max_output_bytes=262144"] if limit == "size" else []))
    pid = idle_instance.pid()
    happen(idle_instance, BEFORE)
    with Knocker(idle_instance) as stopped, Knocker(idle_instance) as held, Knocker(idle_instance) as reading:
        for knocker in (stopped, held, reading):
            knocker.read()
        wait_until(lambda: metrics(idle_instance)["rpc_connections"] == 4, "nobody else to be there")
        before_mb = rss(pid)
        for stream in range(1, STREAMS + 1 if limit == "size" else 2):
            stopped.call(stream, "events.follow", credit=10_000_000)
        held.call(1, "events.follow", credit=10)
        reading.call(1, "events.follow", credit=10_000_000)
        with in_thread(partial(happen, idle_instance, EVENTS)):
            seen, most_mb = [], before_mb
            while len(seen) < EVENTS:
                seen += [reading.read() for _ in range(AT_ONCE)]
                most_mb = max(most_mb, rss(pid))
        wait_until(lambda: metrics(idle_instance)["rpc_slow_consumers_total"], "the one to be cut", 30)
        grown_mb = max(most_mb, rss(pid)) - before_mb
        assert [frame[2] for frame in seen] == list(range(1, EVENTS + 1)), "the one that reads missed something"
        assert "gap" not in {frame[3]["type"] for frame in seen}
        assert metrics(idle_instance)["rpc_slow_consumers_total"] == 1
        held.call(2, "agents.whoami")
        assert [held.read()[0] for _ in range(11)] == [4] * 10 + [2], "the one without credit is there"
        while stopped.read():
            pass  # what the kernel held; then it is closed
    [line] = [line for line in accesses(idle_instance) if line["what"] == "closed"]
    assert line["code"] == "slow_consumer"
    assert grown_mb <= GROWTH_MB
    say(f"{EVENTS} events past one that stopped reading: daemon {grown_mb:+.1f} MB")
    row("R12", 0, events=EVENTS, rss_mb=round(grown_mb, 1), limit=limit)


def happen(whole: Instance, count: int) -> None:
    """Let so many events happen."""
    with whole.client() as client:
        for start in range(0, count, AT_ONCE):
            with client.pipeline() as calls:
                made = [calls.call("notify.test") for _ in range(min(AT_ONCE, count - start))]
            for call in made:
                call.result()


def accesses(whole: Instance) -> list[dict[str, Any]]:
    """Return the newest lines of the access log."""
    return [json.loads(line) for line in (whole.directory / "access.jsonl").read_text().splitlines()]


# -- R13: clients that die

DEATHS = form(12, 200)
STAYING = 5
LONGEST_CALL_S = 0.03  # a client dies at any moment of it, or before
RELEASED_S = 5.0
FOREVER = {"timeout_s": 600.0}

# Connects, says when it is about to ask, asks, and waits for ever.
DYING = """
import os, socket, sys
peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
os.write(1, b".")
peer.sendall(bytes.fromhex(sys.argv[2]))
while peer.recv(65536):
    pass
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.timeout(form(120, 900))
def test_clients_killed_at_any_moment_leave_nothing_and_a_key_is_one_agent(whole: Instance):
    """R13: soon nothing is held but for those who live, whatever was asked; asked again, a key gives the same agent."""
    chance, pid = seeded("R13"), whole.pid()
    agent, waited = whole.spawn("sh", name="ann"), whole.send("operator", "to be waited for")
    before, before_threads = descriptors(pid), threads(pid)
    spawns = []
    with knockers(whole, STAYING) as living:
        for client in living:
            client.read()
            client.call(1, "agents.wait", {"target": "ann", "until": "stopped", **FOREVER})
        for number in range(DEATHS):
            calls = held_calls(agent["id"], waited, number)
            method = chance.choice(list(calls))
            if method == "agents.spawn":
                spawns.append(calls[method])
            die_while_asking(whole, method, calls[method], chance.uniform(0, LONGEST_CALL_S))
        released_s = released_after_s(whole, STAYING)
        whole.call("agents.stop", targets=["ann"])
        assert [client.read()[:2] for client in living] == [[2, 1]] * STAYING, "who lives got its answer"
    released_after_s(whole, 0)
    wait_until(lambda: descriptors(pid) <= before + per_agent(whole), "descriptors to be given back", 10)
    assert threads(pid) <= before_threads + 5
    came_to_be = {row["name"]: row["id"] for row in whole.call("agents.list")["agents"]}
    for params in spawns:
        name = params["name"]
        first, again = (whole.call("agents.spawn", **params)["agents"][0]["id"] for _ in range(2))
        assert first == again == came_to_be.get(name, first), "one key, two agents"
    say(f"{DEATHS} clients killed, {len(spawns)} of them while they spawned: all released after {released_s:.2f} s")
    row("R13", SEED, clients=DEATHS, spawns=len(spawns), released_s=round(released_s, 2))


def held_calls(agent: str, message: str, number: int) -> dict[str, dict[str, Any]]:
    """Return a call of each kind that waits, streams, or makes something."""
    key = f"k-{number}-{time.time_ns()}"
    return {
        "agents.wait": {"target": agent, "until": "stopped", **FOREVER},
        "messages.wait": {"id": message, "until": "acked", **FOREVER},
        "messages.inbox": {"wait_s": 600.0},
        "events.follow": {},
        "agents.follow": {"target": agent},
        "messages.follow": {},
        "messages.send": {"to": "operator", "body": "x", "key": key},
        "agents.capture": {"target": agent},
        "agents.spawn": {"profile": "sh", "cwd": "/", "name": f"a-{number}", "key": key},
    }


def die_while_asking(whole: Instance, method: str, params: dict[str, Any], after_s: float) -> None:
    """Make a call from a program that is killed so long after it began to ask."""
    words = HELLO + encode([CALL, 1, method, params, {"credit": 1000}])
    argv = [*PYTHON, "-c", DYING, str(whole.directory / "agentd.sock"), words.hex()]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
        assert client.stdout is not None
        client.stdout.read(1)
        time.sleep(after_s)  # not a wait for anything: the moment of its death
        client.kill()


def released_after_s(whole: Instance, living: int) -> float:
    """Return how long it takes until only what so many clients wait for is held."""
    began_s = time.monotonic()

    def released() -> bool:
        found = metrics(whole)  # by one more connection
        held = [found[name] for name in ("rpc_connections", "rpc_calls_in_flight", "waiters")]
        return held == [living + 1, living, 0]  # none of those who live waits for a message

    wait_until(released, "what dead clients held to be released", RELEASED_S)
    return time.monotonic() - began_s


def per_agent(whole: Instance) -> int:
    """Return how many descriptors the agents that live may take: a transcript each, for a while."""
    return 5 + len(whole.call("agents.list")["agents"])
