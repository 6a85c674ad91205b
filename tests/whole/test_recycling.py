"""Recycling, whole: the program of a stopped agent is the next one's, and nothing of the old one is."""

from __future__ import annotations

import json
import os
import pty
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from faults import form, pane_pids
from instance import Instance, alive, instance, wait_until
from mcp_client import mcp_client
from pooling import BUSY, DEMO, agents, answered, at_a_new_place, claim, keep, panes, pool, pools, put_profile, slots

from agentd.agents.ids import id_of_session
from agentd.errors import EXIT_USAGE, AgentdError, Unauthenticated, Unavailable
from agentd.failpoint import VARIABLE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing else tells what an agent has started")

ONE_BOOT = "pool.boots_per_min=1"  # so that a place has room when its only slot was given away
SECRET = "the code is xyzzy"


SHARED = (BUSY, "pool.boots_at_once=1", "pool.boots_per_min=10000")
NEVER_READY = DEMO.replace('"agentd.testing.demo_agent"', '"agentd.testing.demo_agent", "--mode", "never-ready"')


def does(mode: list[str]) -> str:
    """Return the demo profile in a mode."""
    words = ["-P", "-m", "agentd.testing.demo_agent", "--mode", *mode]
    return DEMO.replace('["-P", "-m", "agentd.testing.demo_agent"]', json.dumps(words))


HASTY = DEMO.replace("timeout_s = 10.0", "timeout_s = 1.0")  # in what a new session takes
PROFILES = {
    "never-ready": NEVER_READY,
    "works": does(["slow", "--delay", "600"]),
    "asks": does(["asks-permission"]),
    "changes": DEMO,
    "not-fresh": HASTY.replace("; a new session", "; something else"),
    "not-known": HASTY.replace('text = "/clear"', 'text = "/forget"'),
    "ends": HASTY.replace('text = "/clear"', 'text = "/exit"'),
}


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    with instance() as one:
        for name, text in PROFILES.items():
            assert name == "changes" or text not in (DEMO, HASTY)
            put_profile(one, name, text)
        one.up(*SHARED)
        yield one


