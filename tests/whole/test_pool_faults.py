"""The daemon dies while the pool works, or its disk is full: nobody holds an agent twice, and no pane is left over."""

from __future__ import annotations

import resource
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest
from fault_rows import row
from faults import form, rows, say
from instance import Instance, alive, instance, wait_until
from pooling import (
    BUSY,
    DEMO,
    agents,
    answered,
    at_a_new_place,
    claim,
    filled,
    keep,
    panes,
    pool,
    put_profile,
    slots,
    written_slots,
)
from test_faults_crash_points import SPAWN
from test_soak import rss_kb, settled

from agentd.client import connect
from agentd.errors import AgentdError, StorageError, Unavailable
from agentd.failpoint import VARIABLE

ACQUIRE = ("acquire.before_commit", "acquire.after_commit")
RELEASE = ("release.before_stop", "release.after_stop")
TURNS = form((1,), (1, 2, 3))
FILLING = form(("refill.after_tmux", "spawn.before_tmux"), ("refill.after_tmux", *SPAWN))
SIZE = 2
CYCLES = form(12, 2000)
WARM_UP_CYCLES = form(6, 50)
RSS_SLOPE_KB = 4.0  # a cycle is an agent's life: its rows, its messages, its transcript


def up_to_die(whole: Instance, point: str, turn: int) -> int:
    """Start a daemon that dies at a point; return its pid."""
    whole.cli("up", "--set", BUSY, **{VARIABLE: f"{point}:kill@{turn}"})
    return whole.pid()


def put_right(whole: Instance, size: int = SIZE) -> None:
    """Start the next daemon and check what it made of what it found."""
    whole.up(BUSY)
    for _ in range(form(0, 1)):  # twice is as good as once
        whole.cli("restart", "--set", BUSY)
    filled(whole, size)
    check_whole(whole)


def check_whole(whole: Instance) -> None:
    """Check that each pane is exactly one agent's or one slot's, on disk and in tmux alike."""
    named = {agent["id"]: agent["pid"] for agent in agents(whole) if agent["pid"]}
    assert len(set(named.values())) == len(named)
    found = panes(whole)
    assert {id_: pid for id_, pid in found.items() if id_ in named} == named, "an agent's pane is another's"
    assert found.keys() - named.keys() == written_slots(whole), "a pane that is neither an agent's nor a slot's"
    assert all(alive(pid) for pid in found.values())
    for id_ in found:
        token = (whole.directory / "agents" / id_ / "token").read_text().strip()
        with whole.client(token=token) as client:
            assert client.call("agents.whoami")["id"] == id_, "a program cannot say who it is"
    names = [agent["name"] for agent in agents(whole)]
    assert len(set(names)) == len(names)


def ask_until_answered(whole: Instance, answers: list[dict[str, Any]], **params: Any) -> None:
    """Ask for an agent again and again, as a program does that was cut off; keep every answer."""

    def ask() -> bool:
        try:
            with connect(environ=whole.environ, autostart=False) as client:
                params_ = {"profile": "demo", "cwd": str(whole.directory), **params}
                answers.append(client.call("agents.spawn", params_)["agents"][0])
        except Unavailable:
            return False
        return True

    wait_until(ask, "the daemon to answer")


@pytest.fixture
def logged(idle_instance: Instance) -> Instance:
    """Give an instance whose agents write down what they read."""
    put_profile(idle_instance, "demo", f'{DEMO}\n[env]\nAGENTD_DEMO_LOG = "{idle_instance.directory / "log"}"\n')
    return idle_instance


def bodies(whole: Instance) -> list[str]:
    return [line["body"] for line in rows(whole.directory / "log")]


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("point", ACQUIRE)
def test_killed_while_a_slot_becomes_somebodys(logged: Instance, point: str, turn: int):
    """F02, G4: one key is one agent and one first prompt, nobody else's, and its session has its name.

    Before the commit the slot stays a slot that can say who it is: the next daemon makes a new token.
    """
    daemon = up_to_die(logged, point, turn)
    keep(logged, SIZE)
    asked = [{"key": f"k-{number}", "name": f"a-{number}", "prompt": f"once {number}"} for number in range(turn)]
    answers = [claim(logged, **params) for params in asked[:-1]]
    before = filled(logged, SIZE)
    with pytest.raises(Unavailable):
        claim(logged, **asked[-1])
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    committed = point == "acquire.after_commit"
    asking = threading.Thread(target=ask_until_answered, args=(logged, answers), kwargs=asked[-1])
    if committed:
        asking.start()
    put_right(logged)
    assert len(agents(logged)) == turn - 1 + committed
    assert committed or slots(logged) == before
    if not committed:
        asking.start()
    asking.join(60)
    for params in asked * 2:
        ask_until_answered(logged, answers, **params)
    by_name = {agent["name"]: {other["id"] for other in answers if other["name"] == agent["name"]} for agent in answers}
    assert by_name.keys() == {params["name"] for params in asked}
    assert all(len(ids) == 1 for ids in by_name.values()), "one key, several agents"
    assert {agent["name"]: {agent["id"]} for agent in agents(logged)} == by_name
    answered(logged, *by_name)  # behind their prompts
    assert sorted(body for body in bodies(logged) if "once" in body) == [params["prompt"] for params in asked]
    sessions = {f"{name}_{id_}" for name, ids in by_name.items() for id_ in ids}
    wait_until(lambda: sessions <= set(session_names(logged)), "the sessions to have their agents' names")
    filled(logged, SIZE)
    check_whole(logged)


