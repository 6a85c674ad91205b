"""Project files with a real daemon and real git: nothing in one is used before it is trusted, and all of it after."""

from __future__ import annotations

import os
import re
import select
import subprocess
import sys
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from faults import form
from instance import DEADLINE_S, Instance, instance, wait_until
from repos import git

from agentd.client import Client
from agentd.errors import AgentdError, Denied

# Each run leaves a line outside of the worktree, and a file in it that git ignores.
SETUP = "[worktree]\nsetup = 'pwd >>{runs}; env >{runs}.env; echo ready >built'\n"


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "AGENTD_MARK": "1", "TMUX": "/nowhere,1,1", "KEPT_MARK": "1"}
        one.up("pool.load_max=1000")
        yield one


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    place = tmp_path / "repo"
    git(tmp_path, "init", "-q", str(place))
    (place / ".gitignore").write_text("built\nagentd.toml\n")
    (place / "sub").mkdir()
    (place / "sub" / "file").write_text("one\n")
    git(place, "add", ".gitignore", "sub")
    git(place, "commit", "-qm", "one")
    return place


def written(repo: Path, text: str = SETUP) -> Path:
    """Write the project's file; return where each run of its setup leaves a line."""
    runs = repo.parent / "runs"
    (repo / "agentd.toml").write_text(text.format(runs=runs))
    return runs


def lines(runs: Path) -> list[str]:
    return runs.read_text().splitlines() if runs.exists() else []


def spawned(whole: Instance, repo: Path, n: int = 1) -> list[dict[str, Any]]:
    found = whole.call("agents.spawn", profile="shell", cwd=str(repo), worktree=True, n=n, timeout_s=60.0)["agents"]
    for agent in found:
        whole.call("agents.wait", target=agent["id"], until="idle", timeout_s=20.0)
    return list(found)


def trust(whole: Instance, repo: Path) -> None:
    with whole.client() as client:
        client.call("projects.trust", cwd=str(repo), digest=client.call("projects.get", cwd=str(repo))["digest"])


def untrust(whole: Instance, repo: Path) -> None:
    whole.call("projects.untrust", cwd=str(repo))


def state_of(whole: Instance, repo: Path) -> str:
    return str(whole.call("projects.get", cwd=str(repo))["state"])


def ended(whole: Instance, *agents: str) -> None:
    """Stop agents, and give up what is in their worktrees."""
    with whole.client() as client:
        client.call("agents.stop", targets=list(agents), force=True)
        client.call("worktrees.clean", force=True)


def ids(agents: list[dict[str, Any]]) -> list[str]:
    return [agent["id"] for agent in agents]


def keep(whole: Instance, profile: str, place: Path, size: int = 1, *, worktree: bool = False) -> None:
    whole.call("pool.set", profile=profile, size=size, cwd=str(place), worktree=worktree)


def drain(whole: Instance, profile: str) -> None:
    whole.call("pool.drain", profile=profile)


def acked(whole: Instance, name: str) -> None:
    """Check that an agent acknowledges a message."""
    with whole.client() as client:
        id_ = client.call("messages.send", to=name, body="hello")["id"]
        client.call("messages.wait", id=id_, until="acked", timeout_s=20.0)


def row_of(whole: Instance, name: str) -> dict[str, Any]:
    (row,) = whole.call("agents.list", target=name)["agents"]
    return dict(row)


def test_what_is_not_trusted_is_not_run_and_what_is_runs_once_in_each_worktree(whole: Instance, repo: Path):
    runs = written(repo)
    done = whole.cli("spawn", "shell", "--cwd", str(repo / "sub"), "--worktree", "--name", "early", "--wait", "idle")
    assert done.stderr == (
        f"agentd: {repo}/agentd.toml is not trusted, its setup command is not run; "
        "see it and trust it: agentd project trust\n"
    )
    assert lines(runs) == []
    assert not Path(whole.show("early")["cwd"], "built").exists()
    trust(whole, repo)
    agents = spawned(whole, repo / "sub", 2)  # the positive control
    assert sorted(lines(runs)) == sorted(agent["cwd"] for agent in agents)
    assert whole.cli("spawn", "shell", "--cwd", str(repo), "--name", "plain").stderr == ""
    assert len(lines(runs)) == 2, "without a worktree there is nothing to set up"
    ended(whole, *ids(agents), "early", "plain")


