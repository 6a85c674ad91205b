"""Many cold agents at once, whole: who boots, who waits for a turn, and what becomes of those whose turn never comes.

The agents' programs write down that they began, and boot until the test lets them.
"""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from instance import DEADLINE_S, Instance, instance, wait_until
from pooling import BUSY, DEMO, agents, emptied, panes, pools, put_profile
from repos import git

from agentd.client import Client
from agentd.errors import AgentdError, AgentGone, DeadlineExceeded

ARGS = 'args = ["-P", "-m", "agentd.testing.demo_agent"]'
SCRIPT = """echo "begin $AGENTD_AGENT" >> {log}
until [ -e {let}/$AGENTD_AGENT ] || [ -e {let}/all ]; do sleep 0.02; done
echo "boots $AGENTD_AGENT" >> {log}
exec {python} -P -m agentd.testing.demo_agent"""


class Boots:
    """An instance with the profile `slow`, whose agents boot for as long as the test wants."""

    def __init__(self, whole: Instance) -> None:
        self.whole = whole
        self.log, self.let = whole.directory / "boots.log", whole.directory / "let"
        self.let.mkdir()
        self.known: set[str] = set()  # of earlier tests
        script = SCRIPT.format(log=self.log, let=self.let, python=sys.executable)
        slow = DEMO.replace('"{python}"', '"sh"').replace(ARGS, f"args = ['-c', '''{script}''']")
        slow = slow.replace("cores = 0.0 ", "cores = 1.0 ").replace("timeout_s = 20.0", "timeout_s = 120.0")
        assert "cores = 1.0" in slow
        put_profile(whole, "slow", slow)

    def forget(self) -> None:
        """End what runs, and take it that nothing has begun yet."""
        self.release("all")
        emptied(self.whole)
        self.log.unlink(missing_ok=True)
        for file in self.let.iterdir():
            file.unlink()
        self.known = self.directories()

    def directories(self) -> set[str]:
        """Return whose directories there are."""
        return {path.name for path in (self.whole.directory / "agents").glob("*")}

    def begun(self) -> list[str]:
        """Return whose programs have begun, in order."""
        return self.said("begin")

    def said(self, what: str) -> list[str]:
        lines = self.log.read_text().split("\n") if self.log.exists() else []
        return [line.split()[1] for line in lines if line.startswith(f"{what} ")]

    def until_begun(self, count: int) -> list[str]:
        wait_until(lambda: len(self.begun()) >= count, f"{count} to begin")
        return self.begun()

    def release(self, *names: str) -> None:
        """Let agents come to the end of their boots."""
        for name in names:
            (self.let / name).touch()

    def starting(self) -> dict[str, Any]:
        """Return how far this process's spawns are."""
        with self.whole.client() as client:
            return dict(client.call("agents.starting"))

    def until_waiting(self, count: int) -> None:
        wait_until(lambda: self.starting()["waiting"] == count, f"{count} to wait for their turn")

    def spawn(self, **more: Any) -> dict[str, Any]:
        timeout_s = more.pop("timeout_s", 60.0)
        with self.whole.client() as client:
            params = {"profile": "slow", "cwd": str(self.whole.directory), **more}
            return dict(client.call("agents.spawn", params, timeout_s=timeout_s))

    @contextmanager
    def spawning(self, **more: Any) -> Iterator[list[dict[str, Any]]]:
        """Spawn beside the block; the list has the answer at its end."""
        answers: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: answers.append(self.spawn(**more)))
        thread.start()
        try:
            yield answers
        finally:
            self.release("all")
            thread.join(DEADLINE_S)
            assert not thread.is_alive()


@pytest.fixture
def boots(idle_instance: Instance) -> Boots:
    return Boots(idle_instance)


NARROW = ("agents.boots_cores=1", BUSY, "pool.boots_per_min=10000")


@pytest.fixture(scope="module")
def shared() -> Iterator[Boots]:
    with instance() as whole:
        boots = Boots(whole)
        whole.up(*NARROW)
        yield boots


@pytest.fixture
def narrow(shared: Boots) -> Iterator[Boots]:
    """Give one with room for one boot at a time, where nobody boots yet."""
    yield shared
    shared.forget()


# -- how many


