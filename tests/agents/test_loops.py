"""The loop guard by itself: whatever agents echo to whom, it ends; what is no loop is let through (P12, M05-M07)."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.agents.loops import Cause, Loops
from agentd.config import LoopsConfig
from agentd.errors import AgentdError, LoopLimit, RateLimit
from agentd.records import OPERATOR, Draft

ENOUGH = 2000  # messages, of a loop that nobody stops


class Clock:
    """Seconds that a test turns, and the wall clock that goes with them."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def seconds(self) -> float:
        return self.now_s

    def wall_ns(self) -> int:
        return int(self.now_s * 1e9)


@dataclass
class World:
    """Agents that send on whatever they receive, each to its own recipients; the operator begins."""

    loops: Loops
    clock: Clock
    edges: dict[str, list[str]]
    answers: bool = True  # with the true cause; else as an agent that keeps quiet about it: the last one it received

    def __post_init__(self) -> None:
        self.queue: deque[tuple[str, Cause]] = deque()
        self.last: dict[str, Cause] = {}
        self.sent: Counter[tuple[str, str]] = Counter()
        self.refused: list[AgentdError] = []
        self.given = 0

    def put(self, draft: Draft) -> None:
        self.given += 1
        self.sent[draft.sender, draft.to] += 1
        id_ = f"m{self.given:04}"
        cause = Cause(id_, draft.sender, draft.trace or id_, draft.hops, self.clock.wall_ns())
        self.queue.append((draft.to, cause))

    def send(self, sender: str, to: str, cause: Cause | None) -> None:
        admitted = self.loops.admit(Draft(to=to, sender=sender, body="x"), cause)
        if isinstance(admitted, Draft):
            self.put(admitted)
        else:
            self.refused.append(admitted)

    def run(self, pause_s: float = 0.0) -> None:
        while self.queue and self.given < ENOUGH:
            agent, cause = self.queue.popleft()
            self.last[agent] = cause
            self.clock.now_s += pause_s
            for to in self.edges.get(agent, ()):
                self.send(agent, to, cause if self.answers else self.last[agent])


def world(edges: dict[str, list[str]], **settings: Any) -> World:
    clock = Clock()
    return World(Loops(LoopsConfig(**settings), clock.seconds, clock.wall_ns), clock, edges)


def ring(size: int) -> dict[str, list[str]]:
    return {f"a{n}": [f"a{(n + 1) % size}"] for n in range(size)}


def seed(one: World, to: str = "a0") -> None:
    one.put(Draft(to=to, sender=OPERATOR, body="go"))


names = st.integers(2, 17).map(lambda size: [f"a{n}" for n in range(size)])
graphs = names.flatmap(
    lambda nodes: st.fixed_dictionaries({node: st.lists(st.sampled_from(nodes), max_size=3) for node in nodes})
)


@given(edges=graphs, seeds=st.integers(1, 5), answers=st.booleans(), pause_s=st.sampled_from([0.0, 3.0, 600.0]))
def test_whatever_agents_echo_it_ends_within_the_budget(
    edges: dict[str, list[str]], seeds: int, answers: bool, pause_s: float
):
    one = world(edges)
    one.answers = answers
    for number in range(seeds):
        seed(one, f"a{number % len(edges)}")
    one.run(pause_s)
    assert not one.queue
    assert one.given <= seeds * 200


@given(size=st.sampled_from([2, 3, 5, 17]), answers=st.booleans())
def test_a_ring_stops_after_the_hops(size: int, answers: bool):
    one = world(ring(size))
    one.answers = answers
    seed(one)
    one.run(pause_s=20.0)
    assert one.given == 1 + 16
    assert [type(error) for error in one.refused] == [LoopLimit]


@pytest.mark.parametrize("size", [2, 3, 5, 17])
def test_without_the_guard_a_ring_goes_on(size: int):
    one = world(ring(size), enabled=False)
    seed(one)
    one.run()
    assert one.given == ENOUGH
    assert not one.refused