@pytest.fixture
def place(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance with a place of the test's own."""
    with at_a_new_place(shared) as one:
        yield one


@pytest.fixture
def whole(place: Instance) -> Instance:
    """Give one with one slot, at a place that takes programs back."""
    only(place)
    return place


def only(whole: Instance, profile: str = "demo") -> None:
    """Have one slot, and no other after it was given away, so that its place has room."""
    keep(whole, 1, profile=profile, recycle=True)
    whole.call("pool.set", profile="never-ready", size=1, cwd=str(whole.place))
    wait_until(lambda: pool(whole, "never-ready")["booting"] == 1, "the only boot at a time to be taken")


def written(whole: Instance) -> dict[str, dict[str, Any]]:
    """Return all that is on disk of the agents and slots, by id."""
    with closing(sqlite3.connect(f"file:{whole.directory / 'registry.db'}?mode=ro", uri=True)) as db:
        found = [json.loads(data) for (data,) in db.execute("SELECT data FROM agents")]
    return {agent["id"]: agent for agent in found}


def token_of(whole: Instance, home: str) -> str:
    return (whole.directory / "agents" / home / "token").read_text().strip()


def recycled(whole: Instance, count: int = 1, profile: str = "demo") -> None:
    """Wait until so many programs have come back, and the last one is ready."""
    wait_until(lambda: (pool(whole, profile)["recycled"], pool(whole, profile)["warm"]) == (count, 1), "it to be ready")


def whoami(whole: Instance, token: str) -> dict[str, Any]:
    with whole.client(token=token) as client:
        return dict(client.call("agents.whoami"))


def stop(whole: Instance, name: str) -> dict[str, Any]:
    (stopped,) = whole.call("agents.stop", targets=[name])["stopped"]
    assert stopped["state"] == "stopped"
    return whole.show(stopped["id"])


def said(whole: Instance, name: str, body: str) -> None:
    """Send an agent a message, and wait until it has acknowledged it."""
    with whole.client() as client:
        id_ = client.call("messages.send", to=name, body=body)["id"]
        client.call("messages.wait", id=id_, until="acked", timeout_s=30.0)


def read(whole: Instance, name: str, lines: int | None = None) -> str:
    return str(whole.call("agents.capture", target=name, lines=lines)["text"])


def printed(whole: Instance, agent: dict[str, Any]) -> str:
    return str(whole.call("agents.transcript", target=agent["id"])["text"])


# -- what is the next one's, and what stays the old one's


def test_the_program_of_a_stopped_agent_is_the_next_ones(whole: Instance):
    ann = claim(whole, name="ann")
    answered(whole, "ann")
    said(whole, "ann", SECRET)
    assert SECRET in read(whole, "ann")
    old = token_of(whole, ann["id"])
    with whole.client(token=old) as early:
        assert early.call("agents.whoami")["id"] == ann["id"], "the old token worked"
        after = stop(whole, "ann")
        with pytest.raises(AgentdError):
            early.call("agents.whoami")
    assert after["reason"] == "stopped on request; its program was recycled"
    with pytest.raises(Unauthenticated):
        whoami(whole, old)
    whole.call("messages.send", to=ann["id"], body="are you there?")
    recycled(whole)
    assert panes(whole)[ann["id"]] == ann["pid"], "the same program in the same session"
    assert len(panes(whole)) == 2, "its own and that of who boots"
    bob = claim(whole, name="bob")
    assert (bob["warm"], bob["pid"]) == (True, ann["pid"])
    assert bob["id"] != ann["id"]
    assert (bob["inbox"], whole.show("ann")["inbox"]) == (0, 1), "messages stay with whom they were sent to"
    assert sum(whole.show("bob")["messages"].values()) == 0
    answered(whole, "bob")
    who = whoami(whole, token_of(whole, ann["id"]))
    assert (who["id"], who["name"]) == (bob["id"], "bob")
    assert json.loads((whole.directory / "agents" / ann["id"] / "identity.json").read_text())["id"] == bob["id"]
    assert f"bob_{ann['id']}" in whole.tmux("list-sessions", "-F", "#{session_name}")
    assert whole.show("bob")["resume_id"] == ""


def test_nothing_of_the_old_session_is_shown_to_the_next(whole: Instance):
    ann = claim(whole, name="ann")
    said(whole, "ann", "\n".join(f"{SECRET} {number}" for number in range(200)))
    said(whole, "ann", SECRET)
    assert SECRET in read(whole, "ann", 1000)
    stop(whole, "ann")
    recycled(whole)
    bob = claim(whole, name="bob")
    answered(whole, "bob")
    shown = read(whole, "bob", 1000)
    assert "are you bob?" in shown
    assert SECRET not in shown
    wait_until(lambda: "are you bob?" in printed(whole, bob), "the transcript")
    assert SECRET not in printed(whole, bob)
    assert SECRET in printed(whole, ann)
    assert SECRET in read(whole, "ann"), "its last screen is kept"


def test_an_mcp_server_of_the_program_speaks_for_the_next(whole: Instance):
    ann = claim(whole, name="ann")
    file = whole.directory / "agents" / ann["id"] / "token"
    environ = {"AGENTD_SOCKET": str(whole.directory / "agentd.sock"), "AGENTD_TOKEN_FILE": str(file)}
    with mcp_client(environ) as client:
        assert client.use("whoami")["name"] == "ann"
        stop(whole, "ann")
        recycled(whole)
        bob = claim(whole, name="bob")
        assert client.use("whoami")["id"] == bob["id"]


def slots_of(whole: Instance) -> dict[str, int]:
    """Return the pids of the slots of the demo profile, by their ids."""
    pooled = {id_ for id_, agent in written(whole).items() if agent["pooled"] and agent["profile"] == "demo"}
    return {id_: pid for id_, pid in panes(whole).items() if id_ in pooled}


def test_a_program_is_recycled_again_and_again(whole: Instance):
    before = slots_of(whole)
    names = [f"a-{number}" for number in range(form(3, 4))]
    for number, name in enumerate(names, 1):
        agent = claim(whole, name=name)
        assert (agent["warm"], agent["pid"]) == (True, *before.values())
        answered(whole, name)
        stop(whole, name)
        recycled(whole, number)
    assert len({whole.show(name)["id"] for name in names}) == len(names)
    homes = [agent["booted_as"] or agent["id"] for agent in written(whole).values()]
    assert len(set(homes)) == len(homes), "each home is one agent's"


def test_a_team_gives_its_programs_back(whole: Instance):
    file = whole.place / "team.toml"
    file.write_text('[team]\nname = "crew"\ncwd = "."\n[[agents]]\nname = "worker"\nprofile = "demo"\n')
    (worker,) = whole.json("team", "up", str(file))["agents"]
    assert worker["warm"] is True
    whole.call("teams.down", team="crew")
    recycled(whole)
    assert claim(whole)["pid"] == worker["pid"]


def test_a_started_program_comes_back_too(whole: Instance):
    ann = claim(whole, name="ann")
    cold = whole.spawn(name="cold", cold=True)
    stop(whole, "cold")
    recycled(whole)
    bob = claim(whole, name="bob")
    assert bob["pid"] == cold["pid"] != ann["pid"]
    answered(whole, "ann", "bob")


def test_the_old_one_is_started_again_beside_its_program(whole: Instance):
    ann = claim(whole, name="ann")
    stop(whole, "ann")
    recycled(whole)
    bob = claim(whole, name="bob")
    whole.call("agents.respawn", target="ann")
    answered(whole, "ann", "bob")
    again = whole.show("ann")
    assert again["id"] == ann["id"]
    assert again["pid"] != bob["pid"] == ann["pid"]
    homes = {id_: agent["booted_as"] or id_ for id_, agent in written(whole).items()}
    assert homes[bob["id"]] == ann["id"] != homes[ann["id"]]
    assert whoami(whole, token_of(whole, homes[bob["id"]]))["id"] == bob["id"]
    assert whoami(whole, token_of(whole, homes[ann["id"]]))["id"] == ann["id"]
    for how in (whole.kill, *form((), (lambda: whole.cli("down"),))):
        how()
        whole.up(*SHARED)
        assert {agent["name"]: agent["pid"] for agent in agents(whole)} == {"ann": again["pid"], "bob": bob["pid"]}
        answered(whole, "ann", "bob")
    whole.call("agents.stop", targets=["bob"], force=True)
    assert not alive(bob["pid"])
    answered(whole, "ann")


def test_what_outlived_its_pane_is_taken_for_the_next(whole: Instance):
    """A program of ann's that left the pane keeps her id in its environment, which is bob's by now."""
    ann = claim(whole, name="ann")
    stop(whole, "ann")
    recycled(whole)
    bob = claim(whole, name="bob")
    environ = dict(pair.split("=", 1) for pair in Path(f"/proc/{bob['pid']}/environ").read_text().split("\0") if pair)
    assert environ["AGENTD_AGENT_ID"] == ann["id"]
    who = [sys.executable, "-m", "agentd", "call", "agents.whoami"]
    done = subprocess.run(who, env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["id"] == bob["id"]
    without = {name: value for name, value in environ.items() if name != "AGENTD_TOKEN_FILE"}
    done = subprocess.run(who, env=without, capture_output=True, text=True, check=False)
    assert "this program was started by bob" in done.stderr


# -- what is not recycled


def check_not_recycled(whole: Instance, agent: dict[str, Any], why: str, profile: str = "demo") -> None:
    after = stop(whole, agent["name"])
    assert after["reason"] == "stopped on request"
    assert not alive(agent["pid"])
    assert pool(whole, profile)["recycled"] == 0
    said_of_it = [line for line in (whole.directory / "agentd.log").read_text().splitlines() if agent["id"] in line]
    assert any("was not recycled" in line and why in line for line in said_of_it), said_of_it


def test_a_draft_is_somebodys(whole: Instance):
    ann = claim(whole, name="ann")
    with whole.client() as client:
        client.call("agents.keys", target="ann", keys=["h", "i"])
    wait_until(lambda: whole.call("agents.explain", target="ann")["draft"], "the draft to be seen")
    check_not_recycled(whole, ann, "it cannot take input now")


def test_variables_stay_with_whom_they_were_given_to(whole: Instance):
    claim(whole)
    check_not_recycled(whole, whole.spawn(name="ann", env={"A": "b"}), "it was started with variables of its own")


@pytest.mark.parametrize(("profile", "state"), [("works", "working"), ("asks", "waiting")])
def test_what_is_busy_or_asks_is_not_recycled(place: Instance, profile: str, state: str):
    only(place, profile)
    ann = claim(place, profile=profile, name="ann", prompt="go on")
    place.call("agents.wait", target="ann", until=state, timeout_s=20.0)
    check_not_recycled(place, ann, f"it cannot take input now ({state}", profile)


def test_what_somebody_looks_at_is_not_recycled(whole: Instance):
    ann = claim(whole, name="ann")
    with attached(whole.show("ann")["attach"]):
        wait_until(lambda: "1" in whole.tmux("display", "-p", "-t", ann["pane"], "#{session_attached}"), "the person")
        check_not_recycled(whole, ann, "somebody is attached to it")


@contextmanager
def attached(argv: list[str]) -> Iterator[None]:
    ours, theirs = pty.openpty()
    environ = {**os.environ, "TERM": "xterm"}
    environ.pop("TMUX", None)
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environ) as person:
        reading = threading.Thread(target=drained, args=(ours,), daemon=True)
        reading.start()
        try:
            yield
        finally:
            person.kill()
    os.close(theirs)
    reading.join(10)
    os.close(ours)


def drained(descriptor: int) -> None:
    try:
        while os.read(descriptor, 65_536):
            pass
    except OSError:  # nobody is at the other end any more
        return


def test_what_it_started_must_have_ended(whole: Instance):
    ann = claim(whole, name="ann")
    environ = dict(pair.split("=", 1) for pair in Path(f"/proc/{ann['pid']}/environ").read_text().split("\0") if pair)
    with subprocess.Popen(["sleep", "600"], env=environ) as left:
        try:
            check_not_recycled(whole, ann, "1 programs that it started still run")
        finally:
            left.kill()


def test_force_recycles_nothing(whole: Instance):
    ann = claim(whole, name="ann")
    whole.call("agents.stop", targets=["ann"], force=True)
    assert not alive(ann["pid"])
    assert pool(whole)["recycled"] == 0


def test_a_place_that_was_not_told_to_recycles_nothing_and_a_full_one_takes_none_back(place: Instance):
    keep(place, 1)
    for recycle in (False, True):
        keep(place, 1, recycle=recycle)
        cold = place.spawn(cold=True)
        stop(place, cold["name"])
        assert not alive(cold["pid"])
        row = pool(place)
        assert (row["warm"], row["recycle"], row["recycled"]) == (1, recycle, 0)


def test_a_place_that_was_not_told_to_recycles_nothing_though_it_has_room(whole: Instance):
    whole.call("pool.set", profile="demo", size=1, cwd=str(whole.place))
    ann = claim(whole, name="ann")
    stop(whole, "ann")
    assert not alive(ann["pid"])
    assert (pool(whole)["recycle"], pool(whole)["recycled"]) == (False, 0)


def test_what_another_daemon_has_started_is_not_recycled(whole: Instance):
    ann = claim(whole, name="ann")
    whole.cli("restart", *(word for setting in SHARED for word in ("--set", setting)))
    check_not_recycled(whole, ann, "its program was not started by this daemon")


def test_a_profile_that_has_changed_since_is_not_recycled(place: Instance):
    only(place, "changes")
    ann = claim(place, name="ann", profile="changes")
    put_profile(place, "changes", DEMO.replace("settle_ms = 50", "settle_ms = 60"))
    wait_until(lambda: place.call("profiles.get", name="changes")["boot"]["settle_ms"] == 60, "it to be taken up")
    check_not_recycled(place, ann, "from its profile as it is now", "changes")


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ("not-fresh", "its program showed no new session within 1 s"),
        ("not-known", "its program showed no new session within 1 s"),
        ("ends", ""),
    ],
)
def test_what_does_not_forget_is_ended_and_never_given_away(place: Instance, profile: str, why: str):
    only(place, profile)
    before = written(place).keys() - slots(place).keys()
    ann = claim(place, profile=profile, name="ann")
    stop(place, "ann")
    bob = claim(place, profile=profile, name="bob")
    assert bob["warm"] is False
    wait_until(lambda: not alive(ann["pid"]), "the program to be ended")
    mine = {ann["id"], bob["id"]}
    wait_until(lambda: of_profile(place, profile) - before == mine, "the slot to be forgotten")
    assert panes(place).keys() & of_profile(place, profile) == {bob["id"]}
    assert why in (place.directory / "agentd.log").read_text()
    assert pool(place, profile)["recycled"] == 0
    place.call("agents.respawn", target="ann")
    answered(place, "ann", "bob")


