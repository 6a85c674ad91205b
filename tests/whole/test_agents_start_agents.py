"""Agents that start agents over MCP and by the CLI: only what the operator allowed, only in their own place (M09)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from instance import Instance, instance
from mcp_client import mcp_client
from speaking import Agent, add_reader, agents_of

from agentd.errors import AgentdError


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up("agents.spawnable=demo,reader", "agents.family_max=4", "agents.spawns_per_min=100")
        yield one


@pytest.fixture
def pair(whole: Instance) -> Iterator[list[Agent]]:
    with agents_of(whole, 2) as agents:
        yield agents
        whole.cli("stop", "--force", "%demo", check=False)


def test_a_lead_starts_a_worker_has_it_work_reads_it_and_ends_it(whole: Instance, pair: list[Agent]):
    ann, bob = pair
    with mcp_client(ann.environ) as client:
        (worker,) = client.use("spawn", profile="demo", name="worker", prompt="build it")["agents"]
        client.use("wait_agent", target="worker", until="reply", timeout_s=20.0)
        (answer,) = client.use("inbox", wait_s=20.0)["messages"]
        assert (answer["from"], answer["body"]) == ("worker", "echo: build it")
        assert "build it" in client.use("read_agent", target="worker")["text"]
        shown = whole.json("show", "worker")
        assert (shown["started_by"], shown["cwd"]) == (ann.name, whole.json("show", ann.name)["cwd"])
        with mcp_client(bob.environ) as other:  # not the one that started it
            assert other.use("stop", targets=["worker"])["failed"][0]["error"]["code"] == "denied"
            assert other.refusal("read_agent", target="worker")["code"] == "denied"
        (stopped,) = client.use("stop", targets=["worker"])["stopped"]
        assert stopped["id"] == worker["id"]
        refused = client.use("stop", targets=[bob.name])
        assert refused["failed"][0]["error"]["code"] == "denied"
    assert whole.json("show", bob.name)["state"] != "stopped"


def test_the_command_line_does_the_same_in_an_agents_pane(whole: Instance, pair: list[Agent]):
    ann, _ = pair
    whole.cli("spawn", "demo", "--name", "helper", "--cwd", str(whole.directory), **ann.environ)
    whole.cli("wait", "helper", "--for", "idle", "--timeout", "20")
    assert "demo>" in whole.cli("read", "helper", **ann.environ).stdout
    assert "not started by you" in whole.cli("stop", "all", **ann.environ, check=False).stderr
    assert whole.cli("stop", "helper", **ann.environ).returncode == 0


def test_what_it_may_not_set_or_start_is_refused_with_a_reason(whole: Instance, pair: list[Agent], tmp_path: Path):
    ann, _ = pair
    outside = tmp_path / "outside"
    outside.mkdir()
    before = {agent["id"] for agent in whole.json("ls")}
    with whole.client(token=Path(ann.environ["AGENTD_TOKEN_FILE"]).read_text().strip()) as client:
        for params, why in (
            ({"profile": "shell"}, "may not start `shell`"),
            ({"profile": "demo", "env": {"LD_PRELOAD": "/x"}}, "may not set env or trust"),
            ({"profile": "demo", "trust": True}, "may not set env or trust"),
            ({"profile": "demo", "team": "others"}, "in your own team only"),
            ({"profile": "demo", "cwd": "/"}, "in your own directory and below only"),
            ({"profile": "demo", "cwd": f"{whole.json('show', ann.name)['cwd']}/../.."}, "in your own directory"),
            ({"profile": "demo", "n": 5}, r"would pass agents.family_max = 4"),
        ):
            with pytest.raises(AgentdError) as caught:
                client.call("agents.spawn", params)
            assert why in caught.value.message
            assert "nothing was started" in caught.value.message or "only" in caught.value.message
    assert {agent["id"] for agent in whole.json("ls")} == before


def test_the_same_key_starts_nothing_twice_and_is_the_callers_own(whole: Instance, pair: list[Agent]):
    ann, bob = (Path(agent.environ["AGENTD_TOKEN_FILE"]).read_text().strip() for agent in pair)
    ids = []
    for token in (ann, ann, bob):
        with whole.client(token=token) as client:
            ids.append([row["id"] for row in client.call("agents.spawn", profile="demo", n=2, key="k")["agents"]])
    assert ids[0] == ids[1]
    assert not set(ids[0]) & set(ids[2])
