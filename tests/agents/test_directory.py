"""Who is meant by a target."""

from __future__ import annotations

import pytest

from agentd.agents.directory import Directory, is_group
from agentd.agents.registry import Entry, digest
from agentd.errors import UnknownTarget
from agentd.records import Agent, AgentState


def entry(id_: str, name: str, *, state: AgentState = AgentState.IDLE, token: str = "", **more: str) -> Entry:
    return Entry(Agent(id_, name, more.pop("profile", "demo"), state, **more), digest(token) if token else "")


@pytest.fixture
def directory() -> Directory:
    return Directory(
        [
            entry("1aaaaaaaaa", "a-1", team="red", role="lead", token="one"),
            entry("1abbbbbbbb", "a-10", team="red", role="worker"),
            entry("2cccccccccc", "b", profile="shell"),
            entry("3dddddddddd", "gone", state=AgentState.STOPPED, team="red"),
        ]
    )


def names(directory: Directory, target: str) -> list[str]:
    return sorted(agent.name for agent in directory.resolve(target))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("a-1", ["a-1"]),  # a name is never a prefix: a-10 is not meant (T13)
        ("1aaaaaaaaa", ["a-1"]),
        ("1ab", ["a-10"]),
        ("gone", ["gone"]),  # named outright, a stopped agent still has its inbox
        ("@red", ["a-1", "a-10"]),
        ("@red/worker", ["a-10"]),
        ("%shell", ["b"]),
        ("all", ["a-1", "a-10", "b"]),
    ],
)
def test_a_target_names(directory: Directory, target: str, expected: list[str]):
    assert names(directory, target) == expected


@pytest.mark.parametrize("target", ["a", "1a", "@blue", "@red/cook", "%none", "operator", "", "9"])
def test_a_target_that_names_nobody_or_several_ids_is_refused(directory: Directory, target: str):
    with pytest.raises(UnknownTarget):
        directory.resolve(target)


def test_the_nearest_name_is_suggested(directory: Directory):
    with pytest.raises(UnknownTarget) as caught:
        directory.resolve("a-11")
    assert "did you mean `a-1" in (caught.value.hint or "")


def test_one_refuses_a_group(directory: Directory):
    with pytest.raises(UnknownTarget, match="names 2 agents"):
        directory.one("@red")


def test_a_stopped_agent_gives_its_name_away_and_keeps_its_id(directory: Directory):
    assert not directory.name_taken("gone")
    directory.put(entry("4eeeeeeeee", "gone"))
    assert directory.one("gone").id == "4eeeeeeeee"
    assert directory.one("3dddddddddd").name == "gone"


def test_a_token_belongs_to_one_agent_and_ends_when_replaced(directory: Directory):
    found = directory.by_token(digest("one"))
    assert found is not None
    assert found.name == "a-1"
    directory.put(entry("1aaaaaaaaa", "a-1", token="two"))
    assert directory.by_token(digest("one")) is None
    assert directory.by_token(digest("two")) is not None
    directory.drop("1aaaaaaaaa")
    assert directory.by_token(digest("two")) is None


def test_groups():
    assert [is_group(t) for t in ("all", "@t", "%p", "a", "1a")] == [True, True, True, False, False]


def test_a_program_that_changed_hands_is_found_by_the_id_it_was_booted_as(directory: Directory):
    """Each home is one agent's at a time, whichever of both is changed or forgotten later."""
    old, new = "1aaaaaaaaa", "4eeeeeeeee"
    assert directory.by_home(old) == directory.get(old)
    directory.put(entry(old, "a-1", state=AgentState.STOPPED, booted_as="5fffffffff"))
    assert directory.by_home(old) is None
    directory.put(entry(new, "pool", booted_as=old, token="two"))
    assert directory.by_token(digest("one")) is None
    homes = {home: agent.id for home in (old, "5fffffffff") if (agent := directory.by_home(home))}
    assert homes == {old: new, "5fffffffff": old}
    directory.drop(old)
    assert directory.by_home("5fffffffff") is None
    assert directory.by_home(old) == directory.get(new)
    directory.drop(new)
    assert directory.by_home(old) is None