def of_profile(whole: Instance, profile: str) -> set[str]:
    return {id_ for id_, agent in written(whole).items() if agent["profile"] == profile}


# -- crashes


KILLED_AT = [("recycle.before_commit", True, False), ("recycle.after_commit", False, False)]
KILLED_AT += form([], [("recycle.after_typing", False, False), ("recycle.before_ready", False, False)])
KILLED_AT += [("recycle.after_ready", False, True)]


@pytest.mark.parametrize(("point", "old_lives", "comes_back"), KILLED_AT)
def test_killed_while_a_program_is_recycled(idle_instance: Instance, point: str, old_lives: bool, comes_back: bool):
    """No program is in two hands or in none, and one that has not forgotten is given to nobody."""
    idle_instance.cli("up", "--set", BUSY, "--set", ONE_BOOT, **{VARIABLE: f"{point}:kill"})
    daemon = idle_instance.pid()
    keep(idle_instance, 1, recycle=True)
    ann = claim(idle_instance, name="ann")
    with suppress(Unavailable):
        idle_instance.call("agents.stop", targets=["ann"])
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}")
    idle_instance.up(BUSY)
    wait_until(lambda: (pool(idle_instance)["warm"], pool(idle_instance)["booting"]) == (1, 0), "a slot to be ready")
    assert idle_instance.show("ann")["state"] == ("idle" if old_lives else "stopped")
    assert alive(ann["pid"]) == (old_lives or comes_back)
    bob = claim(idle_instance, name="bob")
    assert bob["warm"] is True
    assert (bob["pid"] == ann["pid"]) == comes_back
    answered(idle_instance, "bob")
    if not old_lives:
        idle_instance.call("agents.respawn", target="ann")
    answered(idle_instance, "ann", "bob")
    wait_until(lambda: pool(idle_instance)["warm"] == 1, "the refill")
    check_one_hand_each(idle_instance)


