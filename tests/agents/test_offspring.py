"""What agents may start: which profiles, how deep, how many, how often, and whose they are (M09)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agentd.agents.directory import Directory
from agentd.agents.offspring import Descent, Offspring
from agentd.agents.registry import Entry
from agentd.config import AgentsConfig
from agentd.errors import Denied, OverLimit, RateLimit
from agentd.records import Agent, AgentState, Caller, Role

OPERATOR = Caller(Role.OPERATOR)


class World:
    """A directory that grows as it is admitted, and a clock."""

    def __init__(self, **limits: int) -> None:
        self.now_s = 0.0
        self.directory = Directory([Entry(Agent("root", "root", "demo", AgentState.IDLE))])
        config = replace(AgentsConfig(spawnable=("demo",)), **limits)
        self.offspring = Offspring(config, self.directory, lambda: self.now_s)

    def start(self, parent: str, count: int = 1, profile: str = "demo") -> list[str]:
        descent = self.offspring.admit(Caller(Role.AGENT, parent, parent), profile, count)
        ids = [f"{parent}-{len(list(self.directory))}-{number}" for number in range(count)]
        for id_ in ids:
            self.put(Agent(id_, id_, profile, AgentState.IDLE, **_fields(descent)))
        return ids

    def put(self, agent: Agent) -> None:
        self.directory.put(Entry(agent))

    def of(self, id_: str) -> Agent:
        return self.directory.entry(id_).agent


def _fields(descent: Descent) -> dict[str, str | int]:
    return {"started_by": descent.started_by, "family": descent.family, "generation": descent.generation}


@pytest.fixture
def world() -> World:
    return World()


def test_the_operator_is_not_limited(world: World):
    assert Offspring(AgentsConfig(), world.directory, lambda: 0.0).admit(OPERATOR, "x", 10_000) == Descent()
    world.offspring.check_own(OPERATOR, list(world.directory))


def test_only_the_profiles_that_are_named():
    world = World()
    with pytest.raises(Denied, match="may not start `shell` here; nothing was started"):
        world.start("root", profile="shell")
    world.start("root")
    assert not Offspring(AgentsConfig(), world.directory, lambda: 0.0).allowed


def test_generations_are_counted_from_the_operators_agent(world: World):
    id_ = "root"
    for generation in (1, 2, 3):
        (id_,) = world.start(id_)
        assert (world.of(id_).generation, world.of(id_).family) == (generation, "root")
    with pytest.raises(OverLimit, match=r"3 deep, and agents\.spawn_depth is 3; nothing was started"):
        world.start(id_)


def test_a_family_is_bounded_however_it_branches_and_has_room_again():
    world = World(spawns_per_min=100, family_max=6)
    children = world.start("root", 3)
    grandchildren = [one for child in children for one in world.start(child)]
    for parent in ("root", *children, *grandchildren):
        with pytest.raises(OverLimit, match=r"would pass agents\.family_max = 6"):
            world.start(parent)
    world.put(replace(world.of(grandchildren[0]), state=AgentState.STOPPED))
    world.start("root")


def test_a_minute_has_so_many_and_they_come_back():
    world = World(family_max=1000)
    world.start("root", 10)
    with pytest.raises(RateLimit) as caught:
        world.start("root")
    assert caught.value.retry_after_ms == 6000
    world.now_s += 6.0
    world.start("root")
    with pytest.raises(RateLimit) as caught:  # more than a minute's would never be allowed: no time to wait is told
        world.start("root", 11)
    assert caught.value.retry_after_ms is None


def test_a_recursive_starter_comes_to_an_end():
    """Each agent starts as many as it may, for ever: no more than the family's limit ever live."""
    world = World()
    for _ in range(50):
        for agent in list(world.directory):
            try:
                world.start(agent.id, 2)
            except (OverLimit, RateLimit):
                continue
        world.now_s += 60.0
    assert len(list(world.directory)) == 1 + 20


def test_whose_they_are(world: World):
    (child,) = world.start("root")
    (grandchild,) = world.start(child)
    world.put(Agent("other", "other", "demo", AgentState.IDLE))
    for caller, yes, no in (
        ("root", (child, grandchild), ("root", "other")),
        (child, (grandchild,), ("root", child, "other")),
        ("other", (), (child, grandchild)),
    ):
        who = Caller(Role.AGENT, caller, caller)
        world.offspring.check_own(who, [world.of(id_) for id_ in yes])
        for id_ in no:
            with pytest.raises(Denied, match="was not started by you; nothing was done"):
                world.offspring.check_own(who, [*map(world.of, yes), world.of(id_)])
