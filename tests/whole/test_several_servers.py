"""Agents on several tmux servers: everything works across them unseen, and a crash takes its own share only."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import form, rows, say
from instance import Instance, alive, instance, wait_until

from agentd.agents.profile import BUILT_IN, Profiles

SERVERS = 3
AGENTS = 6
SEEN_S = 1.0
SLACK_S = 2.0  # for a machine that does other things, too
LOST = "lost: its tmux server ended"


@pytest.fixture(scope="module")
def calm() -> Iterator[Instance]:
    """Give an instance that spreads its agents over servers which all live; each test starts as many as servers."""
    with instance() as whole:
        whole.up(f"tmux.servers={SERVERS}")
        yield whole


@pytest.fixture
def spread(idle_instance: Instance) -> Instance:
    """Give a running instance that spreads its agents over several servers, and whose daemon may be killed."""
    reviving(idle_instance)
    idle_instance.up(f"tmux.servers={SERVERS}")
    return idle_instance


@pytest.fixture(scope="module")
def shaken() -> Iterator[Instance]:
    """Give one for the tests that kill its servers, each of which stops its agents."""
    with instance() as whole:
        reviving(whole)
        whole.up(f"tmux.servers={SERVERS}")
        yield whole


def reviving(whole: Instance) -> None:
    """Add a profile of demo agents that are started again when their server crashed."""
    profiles = whole.directory / "profiles"
    profiles.mkdir(mode=0o700)
    demo = Path(__file__).parents[2] / "agentd" / "agents" / "profiles" / "demo.toml"
    assert Profiles.load(str(profiles)).origin("demo") == BUILT_IN
    (profiles / "phoenix.toml").write_text('on_lost = "respawn"\n' + demo.read_text())


def agents(whole: Instance) -> dict[str, dict[str, Any]]:
    with whole.client() as client:
        return {row["name"]: row for row in client.call("agents.list")["agents"]}


def shares(whole: Instance) -> dict[int, list[str]]:
    """Return who lives on which server."""
    found: dict[int, list[str]] = {}
    for name, row in agents(whole).items():
        found.setdefault(index_of(row), []).append(name)
    return found


def index_of(row: dict[str, Any]) -> int:
    return int(Path(row["socket"]).stem.removeprefix("tmux-"))


def kill_server(whole: Instance, index: int) -> None:
    os.kill(int(whole.tmux("display-message", "-p", "#{pid}", server=index)), signal.SIGKILL)


def events(whole: Instance, kind: str, since: int = 0) -> list[dict[str, Any]]:
    with whole.client() as client:
        found = client.call("events.list", types=[kind], since=since)["events"]
    return [event["data"] for event in found if event["type"] == kind]  # the other one is a gap, after a kill -9


def last_event(whole: Instance) -> int:
    with whole.client() as client:
        return int(client.call("events.list", limit=1)["last"])


def acked(whole: Instance, ids: Iterable[str], timeout_s: float) -> None:
    """Wait until all of these messages are answered."""
    with whole.client() as client:
        for id_ in ids:
            client.call("messages.wait", id=id_, until="acked", timeout_s=timeout_s)


def answers(whole: Instance, name: str, body: str) -> None:
    """Check that an agent answers."""
    with whole.client() as client:
        client.call("messages.wait", id=client.send(name, body).id, until="reply", timeout_s=20.0)


def test_everything_works_across_them(calm: Instance):
    """One name is enough for each command, also where two agents' panes have the same id."""
    calm.cli("spawn", "demo", "-n", str(SERVERS), "--wait", "idle")
    cast = agents(calm)
    assert {index_of(row) for row in cast.values()} == set(range(SERVERS))
    assert len({row["pane"] for row in cast.values()}) == 1, "the scene needs panes of equal ids"
    assert all(name in calm.cli("ls").stdout for name in cast)
    for name, row in cast.items():
        assert calm.cli("send", name, f"who is {name}?", "--wait", "reply", "--timeout", "20").stdout
        text = calm.cli("read", name).stdout
        assert [other for other in cast if f"who is {other}?" in text] == [name]
        shown = calm.json("show", name)
        assert (shown["socket"], shown["pane"]) == (row["socket"], row["pane"])
        assert shown["attach"][shown["attach"].index("-S") + 1] == row["socket"]
        assert attached_sees(calm, shown["attach"], name)
        assert f"who is {name}?" in calm.screen(row)
    status = calm.json("status")["tmux"]["servers"]
    assert [(row["index"], row["agents"]) for row in status] == [(index, 1) for index in range(SERVERS)]
    with calm.client() as client:
        sessions = client.call("sessions.list")["sessions"]
        assert sorted(row["server"] for row in sessions) == [*range(SERVERS)]
        for session in sessions:
            assert client.call("sessions.get", session=session["name"])["session"] == session
    first, *others, last = cast
    os.kill(cast[last]["pid"], signal.SIGKILL)
    wait_until(lambda: failed(calm) == [last], "the end of a program whose pane's id others have, too", 10)
    calm.cli("stop", first, "--force")
    assert not alive(cast[first]["pid"])
    assert all(alive(cast[name]["pid"]) for name in others)
    assert sorted(agents(calm)) == sorted([*others, last])
    stop_all(calm)


