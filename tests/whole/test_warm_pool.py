"""The warm pool, whole: what is kept booted, who gets it, and what is anybody's business of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from instance import Instance, alive, instance, wait_until
from mcp_client import mcp_client
from pooling import BUSY, DEMO, agents, answered, claim, filled, keep, panes, pool, pools, put_profile, slots

from agentd.errors import EXIT_NOT_ALLOWED, EXIT_NOT_FOUND, EXIT_USAGE, AgentdError, AlreadyExists, Unauthenticated

ROW = {"profile", "place", "target", "warm", "booting", "hits", "misses"}


@pytest.fixture
def busy(idle_instance: Instance) -> Instance:
    """Give an instance whose pool does not mind the load of the machine."""
    idle_instance.up(BUSY)
    return idle_instance


@pytest.fixture(scope="module")
def kept() -> Iterator[Instance]:
    """Give the tests that change nothing an instance with two slots."""
    with instance() as whole:
        whole.up(BUSY, "pool.max_slots=9")
        keep(whole, 2)
        yield whole


def token_file(whole: Instance, id_: str) -> Path:
    return whole.directory / "agents" / id_ / "token"


# -- hits


def test_a_spawn_where_agents_are_kept_takes_one_of_them(busy: Instance):
    before = keep(busy, 2)
    (agent,) = busy.json("spawn", "demo", "--cwd", str(busy.directory))["agents"]
    assert agent["warm"] is True
    assert (agent["id"], agent["pid"]) in before.items()
    assert (agent["state"], agent["reason"]) == ("idle", "the composer is empty")
    answered(busy, agent["name"])
    after = filled(busy, 2)
    assert len(after.keys() & before.keys()) == 1, "the other one stays"
    (row,) = busy.json("pool", "ls")
    assert row.keys() >= ROW
    assert (row["profile"], row["place"], row["target"]) == ("demo", str(busy.directory), 2)
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
    with busy.client() as client:
        started = client.call("agents.spawn", profile="demo", n=4, cwd=str(busy.directory))["agents"]
    assert len({agent["id"] for agent in started}) == len({agent["pid"] for agent in started}) == 4
    assert {agent["id"] for agent in started if agent["warm"]} == before.keys()
    answered(busy, *(agent["name"] for agent in started))
    assert (pool(busy)["hits"], pool(busy)["misses"]) == (2, 2)


def test_what_a_slot_is_not_started_for_gets_a_fresh_program(busy: Instance):
    before = keep(busy, 1)
    here, other = str(busy.directory), busy.directory / "other"
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
    assert kept.json("ls") == kept.json("ls", "--state", "stopped") == []
    for target in ("all", "%demo", id_, id_[:6], f"pool-{id_}"):
        for words in (("send", target, "hi"), ("ls", target), ("show", target), ("read", target), ("respawn", target)):
            refused = kept.cli(*words, check=False)
            assert (refused.returncode, refused.stdout) == (EXIT_NOT_FOUND, ""), (words, refused)
            assert f"no agent is named by `{target}`" in refused.stderr
        assert kept.cli("stop", "--force", target, check=False).returncode != 0
    with kept.client() as client:
        events = client.call("events.list", limit=10_000)["events"]
        assert client.call("daemon.status")["agents"]["live"] == 0
    assert [event for event in events if event["type"].startswith("agent.")] == []
    assert pool(kept)["warm"] == 2


def test_an_agent_in_the_pool_has_its_name_to_itself(busy: Instance):
    """Somebody may be named as the pool would name a slot: sessions are found by their ids."""
    (id_,) = keep(busy, 1)
    named = busy.spawn(name=f"pool-{id_}", cold=True)
    assert busy.json("show", f"pool-{id_}")["id"] == named["id"] != id_
    busy.cli("stop", f"pool-{id_}")
    assert slots(busy).keys() == {id_}


def test_slots_are_counted_apart_from_agents(busy: Instance):
    keep(busy, 2)
    busy.spawn(name="ann", cold=True)
    said = busy.cli("status").stdout
    assert re.search(r"^pool +2 of 2 ready, in 1 place$", said, re.MULTILINE), said
    assert re.search(r"^agents +1 live, 1 idle$", said, re.MULTILINE), said
    assert busy.cli("down").stdout.endswith("; 1 agent and 2 of the pool stay alive\n")
    busy.up(BUSY)
    filled(busy, 2)
    busy.cli("stop", "ann")
    assert busy.cli("down").stdout.endswith("; 2 of the pool stay alive\n")
    busy.up(BUSY)
    busy.cli("pool", "drain", "demo")
    wait_until(lambda: slots(busy) == {}, "the slots to end")
    assert "alive" not in busy.cli("down").stdout


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
        "cwd": str(busy.directory),
        "env": {},
    }


def test_an_mcp_server_that_was_started_in_the_pool_speaks_as_the_agent(busy: Instance):
    """Before and after the connection that it made in the pool: the next one takes the token as it is by then."""
    (id_,) = keep(busy, 1)
    socket = str(busy.directory / "agentd.sock")
    with mcp_client({"AGENTD_SOCKET": socket, "AGENTD_TOKEN_FILE": str(token_file(busy, id_))}) as client:
        assert client.use("whoami")["id"] == id_
        assert claim(busy, name="ann")["id"] == id_
        assert client.use("whoami")["name"] == "ann"
        client.use("send_message", to="operator", body="here I am")
        busy.cli("restart", "--set", BUSY)
        assert client.use("whoami")["name"] == "ann"
    (message,) = busy.json("inbox")
    assert (message["from"], message["body"]) == ("ann", "here I am")


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
    agent = claim(busy, name="ann")
    with busy.client() as client:
        told = client.call("events.list", types=["agent.spawned"])["events"]
        assert [event["data"]["name"] for event in told] == ["ann"]
    filled(busy, 1)
    with pytest.raises(AlreadyExists):
        claim(busy, name="ann")
    assert pool(busy)["warm"] == 1, "a name that is taken costs no slot"
    (stopped,) = busy.json("stop", "ann")["stopped"]
    assert (stopped["id"], stopped["state"]) == (agent["id"], "stopped")
    assert not alive(agent["pid"])
    busy.cli("respawn", "ann")
    answered(busy, "ann")
    again = busy.json("show", "ann")
    assert (again["id"], again["cwd"]) == (agent["id"], str(busy.directory))
    assert again["pid"] != agent["pid"]
    assert f"ann_{agent['id']}" in sessions(busy)


def test_a_team_takes_from_the_pool(busy: Instance):
    before = keep(busy, 2)
    file = busy.directory / "team.toml"
    file.write_text(
        '[team]\nname = "crew"\ncwd = "."\n[[agents]]\nname = "worker"\ncount = 3\nrole = "worker"\nprofile = "demo"\n'
    )
    members = busy.json("team", "up", str(file))["agents"]
    assert {agent["id"] for agent in members if agent["warm"]} == before.keys()
    assert {(agent["team"], agent["role"]) for agent in members} == {("crew", "worker")}
    answered(busy, "worker-1", "worker-2", "worker-3")
    busy.cli("team", "down", "crew")
    filled(busy, 2)


# -- what was kept stays kept


@pytest.mark.parametrize("how", ["down", "kill"])
def test_slots_outlive_the_daemon(busy: Instance, how: str):
    """F01: the next daemon goes on with the same programs; what died is replaced."""
    before = keep(busy, 2)
    if how == "down":
        busy.cli("down")
    else:
        busy.kill()
    busy.up(BUSY)
    assert filled(busy, 2) == before
    dead, pid = next(iter(before.items()))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: dead not in panes(busy), "the dead one to be removed")
    after = filled(busy, 2)
    assert len(after.keys() & before.keys()) == 1
    assert claim(busy)["id"] in after
    assert busy.json("ls", "--state", "failed") == [], "nobody hears of a slot's death"


def test_what_died_while_no_daemon_ran_is_replaced(busy: Instance):
    before = keep(busy, 2)
    busy.cli("down")
    dead, pid = next(iter(before.items()))
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), "it to die")
    busy.up(BUSY)
    wait_until(lambda: pool(busy)["warm"] == 2, "two to be ready")
    after = filled(busy, 2)
    assert dead not in after
    assert not token_file(busy, dead).parent.exists()


def test_slots_that_are_drained_while_they_are_started_leave_nothing(idle_instance: Instance):
    idle_instance.up(BUSY, "pool.boots_at_once=8", "pool.slot_mb=10")
    for _ in range(3):
        with idle_instance.client() as client:
            client.call("pool.set", profile="demo", size=8, cwd=str(idle_instance.directory))
            client.call("pool.drain", profile="demo")
        wait_until(lambda: not pools(idle_instance), "the place to be forgotten")
        wait_until(lambda: not panes(idle_instance), "every pane to go")
    assert "KeyError" not in (idle_instance.directory / "agentd.log").read_text()


def test_the_daemon_stops_while_slots_end(idle_instance: Instance):
    for _ in range(3):
        idle_instance.up(BUSY, "pool.slot_mb=10", "pool.boots_at_once=8")
        keep(idle_instance, 6)
        idle_instance.cli("pool", "drain", "demo")
        idle_instance.cli("down", "--agents", "stop")
    log = (idle_instance.directory / "agentd.log").read_text()
    assert log.count('"daemon stopped"') == 3
    assert "Traceback" not in log


def test_drained_is_drained_also_for_the_next_daemon(busy: Instance):
    before = keep(busy, 2)
    agent = claim(busy)
    assert busy.json("pool", "drain", "demo")["ended"] >= 1
    wait_until(lambda: pools(busy) == [] and slots(busy) == {}, "the slots to end")
    assert panes(busy) == {agent["id"]: before[agent["id"]]}, "whose owner was found stays"
    busy.cli("restart", "--set", BUSY)
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


@pytest.mark.slow
def test_a_profile_that_ends_at_once_is_left_alone_until_it_is_repaired(idle_instance: Instance):
    runs = idle_instance.directory / "runs"
    put_profile(idle_instance, "bad", script(f"date +%s.%N >> {runs}; exit 3"))
    idle_instance.up(BUSY, "pool.boots_per_min=1000")
    idle_instance.cli("pool", "set", "bad", "1", "--cwd", str(idle_instance.directory))
    wait_until(lambda: "quarantined" in pool(idle_instance, "bad")["why"], "it to be left alone")
    assert "its program exited with status 3" in pool(idle_instance, "bad")["why"]
    wait_until(lambda: len(times(runs)) >= 5, "two more tries")
    pauses = [after - before for before, after in zip(times(runs), times(runs)[1:], strict=False)]
    assert pauses[2] >= 0.8, "a second, and two, less the jitter"
    assert pauses[3] >= 1.6
    assert agents(idle_instance) == []
    put_profile(idle_instance, "bad", DEMO)
    (id_,) = filled(idle_instance, 1, "bad")
    assert claim(idle_instance, profile="bad")["id"] == id_


def times(file: Path) -> list[float]:
    return [float(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_never_gets_ready_is_ended_and_told(idle_instance: Instance):
    mode = DEMO.replace('"agentd.testing.demo_agent"', '"agentd.testing.demo_agent", "--mode", "never-ready"')
    put_profile(idle_instance, "mute", mode.replace("timeout_s = 20.0", "timeout_s = 1.0"))
    idle_instance.up(BUSY)
    idle_instance.cli("pool", "set", "mute", "1", "--cwd", str(idle_instance.directory))
    wait_until(lambda: "quarantined" in pool(idle_instance, "mute")["why"], "it to be left alone")
    assert "after 3 boots that failed: " in pool(idle_instance, "mute")["why"]
    wait_until(lambda: slots(idle_instance) == {}, "the last one to be ended")


def test_what_boots_for_too_long_is_given_up(idle_instance: Instance):
    """The pool's own limit, where the profile's is longer."""
    mode = DEMO.replace('"agentd.testing.demo_agent"', '"agentd.testing.demo_agent", "--mode", "never-ready"')
    put_profile(idle_instance, "mute", mode)
    idle_instance.up(BUSY, "pool.max_boot_s=1.5")
    idle_instance.cli("pool", "set", "mute", "1", "--cwd", str(idle_instance.directory))
    first = wait_until(lambda: slots(idle_instance), "the first boot")
    wait_until(lambda: not first.keys() & slots(idle_instance).keys(), "it to be given up")


def test_a_directory_that_is_gone_has_no_slots_any_more(busy: Instance):
    place = busy.directory / "project"
    place.mkdir()
    keep(busy, 2, cwd=place)
    shutil.rmtree(place)
    wait_until(lambda: pool(busy)["target"] == 0 and slots(busy) == {}, "the slots to end")
    assert pool(busy)["why"] == f"{place} is gone"
    place.mkdir()
    filled(busy, 2)


def test_a_changed_profile_gets_new_programs(busy: Instance):
    before = keep(busy, 2)
    agent = claim(busy, name="ann")
    put_profile(busy, "demo", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    wait_until(lambda: not before.keys() & slots(busy).keys(), "the old ones to go")
    filled(busy, 2)
    assert busy.json("show", "ann")["pid"] == agent["pid"], "whose owner was found goes on"
    answered(busy, "ann")


def test_a_profile_that_is_removed_has_no_slots_any_more(busy: Instance):
    put_profile(busy, "mine", DEMO)
    wait_until(lambda: "mine" in {row["name"] for row in busy.json("profile", "ls")}, "it to be taken up")
    keep(busy, 1, profile="mine")
    (busy.directory / "profiles" / "mine.toml").unlink()
    wait_until(lambda: slots(busy) == {}, "its slot to end")
    assert pool(busy, "mine")["why"] == "its profile is gone"


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


def test_more_than_the_memory_allows_is_refused(idle_instance: Instance):
    idle_instance.up(BUSY, "pool.slot_mb=100000", "pool.max_slots=1000")
    refused = idle_instance.cli("pool", "set", "demo", "100", "--cwd", str(idle_instance.directory), check=False)
    assert refused.returncode == EXIT_NOT_ALLOWED
    assert "more than this machine's memory allows" in refused.stderr
    assert "nothing was changed" in refused.stderr
    assert pools(idle_instance) == []


# -- limits


def test_slots_make_room_for_agents(idle_instance: Instance):
    """agents.max counts whoever runs; who asks comes first."""
    idle_instance.up(BUSY, "agents.max=4")
    other = idle_instance.directory / "other"
    other.mkdir()
    keep(idle_instance, 3)
    started = [idle_instance.spawn(cwd=str(other)) for _ in range(3)]
    wait_until(lambda: len(slots(idle_instance)) == 1, "slots to make room")
    assert len(agents(idle_instance)) == 3
    idle_instance.spawn(cwd=str(other))
    wait_until(lambda: slots(idle_instance) == {}, "the last one to make room")
    with pytest.raises(AgentdError, match=r"agents\.max = 4"):
        idle_instance.spawn(cwd=str(other))
    idle_instance.cli("stop", "--force", *(agent["id"] for agent in started))
    filled(idle_instance, 3)


def test_where_one_was_asked_for_some_are_kept(idle_instance: Instance):
    """`pool.size`: nobody has to set a place."""
    idle_instance.up(BUSY, "pool.size=2")
    assert pools(idle_instance) == []
    assert claim(idle_instance)["warm"] is False
    filled(idle_instance, 2)
    assert claim(idle_instance)["warm"] is True


def test_a_pool_that_is_off_keeps_none(idle_instance: Instance):
    idle_instance.up(BUSY, "pool.enabled=false", "pool.size=1")
    idle_instance.cli("pool", "set", "demo", "1", "--cwd", str(idle_instance.directory))
    assert claim(idle_instance)["warm"] is False
    assert (pool(idle_instance)["target"], slots(idle_instance)) == (0, {})
