"""`agentd profile check`: of programs that work, that ask, that never become ready, and that are not there."""

from __future__ import annotations

import json
from typing import Any

import pytest
from instance import Instance

from agentd.errors import EXIT_FAILED, EXIT_NOT_FOUND, EXIT_OK


def check(whole: Instance, *words: str) -> tuple[int, dict[str, Any]]:
    done = whole.cli("profile", "check", *words, "--cwd", str(whole.directory), "--json", check=False)
    report: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, report


@pytest.mark.parametrize(("profile", "answer"), [("shell", "42"), ("sh", "42"), ("demo", "echo: agentd checks")])
def test_a_program_that_works(running: Instance, profile: str, answer: str):
    code, report = check(running, profile)
    assert (code, report["ok"]) == (EXIT_OK, True)
    assert report["answer"].startswith(answer)
    assert report["proof"].startswith("left the composer")
    assert report["boot_s"] < 20
    states = [row["state"] for row in report["states"]]
    assert (states[0], states[-1]) == ("idle", "stopped")
    assert report["states"][0]["rule"].startswith("rules[")
    assert [row["state"] for row in running.json("ls", "--state", "stopped")] == ["stopped"]
    assert running.json("ls") == []


def test_the_table_for_people(running: Instance):
    said = running.cli("profile", "check", "shell").stdout
    assert said.startswith("TIME")
    assert "42" in said
    assert said.endswith("shell works here\n")


def test_a_program_that_asks_for_permission_is_told_with_its_screen(running: Instance):
    code, report = check(running, "demo", "--env", "AGENTD_DEMO_MODE=asks-permission")
    assert (code, report["ok"], report["stopped"]) == (EXIT_FAILED, False, True)
    assert "waiting" in report["problem"]
    assert "Allow?" in report["screen"]
    assert running.json("ls") == []


def test_a_program_that_never_becomes_ready(running: Instance):
    code, report = check(running, "demo", "--env", "AGENTD_DEMO_MODE=never-ready", "--timeout", "0.5")
    assert (code, "submitted" in report) == (EXIT_FAILED, False)
    assert "not idle in 0.5 s" in report["problem"]
    assert running.json("ls") == []


def test_a_program_that_is_not_installed_is_told_with_the_way_to_get_it(idle_instance: Instance):
    running = idle_instance
    profiles = running.directory / "profiles"
    profiles.mkdir()
    (profiles / "gone.toml").write_text('command = "no-such-program"\ninstall = "get no-such-program"\n')
    running.up()
    for words in (("profile", "check", "gone"), ("spawn", "gone")):
        done = running.cli(*words, check=False)
        assert (done.returncode, done.stdout) == (EXIT_NOT_FOUND, "")
        assert done.stderr == "agentd: `no-such-program` is not installed; install it: get no-such-program\n"
    assert running.json("ls") == []


def test_a_profile_that_is_not_there(running: Instance):
    assert running.cli("profile", "check", "nobody", check=False).returncode == EXIT_NOT_FOUND
