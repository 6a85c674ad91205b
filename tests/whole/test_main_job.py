"""The main job: spawn, send, answer, survive."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from pathlib import Path

import pytest
from instance import Instance, alive, wait_until

AGENTS = 10


def logged(directory: Path) -> list[dict[str, str]]:
    """Return what the demo agents wrote down, oldest first within each; the last line may be half written."""
    lines = [line for file in sorted(directory.glob("*.log")) for line in file.read_text().split("\n")[:-1]]
    return [json.loads(line) for line in lines]


def test_a_batch_of_ten_thousand_reaches_ten_programs_exactly_once_and_in_order(running: Instance, tmp_path: Path):
    """10,000 lines to 10 agents: receipts in order, each body once in the programs' own logs, per-sender order kept."""
    logs = running.directory / "logs"
    logs.mkdir()
    for n in range(AGENTS):
        running.spawn(name=f"a-{n}", env={"AGENTD_DEMO_LOG": str(logs / f"a-{n}.log")})
    batch = tmp_path / "batch.jsonl"
    batch.write_text("".join(json.dumps({"to": f"a-{n % AGENTS}", "body": f"line {n}"}) + "\n" for n in range(10_000)))
    out = running.cli("send", "--batch", str(batch)).stdout.splitlines()
    receipts = [json.loads(line) for line in out]
    assert [receipt["line"] for receipt in receipts] == list(range(1, 10_001))
    assert {receipt["state"] for receipt in receipts} == {"accepted"}
    assert len({receipt["id"] for receipt in receipts}) == 10_000
    wait_until(lambda: len(logged(logs)) >= 10_000, "every program to log its share", 90)
    by_agent = defaultdict(list)
    for file in logs.glob("*.log"):
        by_agent[file.stem] = [json.loads(line) for line in file.read_text().splitlines()]
    for n in range(AGENTS):
        assert [row["body"] for row in by_agent[f"a-{n}"]] == [f"line {k}" for k in range(n, 10_000, AGENTS)]
        assert [row["id"] for row in by_agent[f"a-{n}"]] == [receipts[k]["id"] for k in range(n, 10_000, AGENTS)]


def test_a_message_is_answered_and_every_state_is_told(running: Instance):
    running.spawn(name="a")
    receipt = running.json("send", "a", "hello", "--wait", "reply", "--timeout", "20")
    message = running.json("msg", receipt["id"] if "id" in receipt else receipt["message"]["id"])
    states = [entry["state"] for entry in message["history"]]
    assert states[0] == "accepted"
    assert {"delivering", "delivered", "acked"} <= set(states)
    inbox = running.json("inbox")
    assert [(m["from"], m["body"]) for m in inbox] == [("a", "echo: hello")]


def test_agents_and_their_messages_outlive_the_daemon(running: Instance):
    agent = running.spawn(name="a")
    running.kill()
    assert alive(agent["pid"])
    running.up()
    now = running.json("show", "a")
    assert (now["id"], now["pid"]) == (agent["id"], agent["pid"])
    answer = running.json("send", "a", "still there?", "--wait", "reply", "--timeout", "20")
    assert answer


@pytest.mark.parametrize("profile", ["shell", "sh"])
def test_a_shell_runs_what_it_is_sent(running: Instance, profile: str):
    running.spawn(profile, name="s")
    mark = running.directory / "done"
    running.cli("send", "s", f"echo hi > {mark}", "--wait", "delivered", "--timeout", "20")
    wait_until(mark.exists, "the shell to run the command")


def test_many_agents_spawned_at_once_all_become_idle(running: Instance):
    """The first are idle before the last are started: what they are by then must not be written over."""
    with running.client() as client:
        agents = client.call("agents.spawn", {"profile": "sh", "n": 30})["agents"]
        for agent in agents:
            client.call("agents.wait", {"target": agent["id"], "until": "idle", "timeout_s": 30.0})


def test_what_an_agent_makes_is_as_open_as_its_users_other_files(idle_instance: Instance):
    """The daemon's own files are private; the files of a user's project are not its business."""
    old = os.umask(0o022)
    try:
        idle_instance.up()
    finally:
        os.umask(old)
    idle_instance.spawn("sh", name="s")
    made = idle_instance.directory / "made"
    idle_instance.cli("send", "s", f"echo hi > {made}", "--wait", "delivered", "--timeout", "20")
    wait_until(made.exists, "the shell to make its file")
    assert made.stat().st_mode & 0o777 == 0o644
