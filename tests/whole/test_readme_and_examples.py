"""What the README and the examples show works as shown."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from instance import Instance, wait_until

ROOT = Path(__file__).parents[2]


def block(language: str) -> str:
    """Return the README's first block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found
    return found[1]


def test_the_ten_line_session_works_when_pasted(idle_instance: Instance):
    lines = block("sh").splitlines()
    assert len(lines) == 10
    first, rest = lines[0], lines[1:]
    assert "mktemp" in first
    # The same lines; only the programs' directory and the instance's are the test's.
    environ = idle_instance.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-ec", "\n".join(rest)], env=environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "echo: How are you?" in done.stdout
    assert "demo-2" in done.stdout
    assert idle_instance.processes() == []


def test_the_python_lines_print_the_answer(running: Instance):
    done = subprocess.run(
        [sys.executable, "-c", block("python")], env=running.environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "echo: What is seven times six?\n", done.stderr


def test_the_team_and_the_batch_file(running: Instance):
    team = running.json("team", "up", str(ROOT / "examples/team.toml"))
    assert [agent["name"] for agent in team["agents"] if agent["started"]] == [
        "lead",
        "worker-1",
        "worker-2",
        "worker-3",
    ]
    out = running.cli("send", "--batch", str(ROOT / "examples/batch.jsonl")).stdout
    receipts = [json.loads(line) for line in out.splitlines()]
    assert [receipt["state"] for receipt in receipts] == ["accepted"] * 4
    bodies = wait_until(
        lambda: (found := {m["body"] for m in running.json("inbox")}) and len(found) >= 5 and found, "every answer"
    )
    assert {"echo: You lead.", "echo: Say hello.", "echo: first line\nsecond line"} <= bodies
    again = running.json("team", "up", str(ROOT / "examples/team.toml"))
    assert [agent["started"] for agent in again["agents"]] == [False] * 4
    running.cli("team", "down", "crew")
    assert running.json("ls") == []


def test_the_script(running: Instance):
    script = ROOT / "examples/ask_everyone.py"
    done = subprocess.run(
        [sys.executable, str(script)], env=running.environ, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines() == [f"demo-{n}: echo: What is your name, demo-{n}?" for n in (1, 2, 3)], done.stderr
