"""Answers about sessions are true: tmux is changed from outside at random, and every answer is held against what was.

One program changes the server, step by step, and writes down what the server says after each step. Between two steps
the state is known; during a step it is the one before or the one after. An answer is right when it was true at some
moment between its stated age and its arrival, and not longer ago than an event may take.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from faults import form, say, seeded
from instance import Instance, wait_until

from agentd.client import Client

SESSIONS = form((12,), (20, 200))
SECONDS = form(4.0, 60.0)
LAG_S = 1.0  # an event takes milliseconds; this is for a machine that does other things, too
CLOCK_S = 0.005  # age_ms is a whole number, and two processes read the clock

State = frozenset[tuple[int, str, str, int, int]]  # server, id, name, windows, panes
Extra = tuple[int, str]  # server and name of a session that is no agent's


@dataclass(frozen=True)
class Step:
    """One change from outside and the state after it."""

    started_s: float
    ended_s: float
    after: State
    what: str


@dataclass(frozen=True)
class Told:
    """One answer."""

    asked_s: float
    came_s: float
    age_s: float
    tier: str
    state: State


class Outside:
    """Changes the server as a person at its socket would, and keeps the history."""

    def __init__(self, whole: Instance, chance: random.Random) -> None:
        self.whole = whole
        self.chance = chance
        self.extra: list[Extra] = []
        self.servers = whole.servers()
        self.names = 0
        self.history = [Step(0.0, time.monotonic(), self.truth(), "start")]

    def truth(self) -> State:
        rows = [(server, row.split(" ")) for server in self.servers for row in self.listed(server)]
        return frozenset((s, id_, name, int(n), len(panes)) for s, (id_, name, n, panes) in rows if name != "_agentd")

    def listed(self, server: int) -> list[str]:
        wanted = "#{session_id} #{session_name} #{session_windows} #{W:#{P:x}}"
        return self.whole.tmux("list-sessions", "-F", wanted, server=server).splitlines()

    def step(self, what: Callable[[], None] | None = None) -> None:
        """Make one change, at random unless it is given."""
        what = what or self.chance.choice([self.new, self.new, self.end, self.rename, self.window, self.split])
        started_s = time.monotonic()
        what()
        done_s = time.monotonic()
        self.history.append(Step(started_s, done_s, self.truth(), what.__name__))

    def new(self) -> None:
        self.names += 1
        server, name = self.chance.choice(self.servers), f"extra-{self.names}"
        self.extra.append((server, name))
        self.whole.tmux("new-session", "-d", "-s", name, "sleep 1000", server=server)

    def end(self) -> None:
        if self.extra:
            server, name = self.extra.pop(self.chance.randrange(len(self.extra)))
            self.whole.tmux("kill-session", "-t", f"={name}", server=server)

    def rename(self) -> None:
        if self.extra:
            self.names += 1
            at = self.chance.randrange(len(self.extra))
            (server, old), new = self.extra[at], f"extra-{self.names}"
            self.extra[at] = (server, new)
            self.whole.tmux("rename-session", "-t", f"={old}:", new, server=server)

    def window(self) -> None:
        if self.extra:
            server, name = self.chance.choice(self.extra)
            self.whole.tmux("new-window", "-d", "-t", f"={name}:", "sleep 1000", server=server)

    def split(self) -> None:
        """Split a window: the one change of these that no notification tells of."""
        if self.extra:
            server, name = self.chance.choice(self.extra)
            self.whole.tmux("resize-window", "-x", "200", "-y", "60", "-t", f"={name}:", server=server)
            self.whole.tmux("split-window", "-d", "-l", "1", "-t", f"={name}:", "sleep 1000", server=server)


class Asker(threading.Thread):
    """Asks without pause, sometimes for an answer of a bounded age."""

    def __init__(self, whole: Instance, chance: random.Random) -> None:
        super().__init__()
        self.whole = whole
        self.chance = chance
        self.told: list[Told] = []
        self.plain = False  # take whatever is kept
        self.done = threading.Event()
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            with self.whole.client() as client:
                while not self.done.wait(self.chance.random() * 0.01):
                    params = self.chance.choice([{}, {}, {"max_age_ms": 50}, {"no_cache": True}])
                    self.told.append(ask(client, {} if self.plain else params))
        except BaseException as failure:  # noqa: BLE001  raised again by whoever joins this thread
            self.failure = failure


def ask(client: Client, params: dict[str, object]) -> Told:
    """Ask once; what was asked for is what was given."""
    asked_s = time.monotonic()
    answer = client.call("sessions.list", dict(params))
    came_s = time.monotonic()
    rows = [(row["server"], row["id"], row["name"], row["windows"], row["panes"]) for row in answer["sessions"]]
    asked_now = answer["tier"] == "tmux"  # then it is as old as the asking took
    assert asked_now or answer["age_ms"] <= params.get("max_age_ms", 1e9)
    assert not params.get("no_cache") or asked_now
    assert len(rows) == len(set(rows))
    return Told(asked_s, came_s, answer["age_ms"] / 1000, answer["tier"], frozenset(rows))


def violations(history: list[Step], told: list[Told], lag_s: float) -> list[str]:
    """Return the answers that were true at no moment at which they may have been."""
    wrong = []
    for each in told:
        from_s, to_s = each.asked_s - min(each.age_s, lag_s) - CLOCK_S, each.came_s + CLOCK_S
        ends = [step.ended_s for step in history[1:]] + [float("inf")]
        possible = [s for s, end_s in zip(history, ends, strict=True) if s.started_s <= to_s and end_s >= from_s]
        for server in {row[0] for row in each.state | history[0].after}:
            told_of = of(each.state, server)
            if not any(of(step.after, server) == told_of for step in possible):
                off = [f"{step.what}: {sorted(of(step.after, server) ^ told_of)}" for step in possible]
                wrong.append(f"{each.tier} {each.age_s:.3f} s old: {off[:3]}")
    return wrong


def of(state: State, server: int) -> State:
    """Return one server's part: servers are asked side by side, so each part has a moment of its own."""
    return frozenset(row for row in state if row[0] == server)


