"""The daemon dies while the pool works, or its disk is full: nobody holds an agent twice, and no pane is left over."""

from __future__ import annotations

import resource
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest
from fault_rows import row
from faults import back_in_s, form, rows, say
from instance import Instance, alive, wait_until
from pooling import BUSY, DEMO, agents, answered, claim, filled, keep, panes, pool, put_profile, slots, written_slots
from test_faults_crash_points import SPAWN
from test_soak import rss_kb, settled

from agentd.client import connect
from agentd.errors import AgentdError, StorageError, Unavailable
from agentd.failpoint import VARIABLE

ACQUIRE = ("acquire.before_commit", "acquire.after_commit")
RELEASE = ("release.before_stop", "release.after_stop")
TURNS = form((1,), (1, 2, 3))
SIZE = 2
CYCLES = form(30, 2000)
WARM_UP_CYCLES = form(10, 50)
RSS_SLOPE_KB = 4.0  # a cycle is an agent's life: its rows, its messages, its transcript


def up_to_die(whole: Instance, point: str, turn: int) -> int:
    """Start a daemon that dies at a point; return its pid."""
    whole.cli("up", "--set", BUSY, **{VARIABLE: f"{point}:kill@{turn}"})
    return whole.pid()


def put_right(whole: Instance) -> None:
    """Start the next daemon and check what it made of what it found."""
    back_in_s(whole)
    whole.cli("restart", "--set", BUSY)  # back_in_s knows no settings; and twice is as good as once
    filled(whole, SIZE)
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


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("point", ACQUIRE)
def test_killed_while_a_slot_becomes_somebodys(idle_instance: Instance, point: str, turn: int):
    """F02: whether the answer came before the crash or after it, one key is one agent, and it is nobody else's."""
    idle_instance.up(BUSY)
    keep(idle_instance, SIZE)
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, point, turn)
    filled(idle_instance, SIZE)
    answers: list[dict[str, Any]] = []
    asking = threading.Thread(target=claims, args=(idle_instance, answers, turn))
    asking.start()
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    put_right(idle_instance)
    asking.join(60)
    for number in range(turn):
        ask_until_answered(idle_instance, answers, key=f"k-{number}", name=f"a-{number}")
    by_name = {agent["name"]: {other["id"] for other in answers if other["name"] == agent["name"]} for agent in answers}
    assert by_name.keys() == {f"a-{number}" for number in range(turn)}
    assert all(len(ids) == 1 for ids in by_name.values()), "one key, several agents"
    assert {agent["name"]: {agent["id"]} for agent in agents(idle_instance)} == by_name
    answered(idle_instance, *by_name)
    filled(idle_instance, SIZE)
    check_whole(idle_instance)


def claims(whole: Instance, answers: list[dict[str, Any]], count: int) -> None:
    for number in range(count):
        ask_until_answered(whole, answers, key=f"k-{number}", name=f"a-{number}")


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("point", ["refill.after_tmux", *SPAWN])
def test_killed_while_the_pool_fills(idle_instance: Instance, point: str, turn: int):
    """F02: what was booting is taken over or removed, and the pool is filled."""
    daemon = up_to_die(idle_instance, point, turn)
    idle_instance.cli("pool", "set", "demo", str(SIZE + turn), "--cwd", str(idle_instance.directory), check=False)
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    back_in_s(idle_instance)
    idle_instance.cli("pool", "set", "demo", str(SIZE), "--cwd", str(idle_instance.directory))
    put_right(idle_instance)
    assert agents(idle_instance) == []
    agent = claim(idle_instance)
    assert agent["warm"] is True
    answered(idle_instance, agent["name"])


@pytest.mark.slow
@pytest.mark.timeout(form(120, 300))
@pytest.mark.parametrize("turn", form((1,), (1, 2)))
@pytest.mark.parametrize("point", RELEASE)
def test_killed_while_slots_are_ended(idle_instance: Instance, point: str, turn: int):
    """F02: a slot that was about to end is ended, or kept and counted."""
    idle_instance.up(BUSY)
    keep(idle_instance, SIZE + 2)
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, point, turn)
    filled(idle_instance, SIZE + 2)
    idle_instance.cli("pool", "set", "demo", str(SIZE), "--cwd", str(idle_instance.directory), check=False)
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}", 20)
    put_right(idle_instance)
    assert agents(idle_instance) == []
    directories = {path.name for path in (idle_instance.directory / "agents").iterdir()}
    assert directories == slots(idle_instance).keys(), "what is kept of a slot goes with it"


def test_a_hand_out_that_was_cut_off_leaves_slots_that_can_say_who_they_are(idle_instance: Instance):
    """The token that was written down was never kept: the next daemon makes a new one."""
    idle_instance.up(BUSY)
    before = keep(idle_instance, SIZE)
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, "acquire.before_commit", 1)
    filled(idle_instance, SIZE)
    with pytest.raises(Unavailable):
        claim(idle_instance, name="ann")
    wait_until(lambda: not alive(daemon), "the daemon to die")
    put_right(idle_instance)
    assert slots(idle_instance) == before
    assert agents(idle_instance) == []