def test_its_result_is_there_before_the_program_starts(whole: Instance, repo: Path):
    """The program itself says what it found at its first moment; the setup takes its time."""
    written(repo, "[worktree]\nsetup = 'sleep 0.2; echo ready >built'\n")
    trust(whole, repo)
    users = whole.directory / "profiles"
    users.mkdir(exist_ok=True)
    (users / "looks.toml").write_text('command = "/bin/sh"\nargs = ["-c", "cat built >found 2>&1; exec /bin/sh"]\n')
    wait_until(lambda: "looks" in profiles(whole), "the profile")
    (agent,) = whole.call("agents.spawn", profile="looks", cwd=str(repo), worktree=True)["agents"]
    found = Path(agent["cwd"], "found")
    assert wait_until(lambda: found.exists() and found.read_text(), "the program to have looked") == "ready\n"
    ended(whole, agent["id"])


def test_its_environment_is_the_daemons_without_what_is_ours(whole: Instance, repo: Path):
    runs = written(repo)
    trust(whole, repo)
    (agent,) = spawned(whole, repo)
    names = {line.partition("=")[0] for line in Path(f"{runs}.env").read_text().splitlines()}
    assert "KEPT_MARK" in names
    assert [name for name in names if name.startswith(("AGENTD_", "TMUX"))] == []
    ended(whole, agent["id"])


def test_one_byte_more_and_it_is_asked_again(whole: Instance, repo: Path):
    runs = written(repo)
    trust(whole, repo)
    with (repo / "agentd.toml").open("a") as file:
        file.write("\n")
    answer = whole.call("agents.spawn", profile="shell", cwd=str(repo), worktree=True)
    assert lines(runs) == []
    assert "has changed since it was trusted" in answer["notices"][0]
    assert state_of(whole, repo) == "changed"
    trust(whole, repo)
    agents = spawned(whole, repo)
    assert lines(runs) == [agents[0]["cwd"]]
    untrust(whole, repo)
    agents += spawned(whole, repo)
    assert len(lines(runs)) == 1
    ended(whole, *ids(agents + answer["agents"]))


@pytest.mark.parametrize(
    ("setup", "code", "says"),
    [
        ("'echo no such package; exit 3'", 1, "exited with status 3; last: no such package"),
        ("'echo waiting; sleep 60'\nsetup_timeout_s = 0.3", 6, "did not end within 0.3 s"),
        ('["/no/such/program"]', 5, "cannot be run"),
    ],
)
def test_one_that_fails_fails_the_spawn_and_leaves_nothing(
    whole: Instance, repo: Path, setup: str, code: int, says: str
):
    written(repo, f"[worktree]\nsetup = {setup}\n")
    trust(whole, repo)
    before = whole.call("agents.list")["agents"]
    done = whole.cli("spawn", "shell", "--cwd", str(repo), "--worktree", "topic", check=False)
    assert (done.returncode, says in done.stderr) == (code, True), done.stderr
    assert [agent["id"] for agent in whole.call("agents.list")["agents"]] == ids(before)
    assert git(repo, "worktree", "list").count("\n") == 1
    assert git(repo, "branch", "--list", "topic") == ""


def pool_of(whole: Instance, repo: Path) -> dict[str, Any]:
    return next((row for row in whole.call("pool.list")["pools"] if row["place"] == str(repo)), {"warm": 0, "why": ""})


def test_slots_are_set_up_before_they_are_claimed_and_again_at_a_newer_commit_unless_once(whole: Instance, repo: Path):
    runs = written(repo)
    keep(whole, "shell", repo, worktree=True)
    agents = []
    try:
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "a slot from before the trust")
        trust(whole, repo)  # that slot is replaced
        wait_until(lambda: len(lines(runs)) == 1 and pool_of(whole, repo)["warm"] == 1, "a slot that is set up")
        agents += spawned(whole, repo)
        assert (agents[0]["warm"], lines(runs)[0]) == (True, agents[0]["cwd"])
        assert lines(runs).count(agents[0]["cwd"]) == 1, "not again at the claim"
        for once, times in (("", 2), ("setup_once = true\n", 1)):
            written(repo, SETUP + once)
            before = len(lines(runs))
            trust(whole, repo)
            if once:
                wait_until(lambda before=before: len(lines(runs)) > before, "the slot to be replaced")
            wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot")
            git(repo, "commit", "-q", "--allow-empty", "-m", "newer")
            agents += spawned(whole, repo)
            assert (agents[-1]["warm"], lines(runs).count(agents[-1]["cwd"])) == (True, times)
    finally:
        drain(whole, "shell")
    ended(whole, *ids(agents))
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "the slots' worktrees to go")


