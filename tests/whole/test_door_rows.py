"""Rows of the door with a real daemon: who is who, slow readers, dying clients, descriptors, floods.

Where each row of the door is checked; those of this file have their full figures with AGENTD_FAULTS=long:

R01  test_private_files.py, doors/test_rpc.py               R10  here; doors/test_rpc.py
R02  here, doors/test_identity.py                           R11  here; wire/test_frames.py, doors/test_rpc.py
R03  api/test_rights.py, test_who_an_agent_is.py            R12  here; doors/test_rpc.py
R04  test_private_files.py, words/test_paths.py             R13  here; doors/test_leaving_clients.py, F35 in
R05  test_faults_one_daemon.py, doors/test_listening.py          test_pool_rows.py
R06  test_faults_one_daemon.py, doors/test_listening.py     R14  here; doors/test_accepting.py
R07  test_faults_idle_agents.py, doors/test_listening.py    R15  here; doors/test_access.py
R08  test_private_files.py, words/test_paths.py             P1   wire/test_fuzz.py, wire/test_frames.py
R09  here; wire/test_frames.py                              P16  api/test_rights.py
S09  test_private_files.py, test_following.py, doors/test_access.py
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from bombs import REFUSED
from fault_rows import row
from faults import SEED, form, say, seeded
from instance import Instance, instance, wait_until
from knocking import HELLO, PYTHON, Knocker, cpu_s, descriptors, knockers, many_files, metrics, threads
from serving import in_thread
from test_load import p99, rss

from agentd.errors import AgentdError
from agentd.wire import CALL, PING, PONG
from agentd.wire.frames import FrameReader, encode

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
    before, before_threads, nobody = descriptors(pid), threads(pid), held(whole)
    spawns = []
    with knockers(whole, STAYING) as living:
        for client in living:
            client.read()
            client.call(1, "agents.wait", {"target": "ann", "until": "stopped", **FOREVER})
        wait_until(lambda: held(whole)[1] == STAYING, "those who live to wait")
        held_for_the_living = held(whole)
        for number in range(DEATHS):
            calls = held_calls(agent["id"], waited, number)
            method = chance.choice(list(calls))
            if method == "agents.spawn":
                spawns.append(calls[method])
            die_while_asking(whole, method, calls[method], chance.uniform(0, LONGEST_CALL_S))
        released_s = released_after_s(whole, held_for_the_living)
        whole.call("agents.stop", targets=["ann"])
        assert [client.read()[:2] for client in living] == [[2, 1]] * STAYING, "who lives got its answer"
    released_after_s(whole, nobody)
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


def held(whole: Instance) -> list[float]:
    """Return what the daemon holds for clients: connections (with the one that asks), calls in flight, waits."""
    found = metrics(whole)
    return [found[name] for name in ("rpc_connections", "rpc_calls_in_flight", "waiters")]


def released_after_s(whole: Instance, living: list[float]) -> float:
    """Return how long it takes until only what living clients hold is held."""
    began_s = time.monotonic()
    wait_until(lambda: held(whole) == living, "what dead clients held to be released", RELEASED_S)
    return time.monotonic() - began_s


def per_agent(whole: Instance) -> int:
    """Return how many descriptors the agents that live may take: a transcript each, for a while."""
    return 5 + len(whole.call("agents.list")["agents"])


# -- R09, R11: what is no frame

STALL_MS = form(300.0, 20.0)
BOMBS_MB = form(24.0, 8.4)  # the row says 8 MiB; what is built before it is refused would be 60 or more
TOO_LONG = "a length of 4 GiB"
TOLD_MS = form(1000.0, 100.0)
TRIES = form(1, 12)  # of the stall the best counts: whatever else the machine does is not the daemon's


@pytest.mark.slow
def test_bombs_are_refused_quickly_and_cost_neither_memory_nor_others_time(whole: Instance):
    """R09, R11: each gets one typed error and the end of its connection; nobody else waits, and nothing grows."""
    pid = whole.pid()
    exploded_ms(whole, REFUSED[TOO_LONG])
    before_mb, stalls_ms, told_ms, most_mb = rss(pid), {}, {}, 0.0
    for name, bomb in REFUSED.items():
        for _ in range(TRIES):
            with probing(whole) as waits_ms:
                told_ms[name] = min(told_ms.get(name, inf), exploded_ms(whole, bomb))
            stalls_ms[name] = min(stalls_ms.get(name, inf), max(waits_ms))
            most_mb = max(most_mb, rss(pid))
    assert whole.pid() == pid
    assert most_mb - before_mb <= BOMBS_MB
    assert told_ms[TOO_LONG] <= TOLD_MS
    worst = max(stalls_ms, key=lambda name: stalls_ms[name])
    assert stalls_ms[worst] <= STALL_MS, worst
    say(f"{len(REFUSED)} bombs: daemon {most_mb - before_mb:+.1f} MB; worst stall {stalls_ms[worst]:.1f} ms ({worst})")
    row("R11", 0, bombs=len(REFUSED), rss_mb=round(most_mb - before_mb, 1), stall_ms=round(stalls_ms[worst], 1))
    row("R09", 0, told_ms=round(told_ms[TOO_LONG], 1))


def exploded_ms(whole: Instance, bomb: bytes) -> float:
    """Send what is no frame behind a good one; return how long it took until that was told and the end of it."""
    with Knocker(whole) as knocker:
        knocker.read()
        began_s = time.perf_counter()
        with suppress(BrokenPipeError, ConnectionResetError):  # it is closed before the last byte is written
            knocker.socket.sendall(encode([PING, 1]) + bomb)
        assert knocker.read() == [PONG, 1]
        assert knocker.read()[:3] == [3, 0, "invalid"]
        assert knocker.read() is None
        return (time.perf_counter() - began_s) * 1000


@contextmanager
def probing(whole: Instance, hello: bytes = HELLO) -> Iterator[list[float]]:
    """Give the times in which another connection is answered meanwhile, in milliseconds; one at least."""
    waits_ms: list[float] = []
    over = threading.Event()

    def probe() -> None:
        with Knocker(whole, hello) as knocker:
            knocker.read()
            while not over.is_set() or not waits_ms:
                waits_ms.append(knocker.asked_ms(len(waits_ms) + 1))

    with in_thread(probe):
        wait_until(lambda: waits_ms, "the other one to be served")
        try:
            yield waits_ms
        finally:
            over.set()


# -- R10: a byte a second

DRIBBLERS = form(80, 300)
DROPPED_S = 15.0
OTHERS_P99_MS = form(500.0, 50.0)
FRAME_S = form(2, 10)


@pytest.mark.slow
@pytest.mark.timeout(form(60, 120))
def test_who_writes_a_byte_a_second_hinders_nobody_and_is_dropped(idle_instance: Instance):
    """R10: half of them greet the daemon that slowly, half of them call it; others are served all along."""
    idle_instance.up(f"rpc.frame_timeout_s={FRAME_S}")
    words = encode([CALL, 1, "agents.whoami", {}, {"key": "x" * 100}])
    with (
        many_files(),
        knockers(idle_instance, DRIBBLERS // 2, b"") as mute,
        knockers(idle_instance, DRIBBLERS // 2) as greeted,
        probing(idle_instance) as waits_ms,
    ):
        began_s, left = time.monotonic(), {**dict.fromkeys(mute, HELLO), **dict.fromkeys(greeted, words)}
        for second in itertools.count():
            left = {knocker: text for knocker, text in left.items() if dribbled(knocker, text[second : second + 1])}
            if not left:
                break
            assert time.monotonic() - began_s < DROPPED_S
            time.sleep(1)  # not a wait for anything: their pace
    dropped_s, ordered = time.monotonic() - began_s, sorted(waits_ms)
    assert p99(ordered) <= OTHERS_P99_MS
    say(f"{DRIBBLERS} at a byte a second: dropped after {dropped_s:.1f} s; another's p99 {p99(ordered):.1f} ms")
    row("R10", 0, clients=DRIBBLERS, dropped_s=round(dropped_s, 1), p99_ms=round(p99(ordered), 1))


def dribbled(knocker: Knocker, byte: bytes) -> bool:
    """Write a byte; tell whether the other side is still there."""
    try:
        knocker.socket.send(byte)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True


# -- R15: a flood

FLOOD = form(10_000, 100_000)
FLOOD_P99_MS = form(1000.0, 100.0)
FLOOD_MB = 20.0
CALLS_PER_S = 1000


@pytest.mark.slow
@pytest.mark.parametrize("role", form(["agent"], ["agent", "operator"]))
def test_a_flood_in_one_write_is_bounded_and_others_are_served(idle_instance: Instance, role: str):
    """R15: every call is answered or refused with a time to wait; the daemon keeps little of it at once."""
    idle_instance.up(f"rpc.{role}_calls_per_s={CALLS_PER_S}")
    agent = idle_instance.spawn("sh", name="ann")
    token = (idle_instance.directory / "agents" / agent["id"] / "token").read_text().strip()
    hellos = {"agent": encode([0, {"v": [1], "token": token}]), "operator": HELLO}
    other = hellos["operator" if role == "agent" else "agent"]
    flood = b"".join(encode([CALL, n, "agents.list", {}]) for n in range(1, FLOOD + 1))
    before_mb = most_mb = rss(idle_instance.pid())
    with Knocker(idle_instance, hellos[role]) as flooding, probing(idle_instance, other) as waits_ms:
        flooding.read()
        with in_thread(partial(flooding.socket.sendall, flood)):
            answers = []
            while len(answers) < FLOOD:
                answers.append(flooding.read())
                if len(answers) % AT_ONCE == 0:
                    most_mb = max(most_mb, rss(idle_instance.pid()))
    refused = [answer for answer in answers if answer[0] == 3]
    assert [answer[1] for answer in answers] == list(range(1, FLOOD + 1))
    assert {answer[2] for answer in refused} == {"rate_limit"}
    assert all(answer[4]["retry_after_ms"] > 0 for answer in refused)
    assert CALLS_PER_S <= FLOOD - len(refused) < FLOOD / 2
    ordered = sorted(waits_ms)
    assert p99(ordered) <= FLOOD_P99_MS
    assert most_mb - before_mb <= FLOOD_MB
    costs = f"daemon {most_mb - before_mb:+.1f} MB, another's p99 {p99(ordered):.1f} ms"
    say(f"{FLOOD} calls of the {role} in one write: {len(refused)} refused; {costs}")
    row("R15", 0, calls=FLOOD, role=role, refused=len(refused), p99_ms=round(p99(ordered), 1))
