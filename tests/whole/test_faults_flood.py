"""M08: an agent that floods an inbox fills its own share of it; both sides are told and nobody else is held up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from faults import form
from instance import Instance, instance
from speaking import Agent, add_reader, agents_of

MOST, SHARE = 200, 0.25
FLOOD = form(5000, 100_000)


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        add_reader(one)
        one.up(f"mailbox.max_inbox_messages={MOST}", f"mailbox.max_sender_share={SHARE}")
        yield one


def flood(agent: Agent, to: str, messages: int) -> Counter[str]:
    """Send that many; return how many were accepted, and refused with which code."""
    items = [{"to": to, "body": "flood"}] * 1000
    told: Counter[str] = Counter()
    for _ in range(messages // 1000):
        results = agent.client.call("messages.send_batch", messages=items)["results"]
        told.update(row["error"]["code"] if "error" in row else row["state"] for row in results)
    return told


def test_a_flood_fills_its_own_share_and_both_sides_are_told(whole: Instance):
    with agents_of(whole, 3) as (flooder, victim, other), whole.client() as operator:
        own = int(MOST * SHARE)
        begun = operator.call("events.list", limit=1)["last"]
        assert flood(flooder, victim.name, FLOOD) == {"accepted": own, "quota": FLOOD - own}
        assert other.send(victim.name) == flooder.send(other.name) == 1
        assert operator.send(victim.name, "stop").id
        told = operator.call("events.list", since=begun, types=["message.refused"])["events"]
        assert 1 <= len(told) <= 2 + FLOOD // 1000
        assert {(event["data"]["from"], event["data"]["code"]) for event in told} == {(flooder.name, "quota")}
        assert operator.call("daemon.metrics")["messages_refused_quota_total"] >= FLOOD - own

        answer = victim.client.call("messages.inbox", limit=1000)
        assert answer["refused"] == [{"from": flooder.name, "count": FLOOD - own}]
        senders = Counter(message["from"] for message in answer["messages"])
        assert senders == {flooder.name: own, other.name: 1, "operator": 1}
        assert flood(flooder, victim.name, 1000)["accepted"] == own  # what was read makes room


def test_a_flood_of_the_operator_is_told_on_the_command_line(whole: Instance):
    with agents_of(whole, 1) as (flooder,):
        refused = flood(flooder, "operator", 1000)["quota"]
        assert refused == 1000 - int(MOST * SHARE)
        assert whole.cli("inbox").stderr.startswith(f"agentd: {refused} sent by {flooder.name} were over a limit")
        assert whole.cli("inbox").stderr == ""