def test_a_session_is_named_after_its_agent_also_when_a_crash_came_between(idle_instance: Instance):
    idle_instance.up(BUSY)
    keep(idle_instance, SIZE)
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, "acquire.after_commit", 1)
    filled(idle_instance, SIZE)
    with pytest.raises(Unavailable):
        claim(idle_instance, name="ann")
    wait_until(lambda: not alive(daemon), "the daemon to die")
    back_in_s(idle_instance)
    session = f"ann_{idle_instance.json('show', 'ann')['id']}"
    wait_until(
        lambda: session in idle_instance.tmux("list-sessions", "-F", "#{session_name}").split(),
        "the session to have its agent's name",
    )


# -- what cannot be written, or not at once


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
def test_a_spawn_that_cannot_be_kept_leaves_nothing(idle_instance: Instance, room_bytes: int, size: int):
    """One clear error, no agent under that name, and the next spawn works once there is room."""
    idle_instance.up(BUSY)
    keep(idle_instance, size)
    with disk_full(idle_instance, room_bytes), pytest.raises(StorageError):
        claim(idle_instance, name="ann")
    assert agents(idle_instance) == []
    assert claim(idle_instance, name="ann")["name"] == "ann"
    answered(idle_instance, "ann")
    filled(idle_instance, size)
    check_whole(idle_instance)


def test_a_hand_out_that_cannot_be_kept_gives_its_first_prompt_to_nobody(idle_instance: Instance):
    """The registry alone cannot be written: no message is left, and no slot has read one."""
    log = idle_instance.directory / "log"
    put_profile(idle_instance, "demo", f'{DEMO}\n[env]\nAGENTD_DEMO_LOG = "{log}"\n')
    idle_instance.up(BUSY)
    keep(idle_instance, SIZE)
    with closing(sqlite3.connect(idle_instance.directory / "registry.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError):
            claim(idle_instance, name="ann", prompt="once")
        assert messages_of(idle_instance) == 0
        other.rollback()
    filled(idle_instance, SIZE)
    assert rows(log) == []
    agent = claim(idle_instance, name="ann", prompt="once")  # the positive control
    assert agent["warm"] is True
    wait_until(lambda: rows(log), "it to be read")
    assert [line["body"] for line in rows(log)] == ["once"]


def messages_of(whole: Instance) -> int:
    """Return how many messages there are, whoever's they are."""
    found = 0
    for file in (whole.directory / "mailbox").glob("shard-*.db"):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            found += int(db.execute("SELECT count(*) FROM m").fetchone()[0])
    return found


@pytest.mark.parametrize("size", [0, SIZE], ids=["cold", "warm"])
def test_a_first_prompt_that_a_crash_came_before_is_put_by_who_asks_again(idle_instance: Instance, size: int):
    """F02, G4: whose the agent is was on disk and its prompt was not; the same key puts it, once."""
    log = idle_instance.directory / "log"
    put_profile(idle_instance, "demo", f'{DEMO}\n[env]\nAGENTD_DEMO_LOG = "{log}"\n')
    idle_instance.up(BUSY)
    keep(idle_instance, size)
    idle_instance.cli("down")
    daemon = up_to_die(idle_instance, "acquire.after_commit" if size else "spawn.after_tmux", 1)
    if size:
        filled(idle_instance, size)
    with pytest.raises(Unavailable):
        claim(idle_instance, name="ann", prompt="once", key="k")
    wait_until(lambda: not alive(daemon), "the daemon to die")
    back_in_s(idle_instance)
    answers = [claim(idle_instance, name="ann", prompt="once", key="k") for _ in range(3)]
    assert len({answer["id"] for answer in answers}) == 1
    answered(idle_instance, "ann")  # behind it
    assert [line["body"] for line in rows(log)] == ["once", "are you ann?"]


@pytest.mark.parametrize("size", [0, SIZE], ids=["cold", "warm"])
def test_one_key_asked_for_side_by_side_is_one_agent(idle_instance: Instance, size: int):
    """A program that was cut off asks again before the first asking has come to its end."""
    idle_instance.up(BUSY)
    keep(idle_instance, size)
    got = side_by_side(idle_instance, 8, key="k")
    assert {isinstance(answer, dict) for answer in got} == {True}, got
    assert len({answer["id"] for answer in got if isinstance(answer, dict)}) == 1
    assert len(agents(idle_instance)) == 1


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
                params_ = {"profile": "demo", "cwd": str(whole.directory), **params}
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
    known = {agent["id"] for agent in idle_instance.json("ls", "--state", "stopped")}
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
