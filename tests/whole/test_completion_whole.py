"""Completion beside a real daemon: it sees what runs, changes nothing, and starts nothing."""

from __future__ import annotations

from instance import Instance


def test_it_names_what_runs_and_changes_nothing(running: Instance):
    running.spawn("demo", name="ada", team="crew", role="boss")
    running.cli("send", "ada", "hello", "--wait", "reply")
    reply = running.json("msg", offered(running, "msg ")[-1], "--thread")[-1]["id"]
    assert offered(running, "send @") == ["@crew", "@crew/boss"]
    assert offered(running, "send ad") == ["ada"]
    assert "demo" in offered(running, "spawn d")
    assert reply in offered(running, "ack ")
    assert running.json("msg", reply)["state"] == "accepted"  # a TAB does not read the inbox
    running.cli("stop", "ada")
    assert offered(running, "respawn ") == ["ada"]


def test_it_starts_no_daemon(idle_instance: Instance):
    before = sorted(idle_instance.directory.iterdir())
    assert offered(idle_instance, "send a") == ["all"]
    assert "shell" in offered(idle_instance, "spawn ")
    assert sorted(idle_instance.directory.iterdir()) == before


def offered(instance: Instance, line: str) -> list[str]:
    return instance.cli("__complete", f"--line=agentd {line}").stdout.split()
