"""Agents in git worktrees of their own: made, shown, kept while there is work in them, and cleaned."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from instance import Instance, instance, wait_until
from repos import git

POOL = "pool.load_max=1000"


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.environ |= {"GIT_CONFIG_GLOBAL": os.devnull}
        one.up(POOL)
        yield one


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    place = tmp_path / "repo"
    git(tmp_path, "init", "-q", str(place))
    (place / "file").write_text("one\n")
    git(place, "add", "file")
    git(place, "commit", "-qm", "one")
    return place


def spawned(whole: Instance, repo: Path, **more: Any) -> list[dict[str, Any]]:
    params = {"profile": "shell", "cwd": str(repo), "worktree": True, **more}
    with whole.client() as client:
        found = client.call("agents.spawn", params, timeout_s=60.0)["agents"]
        for agent in found:
            client.call("agents.wait", target=agent["id"], until="idle", timeout_s=20.0)
    return list(found)


def stop(whole: Instance, *agents: dict[str, Any]) -> None:
    whole.call("agents.stop", targets=[agent["id"] for agent in agents], force=True)


def test_each_agent_has_a_worktree_of_its_own_and_the_users_is_left_alone(whole: Instance, repo: Path):
    (repo / "draft").write_text("the user's own\n")
    agents = spawned(whole, repo, n=3)
    (named,) = whole.json("spawn", "shell", "--cwd", str(repo), "--worktree", "topic", "--name", "named")["agents"]
    assert len({agent["cwd"] for agent in agents} | {str(repo)}) == 4
    assert named["branch"] == "topic"
    for agent in (*agents, named):
        place = Path(agent["cwd"])
        assert (place / "file").read_text() == "one\n"
        assert not (place / "draft").exists()
        assert git(place, "branch", "--show-current").strip() == agent["branch"]
    refused = whole.cli("spawn", "shell", "--cwd", str(repo), "--worktree", "topic", check=False)
    assert (refused.returncode, "topic" in refused.stderr) == (1, True)
    stop(whole, *agents, named)
    whole.cli("worktree", "clean")
    assert git(repo, "worktree", "list").count("\n") == 1
    assert (repo / "draft").exists()


def test_what_is_not_committed_is_kept_until_it_is_given_up_and_a_commit_always(whole: Instance, repo: Path):
    dirty, committed = spawned(whole, repo, n=2)
    Path(dirty["cwd"], "file").write_text("changed\n")
    Path(committed["cwd"], "new").write_text("work\n")
    git(Path(committed["cwd"]), "add", "new")
    git(Path(committed["cwd"]), "commit", "-qm", "work")
    running = whole.cli("worktree", "clean", dirty["id"], check=False)
    assert (running.returncode, "its worktree was kept" in running.stderr) == (4, True), running.stderr
    stop(whole, dirty, committed)
    kept = whole.cli("worktree", "clean", check=False)
    assert kept.returncode == 4
    assert "1 changed file (file)" in kept.stderr
    assert Path(dirty["cwd"], "file").read_text() == "changed\n"
    assert not Path(committed["cwd"]).exists()
    assert "work" in git(repo, "log", "--oneline", committed["branch"])
    whole.cli("worktree", "clean", dirty["id"], "--force")
    assert not Path(dirty["cwd"]).exists()
    assert committed["branch"] in git(repo, "branch")


def test_a_respawned_agent_goes_on_in_its_worktree(whole: Instance, repo: Path):
    (agent,) = spawned(whole, repo)
    Path(agent["cwd"], "file").write_text("changed\n")
    stop(whole, agent)
    whole.call("agents.respawn", target=agent["id"])
    whole.call("agents.wait", target=agent["id"], until="idle", timeout_s=20.0)
    assert whole.show(agent["id"])["cwd"] == agent["cwd"]
    assert Path(agent["cwd"], "file").read_text() == "changed\n"
    stop(whole, agent)
    whole.call("worktrees.clean", force=True)


def test_slots_of_the_pool_have_theirs_ready_at_the_newest_commit(whole: Instance, repo: Path):
    whole.cli("pool", "set", "shell", "2", "--cwd", str(repo), "--worktree")
    try:
        wait_until(lambda: pool_of(whole, repo)["warm"] == 2, "two slots")
        (repo / "file").write_text("two\n")
        git(repo, "commit", "-qam", "two")
        first, second = (spawned(whole, repo, **more)[0] for more in ({}, {"branch": "topic"}))
        assert (first["warm"], second["warm"]) == (True, True)
        assert second["branch"] == "topic"
        for agent in (first, second):
            assert Path(agent["cwd"], "file").read_text() == "two\n"
        (cold,) = spawned(whole, repo, worktree=False)  # not a worktree: another place
        assert (cold["warm"], cold["cwd"]) == (False, str(repo))
        stop(whole, first, second, cold)
    finally:
        whole.call("pool.drain", profile="shell")
    whole.cli("worktree", "clean")
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "the slots' worktrees to go")
    assert git(repo, "branch", "--list", "agentd/*") == ""


def pool_of(whole: Instance, repo: Path) -> dict[str, Any]:
    return next(row for row in whole.call("pool.list")["pools"] if row["place"] == str(repo))


def test_a_team_may_ask_for_them(whole: Instance, repo: Path, tmp_path: Path):
    file = tmp_path / "team.toml"
    member = f'[[agents]]\nname = "worker"\ncount = 2\nprofile = "shell"\ncwd = "{repo}"\nworktree = true\n'
    file.write_text(f'[team]\nname = "crew"\n{member}')
    up = whole.json("team", "up", str(file))
    assert len({row["cwd"] for row in up["agents"]}) == 2
    assert all(row["branch"].startswith("agentd/") for row in up["agents"])
    whole.call("teams.down", team="crew")
    whole.call("worktrees.clean")
    assert git(repo, "worktree", "list").count("\n") == 1


@pytest.mark.parametrize("kind", ["no repository", "no commits"])
def test_where_none_can_be_made_one_sentence_says_why_and_nothing_starts(whole: Instance, tmp_path: Path, kind: str):
    if kind == "no commits":
        git(tmp_path, "init", "-q", ".")
    for words in (("spawn", "shell"), ("pool", "set", "shell", "1")):
        done = whole.cli(*words, "--cwd", str(tmp_path), "--worktree", check=False)
        assert done.returncode in (2, 5), done.stderr
        assert done.stderr.count("\n") == 1
    assert whole.call("agents.list")["agents"] == []
    assert whole.call("pool.list")["pools"] == []


@pytest.fixture(scope="module")
def setting_up() -> Iterator[Instance]:
    """Give an instance with a profile whose program is not there."""
    with instance() as one:
        one.environ |= {"GIT_CONFIG_GLOBAL": os.devnull}
        (one.directory / "profiles").mkdir(mode=0o700)
        (one.directory / "profiles" / "gone.toml").write_text('command = "/no/such/program"\n')
        one.up(POOL)
        yield one


@pytest.fixture
def left_behind(setting_up: Instance, repo: Path) -> Instance:
    """Give an instance where the setup of a worktree leaves a file that would look like work."""
    (repo / "agentd.toml").write_text("[worktree]\nsetup = 'echo made >left'\n")
    digest = setting_up.call("projects.get", cwd=str(repo))["digest"]
    setting_up.call("projects.trust", cwd=str(repo), digest=digest)
    return setting_up


def none_left(repo: Path) -> None:
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "its worktree to go")
    wait_until(lambda: git(repo, "branch", "--list", "agentd/*") == "", "its branch to go")


@pytest.mark.parametrize("profile", ["shell", "gone"])
def test_an_agent_that_is_not_started_after_all_leaves_no_worktree(left_behind: Instance, repo: Path, profile: str):
    """It could not be written down, or its program is not there; nobody worked in it."""
    with closing(sqlite3.connect(left_behind.directory / "registry.db")) as other:
        if profile == "shell":
            other.execute("BEGIN IMMEDIATE")
        done = left_behind.cli("spawn", profile, "--cwd", str(repo), "--worktree", check=False)
        assert (done.returncode != 0, done.stderr.count("\n")) == (True, 1), done.stderr
        other.rollback()
    none_left(repo)


@pytest.mark.parametrize("profile", ["shell", "gone"])
def test_a_slot_that_was_nobodys_leaves_no_worktree(left_behind: Instance, repo: Path, profile: str):
    left_behind.call("pool.set", profile=profile, size=1, cwd=str(repo), worktree=True)
    if profile == "shell":
        wait_until(lambda: pool_of(left_behind, repo)["warm"] == 1, "a slot")
    else:
        wait_until(lambda: "/no/such/program" in pool_of(left_behind, repo)["why"], "it to be tried")
    left_behind.call("pool.drain", profile=profile)
    none_left(repo)


def test_a_worktree_that_nobody_knows_goes_at_the_next_start_unless_there_is_work_in_it(whole: Instance, repo: Path):
    clean, dirty = spawned(whole, repo, n=2)
    Path(dirty["cwd"], "file").write_text("changed\n")
    whole.cli("down", "--agents", "stop")
    (whole.directory / "registry.db").unlink()
    whole.up(POOL)
    assert not Path(clean["cwd"]).exists()
    assert Path(dirty["cwd"], "file").read_text() == "changed\n"
    log = (whole.directory / "agentd.log").read_text()
    assert "a worktree of nobody was kept" in log
