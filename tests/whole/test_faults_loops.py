"""M05-M07: agents that answer each other for ever are stopped, told why, and let go on by the operator."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults import form, say
from instance import Instance, instance, wait_until
from speaking import Agent, add_reader, agents_of

from agentd.errors import AgentdError

HOPS, BUDGET = 6, 40
LIMITS = (f"loops.max_hops={HOPS}", f"loops.trace_messages={BUDGET}")
Echo = Callable[[Agent, dict[str, Any]], int]  # what an agent does with a message; returns how many it sent


def echo(agents: list[Agent], react: Echo, most: int = 1000) -> int:
    """Let agents react until nothing comes any more, or `most` were sent; return how many."""
    sent = 0
    while sent < most:
        now = [react(agent, message) for agent in agents for message in agent.received()]
        if not now:
            break
        sent += sum(now)
    return sent


def onwards(agents: list[Agent]) -> Echo:
    following = {agent.name: agents[(n + 1) % len(agents)].name for n, agent in enumerate(agents)}
    return lambda agent, _message: agent.send(following[agent.name])


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up(*LIMITS)
        yield one


def refusals(whole: Instance, since: int) -> list[dict[str, Any]]:
    with whole.client() as client:
        return [event["data"] for event in client.call("events.list", since=since, types=["message.refused"])["events"]]


def last_event(whole: Instance) -> int:
    with whole.client() as client:
        return int(client.call("events.list", limit=1)["last"])


def begin(whole: Instance, to: str, body: str = "go") -> str:
    with whole.client() as client:
        return client.send(to, body).id


def test_two_that_echo_each_other_are_stopped_and_let_go_on(whole: Instance):
    before = last_event(whole)
    with agents_of(whole, 2) as pair:
        first = begin(whole, pair[0].name)
        assert echo(pair, onwards(pair)) == HOPS
        assert pair[0].refused + pair[1].refused == ["loop_limit"]
        told = refusals(whole, before)
        assert [(row["code"], row["count"]) for row in told] == [("loop_limit", 1)]
        assert {told[0]["from"], told[0]["to"]} == {agent.name for agent in pair}
        row = {"trace": first, "messages": HOPS + 1, "hops": HOPS, "refused": 1}
        assert row in whole.json("loops", "ls")["chains"]
        assert first in whole.cli("loops", "ls").stdout

        stuck = next(agent for agent in pair if agent.refused)
        other = next(agent for agent in pair if agent is not stuck)
        assert stuck.send(other.name) == 0  # trying again does not help ...
        assert stuck.send("operator") == 1  # ... but it can say so
        assert "flow again" in whole.cli("loops", "reset", first).stdout
        assert stuck.send(other.name) == 1
        assert echo(pair, onwards(pair)) == HOPS - 1

        assert len(stuck.refused) == 3  # the same one again, at the end of the new chain
        partly = whole.cli("loops", "reset", stuck.name, "nobody", check=False)
        assert (partly.returncode, partly.stdout) == (4, f"{stuck.name}: messages flow again\n")
        assert "nobody" in partly.stderr
        assert stuck.send(other.name) == 1
        echo(pair, onwards(pair))
        assert whole.json("loops", "ls")["chains"]
        assert whole.json("loops", "reset") == {"done": ["all"], "failed": []}
        assert whole.json("loops", "ls") == {"chains": [], "pairs": []}


def test_a_key_that_is_sent_again_gets_its_receipt_though_the_chain_is_over(whole: Instance):
    with agents_of(whole, 2) as (one, other):
        begin(whole, one.name)
        one.received()
        send = {"to": other.name, "body": "once", "key": "k"}
        first = one.client.call("messages.send", **send)
        echo([one, other], onwards([one, other]))
        assert one.send(other.name) == 0  # positive control: nothing new gets through
        again = one.client.call("messages.send", **send)
        assert (again["id"], again["duplicate"]) == (first["id"], True)
        with pytest.raises(AgentdError, match="chain"):
            one.client.call("messages.send", **{**send, "key": "another"})


def test_two_programs_in_real_panes_are_stopped(whole: Instance):
    """Each message is a command that sends itself to the other: the shell answers before its courier has looked."""
    script = whole.directory / "echo.sh"
    script.write_text(f'{sys.executable} -m agentd send "$OTHER" "sh {script}"\n')
    before = last_event(whole)
    pair = [whole.spawn("sh", name=name, env={"OTHER": other}) for name, other in (("ping", "pong"), ("pong", "ping"))]
    begin(whole, "ping", f"sh {script}")
    [refused] = wait_until(lambda: refusals(whole, before), "the loop to be refused", 60.0)
    assert refused["code"] == "loop_limit"
    with whole.client() as client:
        got = [client.call("messages.inbox", target=agent["name"], all=True)["messages"] for agent in pair]
        assert sorted(message["hops"] for messages in got for message in messages) == list(range(HOPS + 1))
        client.call("agents.stop", targets=["ping", "pong"])


@pytest.mark.parametrize("size", form((3,), (3, 5, 17)))
def test_a_ring_is_stopped(whole: Instance, size: int):
    with agents_of(whole, size) as ring:
        begin(whole, ring[0].name)
        assert echo(ring, onwards(ring)) == HOPS
        assert Counter(code for agent in ring for code in agent.refused) == {"loop_limit": 1}


def test_a_restart_does_not_reset_a_loop(whole: Instance):
    """The hops stand in the messages, and what an agent received last is asked of the mailbox."""
    with agents_of(whole, 2) as pair:
        begin(whole, pair[0].name)
        sent = echo(pair, onwards(pair), most=3)
        [taken] = (message for agent in pair for message in agent.received())
        whole.kill()
        whole.up(*LIMITS)
        holder = next(agent for agent in pair if agent.name == taken["to"])
        sent += onwards(pair)(holder, taken)
        assert sent + echo(pair, onwards(pair)) == HOPS
        assert pair[0].refused + pair[1].refused == ["loop_limit"]


def test_a_broadcast_that_all_answer_to_all_is_bounded(whole: Instance):
    size = form(8, 100)
    with agents_of(whole, size) as crowd:
        target = "%reader"
        with whole.client() as client:
            assert len(client.send(target, "what do you think?").receipts) == size
        readers = [agent for agent in crowd for _ in agent.received()]
        assert readers == crowd
        assert sum(agent.send(target) for agent in readers) == BUDGET - 1  # with the broadcast
        assert echo(crowd, lambda agent, _message: agent.send(target)) == 0
        with whole.client() as client:
            stall_ms = client.call("daemon.metrics")["loop_stall_ms_p99"]
        say(f"{size} agents answered a broadcast to all: the daemon's loop was late by {stall_ms} ms (p99)")
        assert stall_ms < form(1000, 100)  # the short form runs beside other tests
        assert {code for agent in crowd for code in agent.refused} <= {"loop_limit", "rate_limit"}
        message = crowd[0].client.call("messages.inbox", all=True, limit=1)["messages"][0]
        assert crowd[0].send(target, reply_to=message["id"]) == 0  # reply to all, said outright
        assert crowd[0].refused[-1] == "loop_limit"


def test_an_inbox_is_told_what_was_refused(whole: Instance):
    with agents_of(whole, 2) as pair:
        begin(whole, pair[0].name)
        echo(pair, onwards(pair))
        stuck = next(agent for agent in pair if agent.refused)
        other = next(agent for agent in pair if agent is not stuck)
        assert other.client.call("messages.inbox")["refused"] == []  # it was told within the loop
        stuck.send(other.name)
        for _ in range(2):  # that the operator looks is not that the owner does
            assert f"1 sent by {stuck.name} were over a limit" in whole.cli("inbox", other.name).stderr
        assert other.client.call("messages.inbox")["refused"] == [{"from": stuck.name, "count": 1}]
        assert other.client.call("messages.inbox")["refused"] == []


def test_without_the_guard_a_loop_goes_on(idle_instance: Instance):
    add_reader(idle_instance)
    idle_instance.up(*LIMITS, "loops.enabled=false")
    with agents_of(idle_instance, 2) as pair:
        begin(idle_instance, pair[0].name)
        assert echo(pair, onwards(pair), most=2 * BUDGET) == 2 * BUDGET
        assert pair[0].refused == pair[1].refused == []
    with agents_of(idle_instance, 3) as crowd:
        with idle_instance.client() as client:
            client.send("%reader", "what do you think?")
        assert echo(crowd, lambda agent, _message: agent.send("%reader"), most=2 * BUDGET) >= 2 * BUDGET
        assert not any(agent.refused for agent in crowd)