def test_a_slot_whose_setup_fails_opens_the_breaker_and_pool_ls_says_why(whole: Instance, repo: Path):
    written(repo, "[worktree]\nsetup = 'echo no such package; exit 3'\n")
    trust(whole, repo)
    keep(whole, "demo", repo, worktree=True)
    try:
        wait_until(lambda: "no such package" in pool_of(whole, repo)["why"], "the reason")
    finally:
        drain(whole, "demo")
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "the worktrees to go")


def test_a_project_whose_setup_fails_does_not_keep_others_from_their_slots(whole: Instance, repo: Path):
    """And once it is corrected and trusted it is tried at once, however long it was left alone for."""
    written(repo, "[worktree]\nsetup = 'exit 3'\n")
    trust(whole, repo)
    other = repo.parent / "other"
    other.mkdir()
    keep(whole, "demo", repo, worktree=True)
    try:
        wait_until(lambda: "quarantined" in pool_of(whole, repo)["why"], "it to be left alone")
        keep(whole, "demo", other)
        wait_until(lambda: pool_of(whole, other)["warm"] == 1, "a slot elsewhere")
        assert "quarantined" not in pool_of(whole, other)["why"]
        written(repo, "[worktree]\nsetup = 'true'\n")
        trust(whole, repo)
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "a slot here")
    finally:
        drain(whole, "demo")
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "the worktrees to go")


def test_a_slot_that_is_not_wanted_any_more_while_it_is_set_up_never_starts(whole: Instance, repo: Path):
    gate = repo.parent / "gate"
    os.mkfifo(gate)
    written(repo, f"[worktree]\nsetup = 'echo at >>{{runs}}; cat {gate}'\n")
    trust(whole, repo)
    runs = repo.parent / "runs"
    before = slots_of(whole)  # of another test, and about to end
    keep(whole, "shell", repo, worktree=True)
    wait_until(lambda: lines(runs) == ["at"], "the setup")
    drain(whole, "shell")
    wait_until(lambda: whole.call("pool.list")["pools"] == [], "the place to be given up")
    gate.write_text("go on\n")
    wait_until(lambda: git(repo, "worktree", "list").count("\n") == 1, "its worktree to go")
    assert slots_of(whole) <= before


def test_a_setup_may_take_longer_than_a_boot(repo: Path):
    runs = written(repo, "[worktree]\nsetup = 'echo at >>{runs}; sleep 2.5'\n")
    with instance() as whole:
        whole.environ |= {"GIT_CONFIG_GLOBAL": os.devnull}
        whole.up("pool.load_max=1000", "pool.max_boot_s=2")
        trust(whole, repo)
        keep(whole, "shell", repo, worktree=True)
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot")
        assert lines(runs) == ["at"]


def slots_of(whole: Instance) -> set[str]:
    names = whole.tmux("list-sessions", "-F", "#{session_name}").splitlines()
    return {name for name in names if name.startswith("pool-")}


def test_two_spawns_at_once_do_not_take_one_name_while_worktrees_are_set_up(whole: Instance, repo: Path):
    gate = repo.parent / "gate"
    waits = f"echo at >>{{runs}}; until [ -e {gate} ]; do sleep 0.05; done"
    runs = written(repo, f"[worktree]\nsetup = '{waits}'\nsetup_timeout_s = 20.0\n")
    trust(whole, repo)
    words = ("spawn", "shell", "--cwd", str(repo), "--name", "only", "--worktree")
    with subprocess.Popen(
        [sys.executable, "-m", "agentd", *words], env=whole.environ, stdout=subprocess.DEVNULL
    ) as first:
        try:
            wait_until(lambda: lines(runs) == ["at"], "the setup of the first")
            second = whole.cli(*words, check=False)
            assert (second.returncode, "`only` exists" in second.stderr) == (1, True), second.stderr
        finally:
            gate.touch()
    assert first.returncode == 0
    ended(whole, "only")