def test_no_more_boot_at_once_than_there_are_cores(boots: Boots):
    boots.whole.up("agents.boots_cores=2")
    with boots.spawning(n=6, name="a") as answers:
        assert sorted(boots.until_begun(2)) == ["a-1", "a-2"]
        wait_until(lambda: boots.starting()["started"] == 2, "tmux to have two")
        assert boots.starting() == {"asked": 6, "started": 2, "ready": 0, "waiting": 4, "why": "2 cores"}
        assert len(panes(boots.whole)) == 2
        assert [agent["name"] for agent in boots.whole.json("ls")] == ["a-1", "a-2"]
        assert boots.whole.show("a-1")["state"] == "starting"
        boots.release("a-1")
        assert boots.until_begun(3)[2] == "a-3"
        assert len(boots.begun()) == len(panes(boots.whole)) == 3
    assert [agent["name"] for agent in answers[0]["agents"]] == [f"a-{n}" for n in range(1, 7)]
    assert answers[0]["failed"] == []
    assert boots.until_begun(6)[2:] == ["a-3", "a-4", "a-5", "a-6"], "in the order they were asked for"
    assert most_at_once(boots.log.read_text()) == 2
    assert boots.starting() == {"asked": 0, "started": 0, "ready": 0, "waiting": 0, "why": ""}


def most_at_once(log: str) -> int:
    most = now = 0
    for line in log.splitlines():
        now += 1 if line.startswith("begin") else -1
        most = max(most, now)
    return most


def test_memory_that_is_short_lets_one_boot_at_a_time(boots: Boots):
    boots.whole.up("agents.boots_cores=64", "agents.boots_reserve_mb=1000000")
    with boots.spawning(n=3, name="a") as answers:
        boots.until_begun(1)
        boots.until_waiting(2)
        assert boots.starting()["why"].endswith(" MB of memory free")
    assert len(answers[0]["agents"]) == 3
    assert most_at_once(boots.log.read_text()) == 1


def test_what_takes_nothing_waits_for_nobody(narrow: Boots):
    with narrow.spawning(n=2, name="a"):
        narrow.until_waiting(1)
        assert narrow.whole.spawn("demo", name="quick")["name"] == "quick"
        assert narrow.begun() == ["a-1"]


def test_one_that_ends_or_never_gets_ready_makes_room(narrow: Boots):
    with narrow.spawning(n=3, name="a"):
        narrow.until_begun(1)
        wait_until(lambda: narrow.starting()["started"] == 1, "its start to be over")
        narrow.whole.call("agents.stop", targets=["a-1"], force=True)
        narrow.until_begun(2)
        os.kill(panes(narrow.whole)[narrow.whole.show("a-2")["id"]], 9)
        assert narrow.until_begun(3) == ["a-1", "a-2", "a-3"]


# -- whose turn


def test_a_spawn_of_one_is_not_behind_all_of_anothers(narrow: Boots):
    with narrow.spawning(n=9, name="big"):
        narrow.until_begun(1)
        narrow.until_waiting(8)
        with narrow.spawning(name="solo"):
            narrow.until_waiting(9)
            narrow.release("big-1", "big-2", "solo")
            assert "solo" in narrow.until_begun(3)


def test_refills_of_the_pool_wait_for_users(narrow: Boots):
    with narrow.spawning(n=3, name="a", cold=True):
        narrow.until_waiting(2)
        narrow.whole.call("pool.set", profile="slow", size=1, cwd=str(narrow.whole.directory))
        narrow.release("a-1", "a-2")
        assert narrow.until_begun(3) == ["a-1", "a-2", "a-3"]
        narrow.release("a-3")
        assert narrow.until_begun(4)[3].startswith("pool-")


def test_a_refill_that_is_drained_while_it_waits_is_never_begun(narrow: Boots):
    with narrow.spawning(name="a", cold=True) as answers:
        narrow.until_begun(1)
        narrow.whole.call("pool.set", profile="slow", size=1, cwd=str(narrow.whole.directory))
        wait_until(lambda: pools(narrow.whole)[0]["booting"] == 1, "the refill to be decided")
        narrow.whole.call("pool.drain", profile="slow")
        wait_until(lambda: pools(narrow.whole) == [], "the place to be forgotten")
    assert len(answers) == 1
    narrow.spawn(name="b")
    assert narrow.until_begun(2) == ["a", "b"]


