"""The warm pool, whole: what is kept booted, who gets it, and what is anybody's business of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from faults import form
from instance import Instance, alive, instance, wait_until
from mcp_client import mcp_client
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
    pools,
    put_profile,
    slots,
)

from agentd.errors import (
    EXIT_NOT_ALLOWED,
    EXIT_NOT_FOUND,
    EXIT_USAGE,
    AgentdError,
    AlreadyExists,
    Unauthenticated,
    UnknownTarget,
)

ROW = {"profile", "place", "target", "warm", "booting", "hits", "misses"}


SETTINGS = (BUSY, "pool.slot_mb=10", "pool.boots_at_once=8", "pool.boots_per_min=10000")
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance whose pool does not mind the load of the machine, with two profiles for tests to change."""
    with instance() as whole:
        put_profile(whole, "changing", DEMO)
        put_profile(whole, "passing", DEMO)
        whole.up(*SETTINGS)
        yield whole


@pytest.fixture
def busy(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance with a place of the test's own."""
    with at_a_new_place(shared) as whole:
        yield whole


@pytest.fixture(scope="module")
def kept() -> Iterator[Instance]:
    """Give the tests that change nothing an instance with two slots, where nobody ever started an agent."""
    with instance() as whole:
        whole.up(BUSY, "pool.max_slots=9")
        keep(whole, 2)
        yield whole


def token_file(whole: Instance, id_: str) -> Path:
    return whole.directory / "agents" / id_ / "token"


# -- hits


def test_a_spawn_where_agents_are_kept_takes_one_of_them(busy: Instance):
    before = keep(busy, 2)
    (agent,) = busy.json("spawn", "demo", "--cwd", str(busy.place))["agents"]
    assert agent["warm"] is True
    assert (agent["id"], agent["pid"]) in before.items()
    assert (agent["state"], agent["reason"]) == ("idle", "the composer is empty")
    answered(busy, agent["name"])
    after = filled(busy, 2)
    assert len(after.keys() & before.keys()) == 1, "the other one stays"
    (row,) = busy.json("pool", "ls")
    assert row.keys() >= ROW
    assert (row["profile"], row["place"], row["target"]) == ("demo", str(busy.place), 2)
    assert (row["warm"], row["hits"], row["misses"]) == (2, 1, 0)


def test_the_first_prompt_of_an_agent_from_the_pool_is_answered(busy: Instance):
    keep(busy, 1)
    agent = claim(busy, prompt="what is new?")
    assert agent["warm"] is True
    with busy.client() as client:
        reply = client.call("agents.wait", target=agent["id"], until="reply", timeout_s=20.0)["message"]
    assert (reply["from"], reply["body"]) == (agent["name"], "echo: what is new?")


def test_more_than_are_ready_are_asked_for_and_each_is_an_agent_of_its_own(busy: Instance):
    before = keep(busy, 2)
    started = busy.call("agents.spawn", profile="demo", n=4, cwd=str(busy.place))["agents"]
    assert len({agent["id"] for agent in started}) == len({agent["pid"] for agent in started}) == 4
    assert {agent["id"] for agent in started if agent["warm"]} == before.keys()
    answered(busy, *(agent["name"] for agent in started))
    assert (pool(busy)["hits"], pool(busy)["misses"]) == (2, 2)


def test_what_a_slot_is_not_started_for_gets_a_fresh_program(busy: Instance):
    before = keep(busy, 1)
    here, other = str(busy.place), busy.place / "other"
    other.mkdir()
    for words in (
        ("demo", "--cwd", here, "--cold"),
        ("demo", "--cwd", here, "--env", "A=b"),
        ("demo", "--cwd", here, "--trust"),
        ("demo", "--cwd", str(other)),
        ("sh", "--cwd", here),
    ):
        (agent,) = busy.json("spawn", *words)["agents"]
        assert (agent["warm"], agent["id"] in before) == (False, False), words
    assert slots(busy) == before
    assert (pool(busy)["hits"], pool(busy)["misses"]) == (0, 0)
    assert claim(busy)["id"] in before, "what the slot was started for gets it"


# -- nobody's


def test_a_slot_is_nobodys(kept: Instance):
    id_ = next(iter(slots(kept)))
    with kept.client() as client:
        assert client.call("agents.list")["agents"] == client.call("agents.list", state="stopped")["agents"] == []
        for target in ("all", "%demo", id_, id_[:6], f"pool-{id_}"):
            for method, params in (
                ("messages.send", {"to": target, "body": "hi"}),
                ("agents.list", {"target": target}),
                ("agents.get", {"target": target}),
                ("agents.capture", {"target": target}),
                ("agents.respawn", {"target": target}),
            ):
                with pytest.raises(UnknownTarget, match=f"no agent is named by `{target}`"):
                    client.call(method, params)
            answer = client.call("agents.stop", targets=[target], force=True)
            assert [row["error"]["code"] for row in answer["failed"]] == ["unknown_target"]
        events = client.call("events.list", limit=10_000)["events"]
        assert client.call("daemon.status")["agents"]["live"] == 0
    assert [event for event in events if event["type"].startswith("agent.")] == []
    assert pool(kept)["warm"] == 2


def test_an_agent_in_the_pool_has_its_name_to_itself(busy: Instance):
    """Somebody may be named as the pool would name a slot: sessions are found by their ids."""
    (id_,) = keep(busy, 1)
    named = busy.spawn(name=f"pool-{id_}", cold=True)
    assert busy.show(f"pool-{id_}")["id"] == named["id"] != id_
    busy.call("agents.stop", targets=[f"pool-{id_}"])
    assert slots(busy).keys() == {id_}


def test_slots_are_counted_apart_from_agents(busy: Instance):
    keep(busy, 2)
    busy.spawn(name="ann", cold=True)
    said = busy.cli("status").stdout
    assert re.search(r"^pool +2 of 2 ready, in 1 place$", said, re.MULTILINE), said
    assert re.search(r"^agents +1 live, 1 idle(, \d+ stopped)?$", said, re.MULTILINE), said
    assert busy.cli("down").stdout.endswith("; 1 agent and 2 of the pool stay alive\n")
    busy.up(*SETTINGS)
    filled(busy, 2)
    busy.call("agents.stop", targets=["ann"], force=True)
    assert busy.cli("down").stdout.endswith("; 2 of the pool stay alive\n")
    busy.up(*SETTINGS)
    busy.call("pool.drain", profile="demo")
    wait_until(lambda: slots(busy) == {}, "the slots to end")
    assert "alive" not in busy.cli("down").stdout
    busy.up(*SETTINGS)


# -- whose it becomes


def test_the_token_is_a_new_one_from_the_hand_out_on(busy: Instance):
    (id_,) = keep(busy, 1)
    old = token_file(busy, id_).read_text().strip()
    with busy.client(token=old) as early:
        assert early.call("agents.whoami")["id"] == id_
        agent = claim(busy, name="ann", team="crew", role="lead")
        assert agent["id"] == id_
        who = early.call("agents.whoami")
        assert (who["id"], who["name"]) == (id_, "ann"), "who connected before is who it has become"
    new = token_file(busy, id_).read_text().strip()
    assert new != old
    with pytest.raises(Unauthenticated), busy.client(token=old) as late:
        late.call("agents.whoami")
    with busy.client(token=new) as client:
        who = client.call("agents.whoami")
        assert (who["role"], who["id"], who["name"]) == ("agent", id_, "ann")
    identity = json.loads((busy.directory / "agents" / id_ / "identity.json").read_text())
    assert identity == {
        "id": id_,
        "name": "ann",
        "team": "crew",
        "role": "lead",
        "cwd": str(busy.place),
        "env": {},
    }


def test_an_mcp_server_that_was_started_in_the_pool_speaks_as_the_agent(busy: Instance):
    """Before and after the connection that it made in the pool: the next one takes the token as it is by then."""
    (id_,) = keep(busy, 1)
    socket = str(busy.directory / "agentd.sock")
    with mcp_client({"AGENTD_SOCKET": socket, "AGENTD_TOKEN_FILE": str(token_file(busy, id_))}) as client:
        assert client.use("whoami")["id"] == id_
        assert claim(busy, name="moe")["id"] == id_
        assert client.use("whoami")["name"] == "moe"
        client.use("send_message", to="operator", body="here I am")
        busy.cli("restart", *SET)
        assert client.use("whoami")["name"] == "moe"
    found = busy.call("messages.inbox")["messages"]
    assert [message["body"] for message in found if message["from"] == "moe"] == ["here I am"]


def test_its_session_is_named_after_it(busy: Instance):
    (id_,) = keep(busy, 1)
    assert f"pool-{id_}_{id_}" in sessions(busy)
    claim(busy, name="ann")
    wait_until(lambda: f"ann_{id_}" in sessions(busy), "the session to have its agent's name")
    assert f"pool-{id_}_{id_}" not in sessions(busy)


def sessions(whole: Instance) -> list[str]:
    return whole.tmux("list-sessions", "-F", "#{session_name}").splitlines()


def test_an_agent_from_the_pool_is_like_any_other(busy: Instance):
    """It is told of, stopped, started again under its id, and its name is taken."""
    keep(busy, 1)
    since = busy.call("events.list", limit=1)["last"]
    agent = claim(busy, name="ann")
    told = busy.call("events.list", types=["agent.spawned"], since=since)["events"]
    assert [event["data"]["name"] for event in told] == ["ann"]
    filled(busy, 1)
    with pytest.raises(AlreadyExists):
        claim(busy, name="ann")
    assert pool(busy)["warm"] == 1, "a name that is taken costs no slot"
    (stopped,) = busy.call("agents.stop", targets=["ann"])["stopped"]
    assert (stopped["id"], stopped["state"]) == (agent["id"], "stopped")
    assert not alive(agent["pid"])
    busy.call("agents.respawn", target="ann")
    answered(busy, "ann")
    again = busy.show("ann")
    assert (again["id"], again["cwd"]) == (agent["id"], str(busy.place))
    assert again["pid"] != agent["pid"]
    assert f"ann_{agent['id']}" in sessions(busy)


def test_a_team_takes_from_the_pool(busy: Instance):
    before = keep(busy, 2)
    file = busy.place / "team.toml"
    file.write_text(
        '[team]\nname = "crew"\ncwd = "."\n[[agents]]\nname = "worker"\ncount = 3\nrole = "worker"\nprofile = "demo"\n'
    )
    members = busy.json("team", "up", str(file))["agents"]
    assert {agent["id"] for agent in members if agent["warm"]} == before.keys()
    assert {(agent["team"], agent["role"]) for agent in members} == {("crew", "worker")}
    answered(busy, "worker-1", "worker-2", "worker-3")
    busy.call("teams.down", team="crew")
    filled(busy, 2)


# -- what was kept stays kept


def test_slots_outlive_the_daemon_and_what_dies_with_or_without_one_is_replaced(busy: Instance):
    """F01: the next daemon goes on with the same programs, however the last one ended."""
    before = keep(busy, 2)
    busy.kill()
    busy.up(*SETTINGS)
    assert filled(busy, 2) == before
    dead, stays = before
    os.kill(before[dead], signal.SIGKILL)
    wait_until(lambda: dead not in panes(busy), "the dead one to be removed")
    with_one = filled(busy, 2)
    assert with_one.keys() & before.keys() == {stays}
    busy.cli("down")
    os.kill(before[stays], signal.SIGKILL)
    wait_until(lambda: not alive(before[stays]), "it to die")
    busy.up(*SETTINGS)
    wait_until(lambda: pool(busy)["warm"] == 2, "two to be ready")
    after = filled(busy, 2)
    assert after.keys() & with_one.keys() == with_one.keys() - {stays}, "what lives is kept by `down` too"
    assert not token_file(busy, stays).parent.exists()
    assert claim(busy)["id"] in after
    assert busy.call("agents.list", state="failed")["agents"] == [], "nobody hears of a slot's death"


def test_slots_that_are_drained_while_they_are_started_leave_nothing(busy: Instance):
    for _ in range(form(2, 3)):
        with busy.client() as client:
            client.call("pool.set", profile="demo", size=8, cwd=str(busy.place))
            client.call("pool.drain", profile="demo")
        wait_until(lambda: not pools(busy), "the place to be forgotten")
        wait_until(lambda: not panes(busy), "every pane to go")
    assert "KeyError" not in (busy.directory / "agentd.log").read_text()


def test_the_daemon_stops_while_slots_end(idle_instance: Instance):
    rounds = form(1, 3)
    for _ in range(rounds):
        idle_instance.up(*SETTINGS)
        keep(idle_instance, 6)
        idle_instance.call("pool.drain", profile="demo")
        idle_instance.cli("down", "--agents", "stop")
    log = (idle_instance.directory / "agentd.log").read_text()
    assert log.count('"daemon stopped"') == rounds
    assert "Traceback" not in log


def test_drained_is_drained_also_for_the_next_daemon(busy: Instance):
    before = keep(busy, 2)
    agent = claim(busy)
    assert busy.json("pool", "drain", "demo")["ended"] >= 1
    wait_until(lambda: pools(busy) == [] and slots(busy) == {}, "the slots to end")
    assert panes(busy) == {agent["id"]: before[agent["id"]]}, "whose owner was found stays"
    busy.cli("restart", *SET)
    assert pools(busy) == []
    refused = busy.cli("pool", "drain", "demo", check=False)
    assert refused.returncode == EXIT_NOT_FOUND
    assert "no agents of demo are kept booted" in refused.stderr


def test_fewer_are_fewer_at_once(busy: Instance):
    before = keep(busy, 3)
    after = keep(busy, 1)
    assert after.items() <= before.items()


# -- what does not boot


def script(lines: str) -> str:
    """Return the demo profile with a program of the test's."""
    args = 'args = ["-P", "-m", "agentd.testing.demo_agent"]'
    return DEMO.replace('"{python}"', '"sh"').replace(args, f"args = ['-c', '''{lines}''']")


NEVER_READY = DEMO.replace('"agentd.testing.demo_agent"', '"agentd.testing.demo_agent", "--mode", "never-ready"')


@pytest.fixture(scope="module")
def unready() -> Iterator[Instance]:
    """Give an instance that is asked for slots of profiles of which none boots: bad, mute and slow."""
    with instance() as whole:
        put_profile(whole, "bad", script(f"date +%s.%N >> {whole.directory / 'runs'}; exit 3"))
        put_profile(whole, "mute", NEVER_READY.replace("timeout_s = 20.0", "timeout_s = 0.5"))
        put_profile(whole, "slow", NEVER_READY)
        whole.up(BUSY, "pool.max_boot_s=3", "pool.boots_at_once=8", "pool.boots_per_min=1000")
        for profile in ("bad", "mute", "slow"):
            whole.call("pool.set", profile=profile, size=1, cwd=str(whole.directory))
        yield whole


@pytest.mark.slow
def test_a_profile_that_ends_at_once_is_left_alone_until_it_is_repaired(unready: Instance):
    runs, tries = unready.directory / "runs", form(1, 2)
    wait_until(lambda: "quarantined" in pool(unready, "bad")["why"], "it to be left alone")
    assert "its program exited with status 3" in pool(unready, "bad")["why"]
    wait_until(lambda: len(times(runs)) >= 3 + tries, "more tries")
    pauses = [after - before for before, after in zip(times(runs), times(runs)[1:], strict=False)]
    for pause, least_s in zip(pauses[2:], (0.8, 1.6)[:tries], strict=False):
        assert pause >= least_s, "a second, and two, less the jitter"
    assert agents(unready) == []
    put_profile(unready, "bad", DEMO)
    wait_until(lambda: pool(unready, "bad")["warm"] == 1, "it to boot")
    slot = claim(unready, profile="bad")
    assert slot["warm"] is True
    unready.call("agents.stop", targets=[slot["id"]], force=True)


def times(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_never_gets_ready_is_ended_and_told(unready: Instance):
    wait_until(lambda: "quarantined" in pool(unready, "mute")["why"], "it to be left alone")
    assert re.search(r"after \d boots that failed: ", pool(unready, "mute")["why"])
    wait_until(lambda: slots_of(unready, "mute") == set(), "the last one to be ended")


def test_what_boots_for_too_long_is_given_up(unready: Instance):
    """The pool's own limit, where the profile's is longer."""
    first = wait_until(lambda: slots_of(unready, "slow"), "a boot")
    wait_until(lambda: not first & panes(unready).keys(), "it to be given up")


def slots_of(whole: Instance, profile: str) -> set[str]:
    """Return the slots of a profile that have panes."""
    with closing(sqlite3.connect(f"file:{whole.directory / 'registry.db'}?mode=ro", uri=True)) as db:
        found = [json.loads(data) for (data,) in db.execute("SELECT data FROM agents")]
    return {slot["id"] for slot in found if slot["profile"] == profile} & panes(whole).keys()


def test_a_directory_that_is_gone_has_no_slots_any_more(busy: Instance):
    place = busy.place / "project"
    place.mkdir()
    keep(busy, 2, cwd=place)
    shutil.rmtree(place)
    wait_until(lambda: pool(busy)["target"] == 0 and slots(busy) == {}, "the slots to end")
    assert pool(busy)["why"] == f"{place} is gone"
    place.mkdir()
    filled(busy, 2)


def test_a_changed_profile_gets_new_programs(busy: Instance):
    before = keep(busy, 2, profile="changing")
    agent = claim(busy, name="ann", profile="changing")
    put_profile(busy, "changing", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    wait_until(lambda: not before.keys() & slots(busy).keys(), "the old ones to go")
    filled(busy, 2, "changing")
    assert busy.show("ann")["pid"] == agent["pid"], "whose owner was found goes on"
    answered(busy, "ann")


def test_a_profile_that_is_removed_has_no_slots_any_more(busy: Instance):
    keep(busy, 1, profile="passing")
    (busy.directory / "profiles" / "passing.toml").unlink()
    wait_until(lambda: slots(busy) == {}, "its slot to end")
    assert pool(busy, "passing")["why"] == "its profile is gone"


# -- what is refused


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (("set", "demo", "10"), EXIT_NOT_ALLOWED, "10 slots are more than pool.max_slots = 9"),
        (("set", "demo", "3", "--most", "2"), EXIT_USAGE, "most is 2 and size is 3"),
        (("set", "nothing", "1"), EXIT_NOT_FOUND, "nothing"),
        (("set", "demo", "1", "--cwd", "/nowhere"), EXIT_USAGE, "/nowhere is not a directory that can be entered"),
        (("set", "demo", "two"), EXIT_USAGE, "SIZE is two"),
        (("set", "demo", "-1"), EXIT_USAGE, "-1"),
        (("set", "demo", "1001"), EXIT_USAGE, "SIZE is 1001"),
        (("set", "demo", "1", "--most", "1001"), EXIT_USAGE, "1001"),
        (("set", "demo"), EXIT_USAGE, "SIZE"),
        (("drain", "sh"), EXIT_NOT_FOUND, "no agents of sh are kept booted"),
        (("drain", "demo", "--cwd", "/"), EXIT_NOT_FOUND, "no agents of demo are kept booted in /"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(kept: Instance, words: tuple[str, ...], code: int, why: str):
    before = pools(kept)
    here = () if "--cwd" in words or words[0] == "drain" else ("--cwd", str(kept.directory))
    refused = kept.cli("pool", *words, *here, check=False)
    assert (refused.returncode, refused.stdout) == (code, ""), refused
    assert why in refused.stderr
    assert refused.stderr.count("\n") == 1
    numbers = ("profile", "place", "floor", "ceiling", "target")
    assert [[row[key] for key in numbers] for row in pools(kept)] == [[row[key] for key in numbers] for row in before]


def test_a_pool_that_is_off_keeps_none_and_more_than_the_memory_allows_is_refused(idle_instance: Instance):
    idle_instance.up(BUSY, "pool.enabled=false", "pool.size=1", "pool.slot_mb=1000", "pool.max_slots=1000")
    refused = idle_instance.cli("pool", "set", "demo", "1000", "--cwd", str(idle_instance.directory), check=False)
    assert refused.returncode == EXIT_NOT_ALLOWED
    assert "more than this machine's memory allows" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert pools(idle_instance) == []
    idle_instance.call("pool.set", profile="demo", size=1, cwd=str(idle_instance.directory))
    assert claim(idle_instance)["warm"] is False
    assert (pool(idle_instance)["target"], slots(idle_instance)) == (0, {})


# -- limits


def test_slots_make_room_for_agents(idle_instance: Instance):
    """agents.max counts whoever runs; who asks comes first."""
    idle_instance.up(BUSY, "agents.max=4")
    other = idle_instance.directory / "other"
    other.mkdir()
    keep(idle_instance, 3)
    started = idle_instance.call("agents.spawn", profile="demo", n=3, cwd=str(other))["agents"]
    wait_until(lambda: len(slots(idle_instance)) == 1, "slots to make room")
    assert len(agents(idle_instance)) == 3
    idle_instance.spawn(cwd=str(other))
    wait_until(lambda: slots(idle_instance) == {}, "the last one to make room")
    with pytest.raises(AgentdError, match=r"agents\.max = 4"):
        idle_instance.spawn(cwd=str(other))
    idle_instance.call("agents.stop", targets=[agent["id"] for agent in started], force=True)
    filled(idle_instance, 3)


def test_where_one_was_asked_for_some_are_kept(idle_instance: Instance):
    """`pool.size`: nobody has to set a place."""
    idle_instance.up(BUSY, "pool.size=2")
    assert pools(idle_instance) == []
    assert claim(idle_instance)["warm"] is False
    filled(idle_instance, 2)
    assert claim(idle_instance)["warm"] is True