def session_names(whole: Instance) -> list[str]:
    return whole.tmux("list-sessions", "-F", "#{session_name}").split()


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("point", FILLING)
def test_killed_while_the_pool_fills(idle_instance: Instance, point: str, turn: int):
    """F02: what was booting is taken over or removed, and the pool is filled."""
    daemon = up_to_die(idle_instance, point, turn)
    set_size(idle_instance, SIZE + turn)
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    put_right(idle_instance, SIZE + turn)
    assert agents(idle_instance) == []
    agent = claim(idle_instance)
    assert agent["warm"] is True
    answered(idle_instance, agent["name"])


def set_size(whole: Instance, size: int) -> None:
    """Set how many are kept, by a daemon that may die of it."""
    with suppress(Unavailable):
        whole.call("pool.set", profile="demo", size=size, cwd=str(whole.directory))


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", form((1,), (1, 2)))
@pytest.mark.parametrize("point", RELEASE)
def test_killed_while_slots_are_ended(idle_instance: Instance, point: str, turn: int):
    """F02: a slot that was about to end is ended, or kept and counted."""
    daemon = up_to_die(idle_instance, point, turn)
    keep(idle_instance, SIZE + 2)
    set_size(idle_instance, SIZE)
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    put_right(idle_instance)
    assert agents(idle_instance) == []
    directories = {path.name for path in (idle_instance.directory / "agents").iterdir()}
    assert directories == slots(idle_instance).keys(), "what is kept of a slot goes with it"


def test_a_first_prompt_that_a_crash_came_before_is_put_by_who_asks_again_for_a_fresh_one(logged: Instance):
    """F02, G4: whose the agent is was on disk and its prompt was not; the same key puts it, once."""
    daemon = up_to_die(logged, "spawn.after_tmux", 1)
    with pytest.raises(Unavailable):
        claim(logged, name="ann", prompt="once", key="k")
    wait_until(lambda: not alive(daemon), "the daemon to die")
    logged.up(BUSY)
    answers = [claim(logged, name="ann", prompt="once", key="k") for _ in range(3)]
    assert len({answer["id"] for answer in answers}) == 1
    answered(logged, "ann")  # behind it
    assert bodies(logged) == ["once", "are you ann?"]


# -- what cannot be written, or not at once


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance whose agents write down what they read."""
    with instance() as whole:
        put_profile(whole, "demo", f'{DEMO}\n[env]\nAGENTD_DEMO_LOG = "{whole.directory / "log"}"\n')
        whole.up(BUSY, "pool.boots_per_min=10000")
        yield whole


@pytest.fixture
def busy(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance with a place of the test's own, and nothing written down yet."""
    with at_a_new_place(shared) as whole:
        (whole.directory / "log").unlink(missing_ok=True)
        yield whole