BOTH = """
[[pool]]
profile = "shell"
size = 1
most = 2
cwd = "sub"
[team]
name = "{team}"
[[agents]]
name = "{team}-lead"
profile = "shell"
"""


def test_up_sets_the_pools_and_brings_up_the_team_once_it_is_trusted(whole: Instance, repo: Path):
    (repo / "agentd.toml").write_text(BOTH.format(team="crew"))
    refused = whole.cli("project", "up", "--cwd", str(repo), check=False)
    assert (refused.returncode, "is not trusted; nothing was set or started" in refused.stderr) == (7, True)
    assert (whole.call("pool.list")["pools"], whole.call("teams.list")["teams"]) == ([], [])
    trust(whole, repo)
    first = whole.json("project", "up", "--cwd", str(repo / "sub"))
    assert [(row["name"], row["started"], row["cwd"]) for row in first["agents"]] == [("crew-lead", True, str(repo))]
    try:
        (row,) = whole.call("pool.list")["pools"]
        assert (row["place"], row["floor"], row["ceiling"]) == (f"{repo}/sub", 1, 2)
        again = whole.json("project", "up", "--cwd", str(repo))
        assert [(row["id"], row["started"]) for row in again["agents"]] == [(first["agents"][0]["id"], False)]
        assert len(whole.call("pool.list")["pools"]) == 1
        (repo / "agentd.toml").write_text(BOTH.format(team="other"))
        assert whole.cli("project", "up", "--cwd", str(repo), check=False).returncode == 7
        assert [team["name"] for team in whole.call("teams.list")["teams"]] == ["crew"]
    finally:
        drain(whole, "shell")
        whole.call("teams.down", team="crew")


def test_up_names_what_fails_and_does_the_rest(whole: Instance, repo: Path):
    (repo / "agentd.toml").write_text('[[pool]]\nprofile = "nothing"\nsize = 1\n' + BOTH.format(team="crew"))
    trust(whole, repo)
    done = whole.cli("project", "up", "--cwd", str(repo), check=False)
    assert (done.returncode, done.stderr.count("\n"), "pool nothing" in done.stderr) == (4, 1, True), done.stderr
    assert [team["live"] for team in whole.call("teams.list")["teams"]] == [1]
    drain(whole, "shell")
    whole.call("teams.down", team="crew")
    wait_until(lambda: not slots_of(whole), "the slots to end")


def test_a_team_whose_worktrees_are_not_set_up_is_told(whole: Instance, repo: Path):
    runs = written(repo)
    member = f'[[agents]]\nname = "told"\nprofile = "shell"\ncwd = "{repo}"\nworktree = true\n'
    (repo.parent / "team.toml").write_text(f'[team]\nname = "crew"\n{member}')
    done = whole.cli("team", "up", str(repo.parent / "team.toml"))
    assert ("is not trusted, its setup command is not run" in done.stderr, lines(runs)) == (True, [])
    whole.call("teams.down", team="crew")
    whole.call("worktrees.clean")


def test_who_keeps_slots_whose_worktrees_are_not_set_up_is_told(whole: Instance, repo: Path):
    runs = written(repo)
    says = f"agentd: {repo}/agentd.toml is not trusted, its setup command is not run; see it and trust it"
    try:
        for words in ((), ("--json",)):
            done = whole.cli("pool", "set", "shell", "0", "--cwd", str(repo), "--worktree", *words)
            assert (done.stderr.startswith(says), done.stderr.count("\n")) == (True, 1), done.stderr
        assert whole.cli("pool", "set", "shell", "0", "--cwd", str(repo)).stderr == "", "nothing is set up there"
        trust(whole, repo)
        assert whole.cli("pool", "set", "shell", "0", "--cwd", str(repo), "--worktree").stderr == ""
    finally:
        drain(whole, "shell")
    assert lines(runs) == []