def test_a_respawn_waits_for_its_turn(narrow: Boots):
    narrow.release("old")
    narrow.spawn(name="old")
    wait_until(lambda: narrow.whole.show("old")["state"] == "idle", "it to boot")
    narrow.whole.call("agents.stop", targets=["old"])
    with narrow.spawning(name="a"):
        narrow.until_begun(2)
        with narrow.whole.client() as client, pytest.raises(DeadlineExceeded, match="not started: its turn to boot"):
            client.call("agents.respawn", {"target": "old"}, timeout_s=0.5)
        assert narrow.whole.show("old")["state"] == "stopped"
    narrow.whole.call("agents.respawn", target="old")
    assert narrow.until_begun(3) == ["old", "a", "old"]


# -- what is left out


def test_a_deadline_names_those_that_were_not_begun(narrow: Boots):
    answer = narrow.spawn(n=3, name="a", timeout_s=1.5)
    assert [agent["name"] for agent in answer["agents"]] == ["a-1"]
    assert [(row["name"], row["error"]["code"]) for row in answer["failed"]] == [
        ("a-2", "deadline"),
        ("a-3", "deadline"),
    ]
    error = answer["failed"][0]["error"]
    assert error["code"] == "deadline"
    assert error["message"] == "not started: its turn to boot did not come in the time allowed (1 core)"
    assert error["hint"] == "what was started runs on; ask for this one again, or allow more time"
    assert_nothing_but(narrow, "a-1")
    with pytest.raises(DeadlineExceeded, match="its turn to boot did not come"):
        narrow.spawn(name="a-2", timeout_s=0.5)  # its name is free again


def assert_nothing_but(boots: Boots, name: str) -> None:
    """Check that nothing is known or kept of any other agent."""
    (agent,) = agents(boots.whole)
    assert agent["name"] == name
    assert panes(boots.whole).keys() == {agent["id"]}
    assert boots.directories() - boots.known == {agent["id"]}


def test_a_caller_that_goes_away_leaves_those_unbegun(narrow: Boots):
    with cli_spawning(narrow, "-n", "3", "--name", "a") as process:
        narrow.until_begun(1)
        wait_until(lambda: waiting_of(narrow), "two to wait")
        process.kill()
        process.wait(DEADLINE_S)
        wait_until(lambda: not waiting_of(narrow), "the daemon to notice")
    narrow.release("a-1")
    narrow.spawn(name="next")
    assert narrow.until_begun(2) == ["a-1", "next"]
    assert {agent["name"] for agent in agents(narrow.whole)} == {"a-1", "next"}


def waiting_of(boots: Boots) -> bool:
    """Tell whether `a-2` is waiting: its name is reserved, and nobody has it."""
    try:
        boots.spawn(name="a-2", timeout_s=0.2)
    except AgentdError as error:
        return error.code == "exists"
    return False


@contextmanager
def cli_spawning(boots: Boots, *words: str, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    argv = [sys.executable, "-m", "agentd", "spawn", "slow", "--cwd", str(boots.whole.directory), *words]
    process = subprocess.Popen(
        argv, env=boots.whole.environ, stdout=subprocess.PIPE, **{"stderr": subprocess.PIPE} | more
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=DEADLINE_S)


def test_what_waits_when_the_daemon_is_killed_leaves_nothing(narrow: Boots):
    with cli_spawning(narrow, "-n", "3", "--name", "a"):
        narrow.until_begun(1)
        wait_until(lambda: waiting_of(narrow), "two to wait")
        narrow.whole.kill()
    narrow.whole.up(*NARROW)
    assert_nothing_but(narrow, "a-1")
    with narrow.spawning(name="next"):
        narrow.until_waiting(1)
        assert narrow.begun() == ["a-1"], "who was booting before still counts"
        narrow.release("a-1")
        assert narrow.until_begun(2) == ["a-1", "next"]


def test_the_worktree_of_one_that_was_not_begun_is_removed(narrow: Boots, tmp_path: Path):
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "first")
    answer = narrow.spawn(n=2, name="a", cwd=str(tmp_path), worktree=True, timeout_s=3.0)
    assert [row["name"] for row in answer["failed"]] == ["a-2"]
    wait_until(lambda: git(tmp_path, "worktree", "list").count("\n") == 2, "the user's own and that of a-1 to be left")


def test_the_first_one_has_its_prompt_while_others_wait(narrow: Boots):
    with narrow.spawning(n=3, name="a", prompt="hello"):
        narrow.release("a-1")
        narrow.until_begun(2)
        with narrow.whole.client() as client:
            reply = client.call("agents.wait", target="a-1", until="reply", timeout_s=20.0)["message"]
        assert (reply["from"], reply["body"]) == ("a-1", "echo: hello")
        assert narrow.starting()["waiting"] == 1