@contextmanager
def disk_full(whole: Instance, room_bytes: int) -> Iterator[None]:
    """Let the daemon write no file beyond a size."""
    pid = whole.pid()
    usual = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (room_bytes, usual[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, usual)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can change another process's limits")
@pytest.mark.parametrize("room_bytes", [0, 500], ids=["no token", "a token and no commit"])
@pytest.mark.parametrize("size", [0, SIZE], ids=["cold", "warm"])
def test_a_spawn_that_cannot_be_kept_leaves_nothing(busy: Instance, room_bytes: int, size: int):
    """One clear error, no agent under that name, and the next spawn works once there is room."""
    keep(busy, size)
    with disk_full(busy, room_bytes), pytest.raises(StorageError):
        claim(busy, name="ann")
    assert agents(busy) == []
    assert claim(busy, name="ann")["name"] == "ann"
    answered(busy, "ann")
    filled(busy, size)
    check_whole(busy)


def test_a_hand_out_that_cannot_be_kept_gives_its_first_prompt_to_nobody(busy: Instance):
    """The registry alone cannot be written: no message is left, and no slot has read one."""
    keep(busy, SIZE)
    messages = messages_of(busy)
    with closing(sqlite3.connect(busy.directory / "registry.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError):
            claim(busy, name="ann", prompt="once")
        assert messages_of(busy) == messages
        other.rollback()
    filled(busy, SIZE)
    assert rows(busy.directory / "log") == []
    agent = claim(busy, name="ann", prompt="once")  # the positive control
    assert agent["warm"] is True
    wait_until(lambda: rows(busy.directory / "log"), "it to be read")
    assert bodies(busy) == ["once"]


def messages_of(whole: Instance) -> int:
    """Return how many messages there are, whoever's they are."""
    found = 0
    for file in (whole.directory / "mailbox").glob("shard-*.db"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            found += int(db.execute("SELECT count(*) FROM m").fetchone()[0])
    return found


@pytest.mark.parametrize("size", [0, SIZE], ids=["cold", "warm"])
def test_one_key_asked_for_side_by_side_is_one_agent(busy: Instance, size: int):
    """A program that was cut off asks again before the first asking has come to its end."""
    keep(busy, size)
    got = side_by_side(busy, 8, key=f"k-{size}")
    assert {isinstance(answer, dict) for answer in got} == {True}, got
    assert len({answer["id"] for answer in got if isinstance(answer, dict)}) == 1
    assert len(agents(busy)) == 1


def test_no_more_than_agents_max_however_many_ask_at_once(idle_instance: Instance):
    idle_instance.up(BUSY, "agents.max=4")
    keep(idle_instance, SIZE)
    got = side_by_side(idle_instance, 8)
    refused = [answer for answer in got if isinstance(answer, AgentdError)]
    assert {error.code for error in refused} == {"over_limit"}, refused
    assert len(agents(idle_instance)) == 8 - len(refused) == 4


def side_by_side(whole: Instance, count: int, **params: Any) -> list[dict[str, Any] | AgentdError]:
    """Ask for so many agents at the same moment; return each answer or error."""
    begin, got = threading.Barrier(count), []

    def ask() -> None:
        with whole.client() as client:
            begin.wait(20)
            try:
                params_ = {"profile": "demo", "cwd": str(whole.place), **params}
                got.append(client.call("agents.spawn", params_)["agents"][0])
            except AgentdError as error:
                got.append(error)

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == count
    return got


# -- a long day


@pytest.mark.slow
@pytest.mark.timeout(form(120, 3000))
def test_what_the_daemon_holds_stays_flat_over_many_hand_outs(idle_instance: Instance):
    """P8, L4: descriptors, tmux clients, sessions and children after many cycles are those after a few."""
    idle_instance.up(BUSY, "pool.boots_per_min=100000", "agents.keep_stopped=10")
    keep(idle_instance, 2 * SIZE)
    cycle(idle_instance, WARM_UP_CYCLES)
    before, before_kb = at_rest(idle_instance), rss_kb(idle_instance.pid())
    cycle(idle_instance, CYCLES)
    after, slope_kb = at_rest(idle_instance), (rss_kb(idle_instance.pid()) - before_kb) / CYCLES
    found = pool(idle_instance)
    say(f"{CYCLES} cycles: {before}, then {after}; {slope_kb:.1f} KB a cycle; {found['hits']} hits")
    before.pop("threads"), after.pop("threads")  # those that wait for work end by themselves
    assert after == before
    assert (found["hits"], found["misses"]) == (WARM_UP_CYCLES + CYCLES, 0)
    if CYCLES >= 1000:  # of fewer, the first allocations are most of it
        assert slope_kb <= RSS_SLOPE_KB
    row("L4", 0, cycles=CYCLES, reconnects=CYCLES, kb_a_cycle=round(slope_kb, 1))
    kept = {path.name for path in (idle_instance.directory / "agents").iterdir()}
    known = {agent["id"] for agent in idle_instance.call("agents.list", state="stopped")["agents"]}
    assert kept == known | slots(idle_instance).keys()


def cycle(whole: Instance, count: int) -> None:
    for _ in range(count):
        with whole.client() as client:
            wait_until(lambda client=client: client.call("pool.list")["pools"][0]["warm"], "a slot to be ready")
            agent = client.call("agents.spawn", profile="demo", cwd=str(whole.directory))["agents"][0]
            client.call("agents.stop", targets=[agent["id"]], force=True)


def at_rest(whole: Instance) -> dict[str, int]:
    filled(whole, pool(whole)["target"])
    return settled(whole)