def stop_all(whole: Instance) -> None:
    with whole.client() as client:
        client.call("agents.stop", targets=["all"], force=True)


def attached_sees(whole: Instance, argv: list[str], name: str) -> bool:
    """Run what `attach` would, in a pane of another tmux, and see the agent's screen there."""
    looking_glass = ["-L", "glass", "-f", "/dev/null"]
    words = [*looking_glass, "new-session", "-d", "-x", "200", "-y", "50", "env -u TMUX " + shlex.join(argv)]
    run(whole, words)
    try:
        return bool(
            wait_until(lambda: f"who is {name}?" in run(whole, [*looking_glass, "capture-pane", "-p"]), "the screen")
        )
    finally:
        run(whole, [*looking_glass, "kill-server"])


def run(whole: Instance, words: list[str]) -> str:
    environ = whole.environ | {"TMUX_TMPDIR": str(whole.directory), "TERM": "xterm"}
    return subprocess.run(["tmux", *words], env=environ, capture_output=True, text=True, timeout=20).stdout


def test_one_of_three_is_killed(shaken: Instance):
    """F09: its agents fail within a second and say why, the others keep their pids and go on with their work."""
    begun = last_event(shaken)
    shaken.cli("spawn", "demo", "-n", str(AGENTS), "--wait", "idle")
    before, share = agents(shaken), shares(shaken)[1]
    assert len(share) == AGENTS // SERVERS
    receipt = shaken.json("send", share[0], "before the crash", "--wait", "acked", "--timeout", "20")
    kill_server(shaken, 1)
    started = time.monotonic()
    wait_until(lambda: failed(shaken) == sorted(share), "its share to be failed", 10)
    failed_s = time.monotonic() - started
    say(f"one of {SERVERS} servers killed: {len(share)} of {AGENTS} agents failed after {failed_s:.2f} s")
    assert failed_s <= SEEN_S + SLACK_S
    after = agents(shaken)
    assert {after[name]["reason"] for name in share} == {LOST}
    others = [name for name in after if name not in share]
    assert [(after[name]["pid"], after[name]["state"]) for name in others] == [
        (before[name]["pid"], "idle") for name in others
    ]
    answers(shaken, others[0], "and you?")
    gone = events(shaken, "tmux.gone", begun)
    assert [data["agents"] for data in gone] == [len(share)]
    assert gone[0]["server"]
    assert shaken.json("msg", receipt["id"])["state"] == "acked"
    shaken.cli("respawn", share[0])
    answers(shaken, share[0], "are you back?")
    assert index_of(agents(shaken)[share[0]]) == 1, "the least loaded is the one that was started again"
    stop_all(shaken)


def test_who_an_agent_is_whatever_its_server(calm: Instance):
    """Each program is taken for the agent in whose pane it runs, though panes of the others have the same id."""
    names = [calm.spawn("shell", name=f"s-{number}")["name"] for number in range(SERVERS)]
    assert len({row["pane"] for row in agents(calm).values()}) == 1, "the scene needs panes of equal ids"
    for name in names:
        out = calm.directory / f"{name}.out"
        ask = shlex.join([sys.executable, "-m", "agentd", "whoami", "--json"])
        with calm.client() as client:
            client.send(name, f"env -u AGENTD_TOKEN_FILE {ask} > {out}; echo done >> {out}")
        wait_until(lambda out=out: out.exists() and out.read_text().endswith("done\n"), "the answer")
        assert f'"name": "{name}"' in out.read_text()
    stop_all(calm)


def failed(whole: Instance) -> list[str]:
    return sorted(name for name, row in agents(whole).items() if row["state"] == "failed")


def test_a_killed_daemon_finds_every_server_whatever_the_setting(spread: Instance):
    """kill -9 and a start with one server only: all are adopted, new agents go to the first."""
    log = spread.directory / "log"
    spread.cli("spawn", "sh", "-n", str(AGENTS - 1), "--wait", "idle")
    spread.spawn(name="logged", env={"AGENTD_DEMO_LOG": str(log)})
    before = agents(spread)
    assert {index_of(row) for row in before.values()} == set(range(SERVERS))
    for servers in form((1,), (SERVERS, 1)):
        spread.kill()
        spread.up(f"tmux.servers={servers}")
        assert identities(agents(spread)) == identities(before)
    receipt = spread.json("send", "logged", "found again?", "--wait", "acked", "--timeout", "20")
    assert [row["id"] for row in rows(log)] == [receipt["id"]]
    new = spread.json("spawn", "sh", "-n", "3", "--wait", "idle")["agents"]
    assert {index_of(row) for row in new} == {0}
    spread.cli("down", "--agents", "stop")
    wait_until(lambda: not spread.processes(), "every server and every agent to end", 20)


def identities(cast: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: [row[key] for key in ("id", "pid", "pane", "socket")] for name, row in cast.items()}