def check_one_hand_each(whole: Instance) -> None:
    """Check that each pane is exactly one agent's or slot's, and that each program can say who it is."""
    living = {agent["booted_as"] or id_: id_ for id_, agent in written(whole).items() if agent["pane"]}
    by_home = {id_of_session(session): pid for session, pid in pane_pids(whole).items()}
    assert by_home.keys() == living.keys()
    assert len(set(by_home.values())) == len(by_home)
    for home, id_ in living.items():
        assert whoami(whole, token_of(whole, home))["id"] == id_
    kept = {path.name for path in (whole.directory / "agents").iterdir()}
    assert kept <= {agent["booted_as"] or id_ for id_, agent in written(whole).items()}


# -- how it is set


def test_what_cannot_be_recycled_is_refused(place: Instance):
    here = str(place.place)
    refused = place.cli("pool", "set", "sh", "1", "--recycle", "--cwd", here, check=False)
    assert (refused.returncode, "the profile sh has no [recycle] table" in refused.stderr) == (EXIT_USAGE, True)
    refused = place.cli("pool", "set", "demo", "1", "--recycle", "--worktree", "--cwd", here, check=False)
    assert (refused.returncode, "are not recycled; nothing was changed" in refused.stderr) == (EXIT_USAGE, True)
    assert pools(place) == []


def test_a_project_or_a_command_says_so_and_it_is_kept(place: Instance):
    (place.place / "agentd.toml").write_text('[[pool]]\nprofile = "demo"\nsize = 1\nrecycle = true\n')
    here = ("--cwd", str(place.place))
    would = place.call("projects.get", cwd=str(place.place))["would"]
    assert any("take programs of stopped agents back" in line for line in would)
    place.cli("project", "trust", "--yes", *here)
    place.cli("project", "up", *here)
    assert pool(place)["recycle"] is True
    place.cli("pool", "set", "works", "0", "--recycle", *here)
    assert pool(place, "works")["recycle"] is True
    place.cli("restart", *(word for setting in SHARED for word in ("--set", setting)))
    assert [row["recycle"] for row in pools(place)] == [True, True], "it is kept"
