"""The private directory of an agent: what is written there, for whom, and how it goes."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agentd.agents import places as module
from agentd.agents.places import Places
from agentd.agents.profile import DAEMONS_OWN, Profile, read_profile
from agentd.errors import InvalidValue
from agentd.paths import Paths
from agentd.records import Agent, AgentState

ODD = "a \"b\" \\c $(touch S) ünï 'd' {cwd}"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / ODD
    directory.mkdir(mode=0o700)
    return directory


@pytest.fixture
def places(root: Path) -> Places:
    return Places(Paths(str(root), str(root), str(root)), "i1")


def profile(*files: tuple[str, str], more: str = "") -> Profile:
    tables = "".join(f"[[files]]\nname = {json.dumps(name)}\ntext = {json.dumps(text)}\n" for name, text in files)
    return read_profile("p", f'command = "sh"\n{more}\n{tables}', "p.toml")


def agent(**more: Any) -> Agent:
    return Agent("1abc", "ann", "p", AgentState.STARTING, **{"cwd": "/", **more})


def test_files_are_private_and_hold_what_was_filled_in(places: Places, root: Path):
    made = profile(("settings.json", '{"dir": "{private}", "run": "{agentd} hook"}'), ("deep/er/x.toml", 'a = "{cwd}"'))
    places.furnish(agent(cwd=ODD), made, "t")
    private = root / "agents" / "1abc"
    assert json.loads((private / "settings.json").read_text())["dir"] == str(private)
    for path in (private, *private.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_a_second_start_gets_them_fresh(places: Places, root: Path):
    places.furnish(agent(), profile(("a.txt", "long before")), "t")
    places.furnish(agent(), profile(("a.txt", "now")), "t")
    assert (root / "agents" / "1abc" / "a.txt").read_text() == "now"


def test_the_directory_goes_with_all_that_was_left_in_it(places: Places, root: Path, tmp_path: Path):
    places.write_token("1abc", "t")
    places.furnish(agent(), profile(("deep/a.txt", "x")), "t")
    private, kept = root / "agents" / "1abc", tmp_path / "kept"
    kept.mkdir()
    (kept / "mine").write_text("mine")
    (private / "deep" / "link").symlink_to(kept)
    (private / "left-by-the-program").write_text("y")
    places.remove("1abc")
    places.remove("1abc")
    assert not private.exists()
    assert (kept / "mine").read_text() == "mine"


@pytest.mark.parametrize("linked", ["deep", "deep/er", "deep/er/x.txt"])
def test_nothing_is_written_through_a_link(places: Places, root: Path, tmp_path: Path, linked: str):
    """A program may put a link where its next start's files go; what it points to is the user's."""
    users = tmp_path / "users"
    users.mkdir(mode=0o700)
    (users / "x.txt").write_text("mine")
    (users / "er").mkdir(mode=0o700)
    (users / "er" / "x.txt").write_text("mine")
    at = root / "agents" / "1abc" / linked
    at.parent.mkdir(parents=True, mode=0o700)
    for made in (root / "agents", root / "agents" / "1abc", at.parent):
        made.chmod(0o700)
    at.symlink_to(users / "x.txt" if linked.endswith(".txt") else users)
    with pytest.raises(InvalidValue):
        places.furnish(agent(), profile(("deep/er/x.txt", "theirs")), "t")
    assert {path.read_text() for path in users.rglob("x.txt")} == {"mine"}


def test_names_of_files_stay_below_the_directory_and_off_our_own():
    assert {module.TOKEN, module.IDENTITY, module.LAST_SCREEN} == DAEMONS_OWN
    for name in (
        "token",
        "token/x",
        "Token",
        "identity.json",
        "last-screen.txt",
        "../x",
        "/x",
        "a/../b",
        ".hidden",
        "",
        "a//b",
        "a\n",
        "a/b/c/d/e",
    ):
        with pytest.raises(InvalidValue):
            profile((name, "x"))


def test_words_and_environment(places: Places, root: Path):
    made = profile(
        more='args = ["-s", "{private}/s.json"]\nresume.args = ["--resume", "{session}"]\nenv.WHERE = "{cwd}"'
    )
    private = str(root / "agents" / "1abc")
    assert places.argv(agent(), made) == ["sh", "-s", f"{private}/s.json"]
    assert places.argv(agent(resume_id="s-1"), made)[3:] == ["--resume", "s-1"]
    environ = places.environment(agent(), made)
    assert environ["WHERE"] == "/"
    assert environ["AGENTD_COMMAND"] == str(root / "run-agentd")


def test_a_trusted_directory_is_told_and_no_other(places: Places):
    made = profile(
        more='args = ["-s"]\ntrust = {args = ["--trust", "{cwd}"], env = {TRUSTED = "{cwd}"}}\nresume.args = ["-r"]'
    )
    trusting = agent(trusted=True, resume_id="s-1")
    assert places.argv(trusting, made) == ["sh", "-s", "--trust", "/", "-r"]
    assert places.environment(trusting, made)["TRUSTED"] == "/"
    assert places.argv(agent(), made) == ["sh", "-s"]
    assert "TRUSTED" not in places.environment(agent(), made)


def test_the_launcher_is_this_agentd_with_an_empty_environment(places: Places, root: Path, tmp_path: Path):
    places.write_launcher()
    (tmp_path / "agentd.py").write_text("raise SystemExit('not ours')")
    places.furnish(agent(), profile(("hooks.json", '{"run": "{agentd} version"}')), "t")
    command = json.loads((root / "agents" / "1abc" / "hooks.json").read_text())["run"]
    for argv in (["sh", "-c", command], [str(root / "run-agentd"), "version"]):
        done = subprocess.run(argv, env={}, cwd=tmp_path, capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("agentd ")
    done = subprocess.run([str(root / "run-agentd"), "whoami"], env={}, capture_output=True, text=True, timeout=30)
    assert str(root / "agentd.sock") in done.stderr  # where its own daemon would be
    done = subprocess.run(
        [str(root / "run-agentd"), "whoami"], env={"AGENTD_SOCKET": "/x"}, capture_output=True, text=True, timeout=30
    )
    assert "at /x" in done.stderr
    assert not (tmp_path / "S").exists()
    assert stat.S_IMODE(os.stat(root / "run-agentd").st_mode) == 0o700