def test_up_tells_what_it_does_not_run(whole: Instance, repo: Path):
    """A directory of the project may have a file of its own, which nobody trusted."""
    (repo / "agentd.toml").write_text('[[pool]]\nprofile = "shell"\nsize = 0\nworktree = true\ncwd = "sub"\n')
    (repo / "sub" / "agentd.toml").write_text('[worktree]\nsetup = "true"\n')
    trust(whole, repo)
    try:
        done = whole.cli("project", "up", "--cwd", str(repo))
        assert f"agentd: {repo}/sub/agentd.toml is not trusted, its setup command is not run" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        drain(whole, "shell")


@pytest.mark.parametrize("umask", form([0o027], [0o022, 0o027]))
def test_what_is_set_up_has_the_users_own_umask(repo: Path, umask: int):
    """And so have the files that git checks out; what is agentd's own is private all the same."""
    written(repo, "[worktree]\nsetup = 'umask >built; mkdir made'\n")
    before = os.umask(umask)
    try:
        with instance() as whole:
            whole.environ |= {"GIT_CONFIG_GLOBAL": os.devnull}
            whole.up("pool.load_max=1000")
            trust(whole, repo)
            (agent,) = spawned(whole, repo)
            place = Path(agent["cwd"])
            assert (place / "built").read_text() == f"{umask:04o}\n"
            assert (place / "made").stat().st_mode & 0o777 == 0o777 & ~umask
            assert (place / "sub" / "file").stat().st_mode & 0o777 == 0o666 & ~umask
            assert place.parent.stat().st_mode & 0o077 == 0
            beside = [path for path in place.parent.iterdir() if path != place]
            assert [path for path in beside if path.stat().st_mode & 0o077] == []
    finally:
        os.umask(before)


@pytest.mark.parametrize(("says", "trusted"), [("y", True), ("yes", True), ("Y", True), ("", False), ("n", False)])
def test_on_a_terminal_it_asks_after_it_has_shown_what_it_would_do(
    whole: Instance, repo: Path, says: str, *, trusted: bool
):
    written(repo, '[worktree]\nsetup = "npm ci"\n')
    said, code = on_terminal(whole, ("project", "trust", "--cwd", str(repo)), "[y/N] ", says)
    shown, question = said.find("npm ci"), said.find(f"trust {repo}/agentd.toml until it changes? [y/N] ")
    assert 0 < shown < question, said
    assert ("is trusted until it changes" in said, "nothing was trusted" in said) == (trusted, not trusted)
    assert code == (0 if trusted else 1)
    assert state_of(whole, repo) == ("trusted" if trusted else "not trusted")


def on_terminal(whole: Instance, words: tuple[str, ...], question: str, answer: str) -> tuple[str, int]:
    """Run a command on a terminal and answer its question; return what stood there and the exit code."""
    master, slave = os.openpty()
    command = [sys.executable, "-m", "agentd", *words]
    said = b""
    with (
        os.fdopen(master, "r+b", buffering=0) as screen,
        subprocess.Popen(command, env=whole.environ, stdin=slave, stdout=slave, stderr=slave) as running,
    ):
        os.close(slave)
        asked = False
        while piece := piece_of(screen):
            said += piece
            if not asked and question.encode() in said:
                asked = True
                screen.write(answer.encode() + b"\n")
        return said.decode().replace("\r\n", "\n"), running.wait(30)


def piece_of(screen: FileIO) -> bytes:
    """Return what a terminal shows next; nothing once nobody has it open any more."""
    ready, _, _ = select.select([screen], [], [], DEADLINE_S)
    try:
        return screen.read(4096) or b"" if ready else b""
    except OSError:  # Linux says so in this way
        return b""


def test_without_a_terminal_it_is_trusted_only_when_yes_is_said(whole: Instance, repo: Path):
    written(repo, '[worktree]\nsetup = "npm ci # \\n rm"\n')
    done = whole.cli("project", "trust", "--cwd", str(repo), check=False, input_="y\n")
    assert done.returncode == 2
    assert r"npm ci # \n rm" in done.stdout
    assert state_of(whole, repo) == "not trusted"
    assert whole.cli("project", "show", "--cwd", str(repo.parent), check=False).returncode == 5


