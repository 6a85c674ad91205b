"""What was refused is told: to the inbox once, to the operator at a bounded rate."""

from __future__ import annotations

import pytest

from agentd.agents.refusals import Refusals
from agentd.errors import InvalidValue, LoopLimit, QuotaExceeded
from agentd.events import Events
from agentd.metrics import Metrics

pytestmark = pytest.mark.anyio


async def test_an_inbox_is_told_once_and_a_storm_is_one_event_a_second():
    now_s = [10.0]
    events, metrics = Events(), Metrics()
    refusals = Refusals(events, metrics, str.upper, lambda: now_s[0])
    for _ in range(1000):
        refusals.add("ann", "bob", QuotaExceeded("full"))
    refusals.add("eve", "bob", LoopLimit("round"))
    refusals.add("eve", "bob", InvalidValue("not a limit"))
    assert refusals.rows("bob") == [{"from": "ANN", "count": 1000}, {"from": "EVE", "count": 1}]
    assert len(refusals.read("bob")) == 2
    assert refusals.read("bob") == []
    now_s[0] += 1.0
    refusals.add("ann", "bob", QuotaExceeded("full"))
    told = [(event.data["from"], event.data["code"], event.data["count"]) for event in await events.since(0)]
    assert told == [("ANN", "quota", 1), ("EVE", "loop_limit", 1), ("ANN", "quota", 1000)]
    assert metrics.snapshot() == {
        "messages_refused_loop_limit_total": 1,
        "messages_refused_quota_total": 1001,
        "messages_refused_total": 1002,
    }
