"""Programs in panes that live by MCP: they work together without a person, and a loop of them is stopped (M05, M06)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mcp_program
import pytest
from faults import form
from instance import Instance, instance, wait_until
from mcp_client import PYTHONPATH

HOPS = 6
PROGRAM = """
command = "{python}"
args = ["{program}", "{what}"]
delivery = "pull"
[[rules]]
state = "idle"
screen = '^ready$'
[[rules]]
state = "starting"
screen = ''
"""


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        profiles = one.directory / "profiles"
        profiles.mkdir()
        for what in ("echo", "lead", "worker"):
            text = PROGRAM.format(python=sys.executable, program=Path(mcp_program.__file__), what=what)
            (profiles / f"{what}.toml").write_text(text)
        one.up(f"loops.max_hops={HOPS}")
        yield one


@pytest.fixture
def spawn(whole: Instance) -> Iterator[Any]:
    names: list[str] = []

    def one(profile: str, name: str, other: str) -> None:
        whole.spawn(profile, name=name, env={"OTHER": other, "PYTHONPATH": PYTHONPATH})
        names.append(name)

    yield one
    whole.cli("stop", *names, "--force")


def hops_of(whole: Instance, names: list[str]) -> list[int]:
    with whole.client() as client:
        found = [client.call("messages.inbox", target=name, all=True)["messages"] for name in names]
    return sorted(message["hops"] for messages in found for message in messages)


def told(whole: Instance, sender: str, since: set[str]) -> list[dict[str, Any]]:
    """Return what the operator was sent by an agent."""
    with whole.client() as client:
        messages = client.call("messages.inbox", all=True, limit=1000)["messages"]
    return [message for message in messages if message["from"] == sender and message["id"] not in since]


def test_one_gives_a_task_to_another_and_reports_what_came_of_it(whole: Instance, spawn: Any):
    spawn("worker", "hand", "")
    spawn("lead", "head", "hand")
    with whole.client() as client:
        asked = client.send("head", "say it loud").id
        answer = client.call("messages.wait", id=asked, until="reply", timeout_s=30.0)
        assert answer["reply"]["body"] == "hand says: PLEASE: SAY IT LOUD"
        assert hops_of(whole, ["hand", "head"]) == [0, 1, 2]  # the request, the task that came of it, its result
        wait_until(lambda: client.call("messages.get", id=asked)["state"] == "acked", "the task to be acknowledged")


@pytest.mark.parametrize("size", form((2, 3), (2, 3, 5, 17)))
def test_programs_that_pass_on_for_ever_are_stopped_and_let_go_on(whole: Instance, spawn: Any, size: int):
    names = [f"of{size}-{number}" for number in range(size)]
    for number, name in enumerate(names):
        spawn("echo", name, names[(number + 1) % size])
    with whole.client() as client:
        first = client.send(names[0], "go").id
        stuck = names[HOPS % size]
        [refusal] = wait_until(lambda: told(whole, stuck, set()), "the loop to be refused")
        assert refusal["body"] == "loop_limit"
        assert hops_of(whole, names) == list(range(HOPS + 1))  # what was let through, and nothing more
        assert first in {chain["trace"] for chain in whole.json("loops", "ls")["chains"]}
        whole.cli("loops", "reset")
        client.send(stuck, "go on")
        wait_until(lambda: len(hops_of(whole, names)) == 2 * (HOPS + 1), "the messages to flow again")
        again = names[(HOPS + HOPS) % size]
        wait_until(lambda: told(whole, again, {refusal["id"]}), "the loop to be refused again")