def test_only_what_was_shown_is_trusted_and_no_agent_may(whole: Instance, repo: Path):
    runs = written(repo)
    agent = whole.spawn("shell", name="asks")
    token = (whole.directory / "agents" / agent["id"] / "token").read_text().strip()
    with whole.client() as client, whole.client(token=token) as agents:
        shown = client.call("projects.get", {"cwd": str(repo)})["digest"]
        for verb, more in (("get", {}), ("trust", {"digest": shown}), ("untrust", {}), ("up", {})):
            assert code_of(agents, f"projects.{verb}", {"cwd": str(repo), **more}) == "denied"
        (repo / "agentd.toml").write_text(SETUP.format(runs=runs) + "# more\n")
        assert code_of(client, "projects.trust", {"cwd": str(repo), "digest": shown}) == "conflict"
        assert client.call("projects.get", {"cwd": str(repo)})["state"] == "not trusted"
    whole.call("agents.stop", targets=[agent["id"]], force=True)


def code_of(client: Client, method: str, params: dict[str, Any]) -> str:
    with pytest.raises(AgentdError) as caught:
        client.call(method, params)
    return caught.value.code


# -- profiles

DEMO = (Path(__file__).parents[2] / "agentd/agents/profiles/demo.toml").read_text()


def as_project(name: str, text: str = DEMO) -> str:
    """Return a profile's own file as it stands in a project's."""
    keyed = re.sub(r"^(\[\[?)", rf"\1profiles.{name}.", text, flags=re.MULTILINE)
    return f"[profiles.{name}]\n{keyed}"


def profiles(whole: Instance) -> dict[str, str]:
    return {row["name"]: row["origin"] for row in whole.call("profiles.list")["profiles"]}


def without(whole: Instance, name: str) -> None:
    wait_until(lambda: name not in profiles(whole), f"{name} to vanish")


def test_a_profile_is_there_when_its_file_is_trusted_and_not_before(whole: Instance, repo: Path):
    """The positive control is the same spawn, right after the trust."""
    log = repo.parent / "log"
    (repo / "agentd.toml").write_text(
        as_project("early-bird", DEMO.replace("[env]", f"[env]\nAGENTD_DEMO_LOG = '{log}'"))
    )
    spawn = ("spawn", "early-bird", "--cwd", str(repo), "--wait", "idle", "--name", "bird")
    state_of(whole, repo)
    refused = whole.cli(*spawn, check=False)
    assert (refused.returncode, "no profile is named 'early-bird'" in refused.stderr) == (5, True), refused.stderr
    assert "early-bird" not in profiles(whole)
    trust(whole, repo)
    whole.cli(*spawn)
    assert profiles(whole)["early-bird"] == f"{repo}/agentd.toml"
    assert whole.call("profiles.get", name="early-bird")["origin"] == f"{repo}/agentd.toml"
    acked(whole, "bird")
    ended(whole, "bird")
    untrust(whole, repo)


@pytest.mark.parametrize("how", ["untrust", "change", "remove"])
def test_who_runs_goes_on_and_nobody_new_starts_once_it_is_not_trusted(whole: Instance, repo: Path, how: str):
    place = repo / "agentd.toml"
    place.write_text(as_project("passing"))
    trust(whole, repo)
    whole.spawn("passing", name="stays")
    if how == "untrust":
        untrust(whole, repo)
        assert "passing" not in profiles(whole), "at once"
    elif how == "change":
        place.write_text(place.read_text() + "\n")
    else:
        place.unlink()
    without(whole, "passing")
    assert whole.cli("spawn", "passing", check=False).returncode == 5
    assert whole.cli("respawn", "stays", check=False).returncode != 0
    acked(whole, "stays")
    place.write_text(as_project("passing"))
    if how == "untrust":
        trust(whole, repo)
    wait_until(lambda: "passing" in profiles(whole), "it to be as it was trusted again")
    ended(whole, "stays")
    untrust(whole, repo)


def test_a_changed_profile_counts_once_it_is_trusted_again(whole: Instance, repo: Path):
    """What is idle by the old rules waits by the new ones, in an agent that runs on."""
    place = repo / "agentd.toml"
    place.write_text(as_project("strict"))
    trust(whole, repo)
    agent = whole.spawn("strict", name="strict-one")
    place.write_text(as_project("strict", DEMO.replace('state = "idle"', 'state = "waiting"\nwaits_for = "question"')))
    without(whole, "strict")
    assert row_of(whole, "strict-one")["state"] == "idle"
    trust(whole, repo)
    with whole.client() as client:
        now = client.call("agents.wait", target="strict-one", until="waiting", timeout_s=20.0)["agent"]
    assert (now["pid"], now["waits_for"]) == (agent["pid"], "question")
    ended(whole, agent["id"])
    untrust(whole, repo)