def test_a_team_waits_for_its_turns_and_says_who_is_missing(narrow: Boots):
    file = narrow.whole.directory / "team.toml"
    file.write_text('[team]\nname = "crew"\ncwd = "."\n[[agents]]\nname = "w"\ncount = 3\nprofile = "slow"\n')
    with narrow.whole.client() as client:
        tables = {"team": {"name": "crew"}, "agents": [{"name": "w", "count": 3, "profile": "slow"}]}
        answer = client.call("teams.up", {**tables, "cwd": str(narrow.whole.directory)}, timeout_s=1.5)
    assert ([a["name"] for a in answer["agents"]], [f["name"] for f in answer["failed"]]) == (["w-1"], ["w-2", "w-3"])
    narrow.release("all")
    again = narrow.whole.json("team", "up", str(file))["agents"]
    assert [(agent["name"], agent["started"]) for agent in again] == [("w-1", False), ("w-2", True), ("w-3", True)]


# -- what is shown


class Shown:
    """What a program draws on the terminal that is its stderr."""

    def __init__(self, descriptor: int) -> None:
        self.text = ""
        self._descriptor = descriptor

    def more(self) -> bool:
        """Tell whether there is something that was not read yet."""
        return bool(select.select([self._descriptor], [], [], 0)[0])

    def until(self, wanted: str) -> None:
        end = time.monotonic() + DEADLINE_S
        while wanted not in self.text:
            ready, _, _ = select.select([self._descriptor], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"waited for {wanted!r}: {self.text!r}"
            self.text += os.read(self._descriptor, 65_536).decode()


@contextmanager
def on_a_terminal(boots: Boots, *words: str) -> Iterator[tuple[Shown, subprocess.Popen[bytes]]]:
    held, given = pty.openpty()
    try:
        with cli_spawning(boots, *words, stderr=given) as process:
            yield Shown(held), process
    finally:
        os.close(held)
        os.close(given)


def test_a_terminal_shows_how_far_it_is(narrow: Boots):
    with on_a_terminal(narrow, "-n", "3", "--name", "a", "--wait", "idle") as (shown, process):
        shown.until("1 of 3 started, 0 ready, 2 wait for their turn (1 core)")
        narrow.release("a-1")
        shown.until("2 of 3 started, 1 ready, 1 waits for its turn (1 core)")
        narrow.release("a-2")
        shown.until("2 of 3 idle")
        narrow.release("a-3")
        assert process.wait(DEADLINE_S) == 0
        shown.until("\r\x1b[K")
        assert "\n" not in shown.text, "one line, rewritten"


def test_nothing_is_shown_where_nobody_reads_it(narrow: Boots):
    words = ("-n", "2", "--name", "a")
    released = threading.Timer(2.0, narrow.release, ("all",))  # longer than what is shown takes to come
    released.start()
    with on_a_terminal(narrow, *words, "--json") as (shown, process):
        done = narrow.whole.cli("spawn", "slow", "--cwd", str(narrow.whole.directory), "--name", "b")
        assert process.stdout
        assert len(json.loads(process.stdout.read())["agents"]) == 2
        assert (process.wait(DEADLINE_S), done.stderr) == (0, "")
        assert not shown.more()
    released.join()


def test_what_is_stopped_while_it_is_being_started_stays_stopped(narrow: Boots):
    """Sixteen at once: they are between the record on disk and the answer of tmux when the stop comes."""
    whole = narrow.whole

    def spawn(number: int) -> None:
        with suppress(AgentGone):  # none of them has come to be
            narrow.spawn(name=f"s{number}", profile="sh", n=16)

    for number in range(3):
        spawning = threading.Thread(target=spawn, args=(number,))
        spawning.start()
        with whole.client() as client:
            deadline_s = time.monotonic() + DEADLINE_S
            while not of_shells(client):  # a moment later all of them have their panes
                assert time.monotonic() < deadline_s
            client.call("agents.stop", targets=["%sh"], force=True)
            spawning.join(DEADLINE_S)
            assert of_shells(client) == []
    assert panes(whole) == {}


def of_shells(client: Client) -> list[dict[str, Any]]:
    return [row for row in client.call("agents.list")["agents"] if row["profile"] == "sh"]