def test_a_tree_of_answers_stops_at_the_budget():
    one = world({f"a{n}": [f"a{m}" for m in range(9)] for n in range(9)}, trace_messages=50)
    seed(one)
    one.run(pause_s=60.0)
    assert one.given == 50
    assert {type(error) for error in one.refused} == {LoopLimit}


@st.composite
def calm(draw: st.DrawFn) -> tuple[dict[str, list[str]], int]:
    """Agents in layers that send downwards only: fewer than 16 layers, fewer than 200 messages of one."""
    layers = draw(st.integers(1, 5))
    width = draw(st.integers(1, 3))
    edges = {
        f"a{layer}-{n}": [f"a{layer + 1}-{m}" for m in range(width) if draw(st.booleans())]
        for layer in range(layers)
        for n in range(width)
    }
    return edges, draw(st.integers(1, 8))


@given(calm())
def test_what_is_no_loop_and_not_too_fast_is_never_refused(given_: tuple[dict[str, list[str]], int]):
    edges, seeds = given_
    one = world(edges)
    for _ in range(seeds):
        seed(one, "a0-0")
        one.run(pause_s=6.0)  # ten a minute
        one.clock.now_s += 60.0
    assert not one.refused


def test_an_agent_may_begin_as_much_as_it_wants():
    """What nothing caused is no loop: a flood of it is the quota's business."""
    one = world({})
    for _ in range(500):
        one.send("a", "b", None)
    assert one.given == 500


def answer(one: World, sender: str, to: str, hops: int = 1, cause: str = "m1") -> AgentdError | None:
    admitted = one.loops.admit(
        Draft(to=to, sender=sender, body="x"), Cause(cause, to, cause, hops, one.clock.wall_ns())
    )
    return None if isinstance(admitted, Draft) else admitted


@pytest.mark.parametrize(("to", "most"), [("b", 10), ("a", 3)])
def test_a_pair_has_so_many_answers_a_minute(to: str, most: int):
    one = world({})
    refusals = [answer(one, "a", to, cause=f"m{n}") for n in range(most + 2)]
    assert refusals[:most] == [None] * most
    refused = refusals[most]
    assert isinstance(refused, RateLimit)
    assert refused.retry_after_ms == 60_000 // most
    assert one.loops.empty_buckets() == [("a", to, 60_000 // most)]
    assert answer(one, "a", "c") is None  # another pair has its own
    one.clock.now_s += 60 / most
    assert answer(one, "a", to, cause="m99") is None
    assert isinstance(answer(one, "a", to, cause="m99"), RateLimit)


def test_what_the_operator_asked_for_is_not_paced():
    """A lead that was told to share out the work sends it at once; its chain has its budget all the same."""
    one = world({})
    for _ in range(50):
        one.send("a", "b", Cause("m1", OPERATOR, "m1", 0, one.clock.wall_ns()))
    assert one.given == 50


def test_an_answer_to_the_operator_is_never_refused():
    one = world({})
    assert [answer(one, "a", OPERATOR, hops=99) for _ in range(300)] == [None] * 300
    assert one.loops.chains() == []


@pytest.mark.parametrize("name", ["m0001", "a0", "a1", ""])
def test_after_a_reset_traffic_flows_again(name: str):
    one = world(ring(2))
    seed(one)
    one.run(pause_s=20.0)
    stopped = one.given
    assert one.loops.chains() == [{"trace": "m0001", "messages": 17, "hops": 16, "refused": 1}]
    last = max(one.last.items(), key=lambda item: item[1].hops)
    one.clock.now_s += 1.0
    one.loops.reset(name)
    one.queue.append(last)  # the one that was refused tries again
    one.run(pause_s=20.0)
    forgiven = name in ("m0001", "", last[0])
    assert (one.given > stopped) is forgiven
    assert one.given <= stopped + 16  # and stops again


def test_groups():
    one = world({}, broadcast_recipients=5)
    assert one.loops.group_refusal(5, answers=False) is None
    for refusal in (one.loops.group_refusal(6, answers=False), one.loops.group_refusal(2, answers=True)):
        assert isinstance(refusal, LoopLimit)
        assert "nothing was sent" in refusal.message
    assert world({}, enabled=False).loops.group_refusal(6, answers=True) is None