def test_a_new_daemon_goes_by_what_is_trusted_and_loads_nothing_that_has_changed_meanwhile(repo: Path):
    other = repo.parent / "other"
    other.mkdir()
    runs = written(repo, SETUP)
    with (repo / "agentd.toml").open("a") as file:
        file.write(as_project("kept"))
    (other / "agentd.toml").write_text(as_project("edited"))
    with instance() as whole:
        whole.environ |= {"GIT_CONFIG_GLOBAL": os.devnull}
        whole.up()
        for place in (repo, other):
            trust(whole, place)
        agents = [whole.spawn("kept", name="a"), whole.spawn("edited", name="b")]
        whole.kill()
        (other / "agentd.toml").write_text(as_project("edited") + "# more\n")
        whole.up()
        assert profiles(whole)["kept"] == f"{repo}/agentd.toml"
        (one,) = spawned(whole, repo)
        assert lines(runs) == [one["cwd"]], "its setup is run"
        assert "edited" not in profiles(whole)
        acked(whole, "a")
        whole.spawn("kept", name="c")
        row = wait_until(lambda: (r := row_of(whole, "b"))["state"] == "waiting" and r, "it to be unreadable")
        assert "no profile is named 'edited'" in row["reason"]
        with whole.client() as client:
            since = client.call("events.list", limit=1)["last"]
            trust(whole, other)
            now = client.call("agents.wait", target="b", until="idle", timeout_s=20.0)["agent"]
            loaded = client.call("events.list", types=["profile.loaded"], since=since)["events"]
        assert now["pid"] == agents[1]["pid"]
        assert [(e["data"]["profile"], e["data"]["what"]) for e in loaded] == [("edited", "new")]


def notices(whole: Instance, place: Path) -> list[str]:
    return list(whole.call("projects.get", cwd=str(place))["notices"])


def test_the_name_is_ours_then_the_users_then_that_of_who_was_trusted_first(whole: Instance, repo: Path):
    other = repo.parent / "other"
    other.mkdir()
    (repo / "agentd.toml").write_text(as_project("demo") + as_project("shared") + as_project("mine"))
    (other / "agentd.toml").write_text(as_project("shared"))
    assert notices(whole, repo) == [
        f"{repo}/agentd.toml: its profile demo is not used, because the built-in profile has that name"
    ]
    trust(whole, repo)
    assert notices(whole, other) == [
        f"{other}/agentd.toml: its profile shared is not used, because {repo}/agentd.toml was trusted first"
    ]
    told = whole.cli("project", "trust", "--yes", "--cwd", str(other)).stderr
    assert told == f"agentd: {notices(whole, other)[0]}\n"
    first, second = f"{repo}/agentd.toml", f"{other}/agentd.toml"
    found = profiles(whole)
    assert (found["demo"], found["shared"], found["mine"]) == ("built-in", first, first)
    whole.spawn("mine", name="stays")
    mine = whole.directory / "profiles" / "mine.toml"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text(DEMO)
    try:
        wait_until(lambda: profiles(whole)["mine"] == str(mine), "the user's own")
        assert notices(whole, repo)[1:] == [
            f"{first}: its profile mine is not used, because your own has that name: {mine}"
        ]
    finally:
        mine.unlink()
    wait_until(lambda: profiles(whole).get("mine") == first, "the project's again")
    untrust(whole, repo)
    assert (profiles(whole)["shared"], "mine" in profiles(whole)) == (second, False)
    acked(whole, "stays")
    trust(whole, repo)
    assert profiles(whole)["shared"] == second, "who was trusted first by now"
    ended(whole, "stays")
    for place in (repo, other):
        untrust(whole, place)