def test_a_lost_agent_that_wants_it_is_started_again(shaken: Instance):
    """`on_lost = "respawn"`: the same identity, and what waited for it or was not acknowledged reaches it."""
    begun = last_event(shaken)
    log = shaken.directory / "log"
    env = {"AGENTD_DEMO_LOG": str(log), "AGENTD_DEMO_MODE": "slow", "AGENTD_DEMO_DELAY_S": "3"}
    for number in range(SERVERS):
        shaken.spawn("phoenix", name=f"p-{number}", env=env if number == 1 else {})
    shaken.spawn(name="plain-0")
    shaken.spawn(name="plain-1")  # beside p-1
    before = agents(shaken)
    assert index_of(before["p-1"]) == index_of(before["plain-1"]) == 1
    busy = shaken.json("send", "p-1", "this takes long", "--wait", "delivered", "--timeout", "20")
    waiting = shaken.json("send", "p-1", "this waits")
    assert [shaken.json("msg", sent["id"])["state"] for sent in (busy, waiting)] == ["delivered", "accepted"]
    kill_server(shaken, 1)
    wait_until(lambda: agents(shaken)["p-1"]["pid"] not in (None, before["p-1"]["pid"]), "p-1 to be started again", 20)
    both = {busy["id"], waiting["id"]}
    acked(shaken, both, 60)
    assert {row["id"] for row in rows(log)} == both
    after = agents(shaken)
    assert after["p-1"]["id"] == before["p-1"]["id"]
    assert (after["plain-1"]["state"], after["plain-1"]["reason"]) == ("failed", LOST)
    assert [after[name]["pid"] for name in ("p-0", "p-2")] == [before[name]["pid"] for name in ("p-0", "p-2")]
    assert [data["name"] for data in events(shaken, "agent.respawned", begun)] == ["p-1"]
    stop_all(shaken)


def test_what_watched_a_lost_agent_does_not_end_its_successor(shaken: Instance):
    """Whoever looks at an agent when its server dies finds out late; that is no news about the one started since."""
    begun = last_event(shaken)
    shaken.cli("spawn", "phoenix", "-n", str(AGENTS), "--wait", "idle")
    before, share = agents(shaken), shares(shaken)[1]
    server = int(shaken.tmux("display-message", "-p", "#{pid}", server=1))
    os.kill(server, signal.SIGSTOP)
    sent = [shaken.json("send", name, "look at your screen")["id"] for name in share]  # a look that gets no answer
    os.kill(server, signal.SIGKILL)
    acked(shaken, sent, 30)
    assert not [data for data in events(shaken, "agent.state", begun) if "its program" in data["reason"]]
    after = agents(shaken)
    assert all(after[name]["pid"] not in (None, before[name]["pid"]) for name in share)
    assert sorted(data["name"] for data in events(shaken, "agent.respawned", begun)) == sorted(share)
    stop_all(shaken)


def test_a_lost_agent_is_started_again_by_the_next_daemon_too(spread: Instance):
    """Server and daemon die together; an agent whose own program is gone from a server that lives is only failed."""
    spread.cli("spawn", "phoenix", "-n", str(SERVERS), "--wait", "idle")
    before = agents(spread)
    name_of = {index_of(row): name for name, row in before.items()}
    spread.kill()
    kill_server(spread, 1)
    spread.tmux("kill-session", "-t", before[name_of[2]]["session"], server=2)
    spread.tmux("unlink-window", "-k", "-t", f"_agentd:{window_of(spread, before[name_of[2]], 2)}", server=2)
    spread.up(f"tmux.servers={SERVERS}")
    spread.cli("wait", name_of[1], "--for", "idle", "--timeout", "20")
    after = agents(spread)
    assert after[name_of[1]]["id"] == before[name_of[1]]["id"]
    assert after[name_of[0]]["pid"] == before[name_of[0]]["pid"]
    assert after[name_of[2]]["state"] == "failed"
    assert [data["name"] for data in events(spread, "agent.respawned")] == [name_of[1]]


def window_of(whole: Instance, row: dict[str, Any], server: int) -> str:
    """Return the window of an agent's pane."""
    return whole.tmux("display-message", "-p", "-t", row["pane"], "#{window_id}", server=server).strip()


def test_an_agent_whose_servers_keep_dying_is_not_started_for_ever(shaken: Instance):
    """Attempts are counted over several crashes; after that it stays failed and says so."""
    shaken.spawn("phoenix", name="p")
    for crash in range(1, 7):
        row = wait_until(lambda: (row := agents(shaken)["p"]) and row["pid"] and row, f"it to run before crash {crash}")
        kill_server(shaken, index_of(row))
        wait_until(lambda pid=row["pid"]: agents(shaken)["p"]["pid"] != pid, "the crash to be seen")
        if "not started again" in agents(shaken)["p"]["reason"]:
            break
    wait_until(lambda: "tried 5 times" in agents(shaken)["p"]["reason"], "it to be given up", 10)
    assert failed(shaken) == ["p"]
    shaken.cli("respawn", "p")  # a person may
    shaken.cli("wait", "p", "--for", "idle", "--timeout", "20")
    stop_all(shaken)
