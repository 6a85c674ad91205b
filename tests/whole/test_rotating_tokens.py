"""A live agent gets a new token: the old one ends, its programs go on, and a crash on the way leaves one that works."""

from __future__ import annotations

import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from instance import Instance, alive, instance, wait_until
from mcp_client import mcp_client
from speaking import add_reader, agents_of

from agentd.client import Client
from agentd.errors import EXIT_NOT_FOUND, AgentdError, AgentGone, Unauthenticated, Unavailable
from agentd.failpoint import VARIABLE


class Named(NamedTuple):
    """An agent whose program is the test."""

    name: str
    id: str
    environ: dict[str, str]


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up()
        yield one


@pytest.fixture
def agent(whole: Instance) -> Iterator[Named]:
    with agents_of(whole, 1) as [one]:
        yield Named(one.name, whole.show(one.name)["id"], one.environ)


def token_file(whole: Instance, agent_id: str) -> Path:
    return whole.directory / "agents" / agent_id / "token"


def token(whole: Instance, agent_id: str) -> str:
    return token_file(whole, agent_id).read_text().strip()


def who(whole: Instance, token: str) -> str:
    """Return as whom a connection with this token speaks, or the error's code."""
    try:
        with whole.client(token=token) as client:
            return str(client.call("agents.whoami")["id"])
    except AgentdError as error:
        return error.code


def test_the_new_token_works_and_the_old_one_does_not(whole: Instance, agent: Named):
    old = token(whole, agent.id)
    assert who(whole, old) == agent.id
    answer = whole.json("rotate-token", agent.name)
    assert answer == {"id": agent.id, "name": agent.name}
    new = token(whole, agent.id)
    assert new != old
    assert stat.S_IMODE(token_file(whole, agent.id).stat().st_mode) == 0o600
    assert (who(whole, new), who(whole, old)) == (agent.id, "unauthenticated")
    whole.cli("restart")
    assert (who(whole, new), who(whole, old)) == (agent.id, "unauthenticated")


def test_what_was_connected_with_the_old_one_is_cut_off(whole: Instance, agent: Named):
    old = token(whole, agent.id)
    with whole.client(token=old) as holding, whole.client() as operator:
        assert holding.call("agents.whoami")["id"] == agent.id
        operator.call("agents.rotate_token", {"target": agent.name})
        with pytest.raises(Unauthenticated):
            holding.call("agents.whoami")
        assert operator.call("agents.whoami")["role"] == "operator"


def test_a_stream_under_the_old_one_ends_with_a_sentence(whole: Instance, agent: Named):
    items: list[Any] = []
    told: list[AgentdError] = []

    def follow(holding: Client) -> None:
        try:
            items.extend(holding.stream("messages.follow", {}))
        except AgentdError as error:
            told.append(error)

    with whole.client(token=token(whole, agent.id)) as holding, whole.client() as operator:
        following = threading.Thread(target=follow, args=(holding,), daemon=True)
        following.start()
        wait_until(lambda: operator.send(agent.name, "hello") and items, "the stream to begin")
        operator.call("agents.rotate_token", {"target": agent.name})
        following.join(20)
    assert [error.code for error in told] == ["unauthenticated"]
    assert "new" in told[0].message


def test_a_program_that_reads_the_file_does_not_notice(whole: Instance, agent: Named):
    with mcp_client(agent.environ) as client:
        before = client.use("whoami")
        whole.cli("rotate-token", agent.name)
        assert client.use("whoami") == before


def test_it_stands_in_the_access_log_without_a_token(whole: Instance, agent: Named):
    whole.cli("rotate-token", agent.id)
    text = (whole.directory / "access.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    [line] = [line for line in lines if line.get("target") == agent.id]
    assert (line["what"], line["method"], line["by"]) == ("done", "agents.rotate_token", "operator")
    assert token(whole, agent.id) not in text


def test_who_has_ended_gets_none(whole: Instance, agent: Named):
    whole.cli("stop", agent.name, "--force")
    with pytest.raises(AgentGone, match="stopped"):
        whole.call("agents.rotate_token", target=agent.name)
    assert whole.cli("rotate-token", "nobody-here", check=False).returncode == EXIT_NOT_FOUND


@pytest.mark.parametrize("point", ["rotate.before_commit", "rotate.after_commit"])
def test_killed_on_the_way_it_has_one_token_that_works(idle_instance: Instance, point: str):
    """Killed before the commit it is the old one; after it, one that the next daemon makes."""
    idle_instance.cli("up", **{VARIABLE: f"{point}:kill"})
    daemon = idle_instance.pid()
    agent: dict[str, Any] = idle_instance.spawn("demo", name="lead")
    old = token(idle_instance, agent["id"])
    assert who(idle_instance, old) == agent["id"]
    with pytest.raises(Unavailable):
        idle_instance.call("agents.rotate_token", target="lead")
    wait_until(lambda: not alive(daemon), f"the daemon to die at {point}")
    idle_instance.up()
    now = token(idle_instance, agent["id"])
    assert who(idle_instance, now) == agent["id"]
    assert (now == old) is (point == "rotate.before_commit")
    assert now == old or who(idle_instance, old) == "unauthenticated"
    idle_instance.cli("rotate-token", "lead")
    assert who(idle_instance, token(idle_instance, agent["id"])) == agent["id"]


def test_a_token_file_that_is_gone_or_damaged_is_made_anew_by_the_next_daemon(running: Instance):
    agents = [running.spawn("demo", name=name) for name in ("gone", "odd", "whole")]
    gone, odd, fine = (token_file(running, agent["id"]) for agent in agents)
    before = fine.read_text()
    gone.unlink()
    odd.write_bytes(b"\xff")
    running.cli("restart")
    assert [who(running, token(running, agent["id"])) for agent in agents] == [agent["id"] for agent in agents]
    assert fine.read_text() == before