def test_pools_and_the_team_of_the_file_use_its_profiles(whole: Instance, repo: Path):
    asked = '[[pool]]\nprofile = "reviewer"\nsize = 1\n[team]\nname = "crew"\n'
    asked += '[[agents]]\nname = "crew-lead"\nprofile = "reviewer"\n'
    (repo / "agentd.toml").write_text(as_project("reviewer") + asked)
    trust(whole, repo)
    answer = whole.json("project", "up", "--cwd", str(repo))
    assert (answer["failed"], [agent["profile"] for agent in answer["agents"]]) == ([], ["reviewer"])
    try:
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot")
        acked(whole, "crew-lead")
        untrust(whole, repo)
        wait_until(lambda: not slots_of(whole), "the slot of a profile that is gone to end")
        trust(whole, repo)
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot of one that is back")
    finally:
        drain(whole, "reviewer")
        whole.call("teams.down", team="crew")
        untrust(whole, repo)
    wait_until(lambda: not slots_of(whole), "the slots to end")


def test_another_projects_profile_of_the_name_comes_over_no_agent_but_replaces_the_slots(whole: Instance, repo: Path):
    other = repo.parent / "other"
    other.mkdir()
    (repo / "agentd.toml").write_text(as_project("shared"))
    (other / "agentd.toml").write_text(as_project("shared", DEMO.replace("the composer is empty", "theirs")))
    trust(whole, repo)
    trust(whole, other)
    whole.spawn("shared", name="stays")
    keep(whole, "shared", repo)
    try:
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot")
        before = slots_of(whole)
        untrust(whole, repo)
        wait_until(lambda: slots_of(whole) and not slots_of(whole) & before, "the slot to be replaced")
        wait_until(lambda: pool_of(whole, repo)["warm"] == 1, "the slot of the other profile")
        acked(whole, "stays")
        with whole.client() as client:
            client.call("agents.wait", target="stays", until="idle", timeout_s=20.0)
        reasons = [row_of(whole, name)["reason"] for name in ("stays", whole.spawn("shared", name="new")["name"])]
        assert ["theirs" in reason for reason in reasons] == [False, True], reasons
    finally:
        drain(whole, "shared")
        untrust(whole, other)
    ended(whole, "stays", "new")
    wait_until(lambda: not slots_of(whole), "the slots to end")


HIDING = """
[profiles.sly]
command = "claude"
args = ["-p", "a\\u202eb\\u3164", "\\u001b[2K\\n; rm -rf x"]
env = {{ PATH = "./bin\\u200b" }}
trust = {{ args = ["--trusted"] }}
answers = {{ policy = "allow", allow = [".*"], approve_keys = ["y"] }}
[[profiles.sly.files]]
name = "hooks.json"
text = "run {runs}\\u0000"
[[profiles.sly.rules]]
state = "idle"
"""


def test_all_that_a_profile_can_have_done_is_shown_and_nothing_hides(whole: Instance, repo: Path):
    runs = written(repo, HIDING)
    shown = whole.cli("project", "--cwd", str(repo)).stdout
    lines_of_it = [line.removeprefix("  would ") for line in shown.splitlines() if line.startswith("  would ")]
    assert lines_of_it == [
        (
            r"have a profile sly, whose agents run 'claude' '-p' 'a\u202eb\u3164' '\x1b[2K\n; rm -rf x'"
            r", with PATH='./bin\u200b'"
        ),
        rf'set for the profile sly: files = [{{"name": "hooks.json", "text": "run {runs}\u0000"}}]',
        'set for the profile sly: trust = {"args": ["--trusted"]}',
        'set for the profile sly: answers = {"approve_keys": ["y"], "policy": "allow", "allow": [".*"]}',
    ]
    assert shown.isascii()


def test_no_agent_gets_a_profile_by_it_that_the_operator_does_not_let_agents_start(repo: Path):
    (repo / "agentd.toml").write_text(as_project("extra"))
    with instance() as whole:
        whole.up("agents.spawnable=shell")
        trust(whole, repo)
        agent = whole.spawn("shell", name="asks")
        token = (whole.directory / "agents" / agent["id"] / "token").read_text().strip()
        with whole.client(token=token) as asks:
            with pytest.raises(Denied, match="agents may not start `extra` here"):
                asks.call("agents.spawn", {"profile": "extra"})
            assert asks.call("agents.spawn", {"profile": "shell"})["agents"]
        whole.spawn("extra", cwd=str(repo))
