"""Records and states."""

from __future__ import annotations

import dataclasses
import re

import pytest

from agentd import records
from agentd.records import NAME_PATTERN, OPERATOR, RESERVED_NAMES, AgentState, Caller, MessageState, Priority, Role

CLASSES = [cls for cls in vars(records).values() if dataclasses.is_dataclass(cls)]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_record_cannot_change(cls: type) -> None:
    assert cls.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert hasattr(cls, "__slots__")


def test_which_states_are_live_and_which_are_final() -> None:
    assert {state for state in AgentState if not state.live} == {"stopped", "failed"}
    assert {state for state in MessageState if state.final} == {"acked", "expired", "dead"}


def test_priorities_sort_the_urgent_first() -> None:
    assert sorted(Priority) == [Priority.HIGH, Priority.NORMAL, Priority.LOW]


def test_reserved_names_look_like_names_and_include_the_operators_inbox() -> None:
    assert all(re.fullmatch(NAME_PATTERN, name) for name in RESERVED_NAMES)
    assert OPERATOR in RESERVED_NAMES


def test_the_callers_inbox() -> None:
    assert Caller(Role.OPERATOR).inbox == OPERATOR
    assert Caller(Role.AGENT, "7abc", "bob").inbox == "7abc"