def run(whole: Instance, sessions: int, *, kill_clients: bool) -> tuple[list[str], list[Told]]:
    """Change and ask for a while; return what was wrong, and everything that was told."""
    chance = seeded(f"{sessions} sessions")
    with whole.client() as client:
        client.call("agents.spawn", profile="sh", n=sessions, cwd=str(whole.directory), timeout_s=60)
    outside = Outside(whole, chance)
    asker = Asker(whole, random.Random(chance.random()))
    asker.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end and asker.is_alive():
            for _ in range(chance.randrange(1, 6)):
                outside.step()
            if kill_clients:
                kill_a_client(whole, chance)
            pause_s = chance.choice([0.0, 0.05, 0.3, 1.5 * LAG_S])
            if pause_s > LAG_S:  # nothing else follows that would drop or refresh what this change must
                asker.plain = True
                asker.done.wait(0.1)
                outside.step(outside.split)
            asker.done.wait(pause_s)
            asker.plain = False
    finally:
        asker.done.set()
        asker.join()
    if asker.failure is not None:
        raise asker.failure
    return violations(outside.history, asker.told, LAG_S), asker.told


def kill_a_client(whole: Instance, chance: random.Random) -> None:
    """kill -9 one of the daemon's control clients, and change nothing until it has another.

    Nothing from outside passes the gate, and a change while a client connects kills a tmux before 3.7.
    """
    server = chance.choice(whole.servers())
    clients = whole.tmux("list-clients", "-F", "#{client_pid}", server=server).split()
    gone = chance.choice(clients)
    os.kill(int(gone), signal.SIGKILL)

    def replaced() -> bool:
        now = whole.tmux("list-clients", "-F", "#{client_pid}", server=server).split()
        return len(now) == len(clients) and gone not in now

    wait_until(replaced, "another control client")


@pytest.mark.slow
@pytest.mark.timeout(form(120, 900))
@pytest.mark.parametrize("kill_clients", [False, True], ids=["quiet", "clients killed"])
@pytest.mark.parametrize("sessions", SESSIONS)
def test_every_answer_was_true_when_it_says(running: Instance, sessions: int, kill_clients: bool):
    """P11: 0 violations, whatever happens at the server and to our clients."""
    wrong, told = run(running, sessions, kill_clients=kill_clients)
    tiers = {tier: sum(each.tier == tier for each in told) for tier in sorted({each.tier for each in told})}
    say(f"{sessions} sessions: {len(told)} answers ({tiers}), {len(wrong)} violations")
    assert wrong == []
    assert tiers.keys() >= {"l1", "tmux"}


def test_a_wrong_answer_is_noticed():
    """The check itself: an answer that was true too long ago, or never, is a violation."""
    one, two = frozenset({(0, "$1", "a", 1, 1)}), frozenset({(0, "$1", "b", 1, 1)})
    history = [Step(0, 0, one, "start"), Step(10.0, 10.1, two, "rename")]

    def wrong(state: State, asked_s: float, age_s: float) -> bool:
        return bool(violations(history, [Told(asked_s, asked_s + 0.01, age_s, "l1", state)], 1.0))

    assert not wrong(one, 9.0, 0.0)
    assert not wrong(one, 10.5, 0.5)
    assert not wrong(two, 10.05, 0.0)
    assert wrong(one, 10.5, 0.1)
    assert wrong(one, 12.0, 5.0)
    assert wrong(two, 9.0, 3.0)
    assert wrong(frozenset(), 9.0, 9.0)
