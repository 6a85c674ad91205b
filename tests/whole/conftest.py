"""Fixtures: real daemons with real tmux servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from instance import Instance, instance


@pytest.fixture
def idle_instance() -> Iterator[Instance]:
    """Give an instance whose daemon does not run yet."""
    with instance() as whole:
        yield whole


@pytest.fixture
def running(idle_instance: Instance) -> Instance:
    """Give an instance whose daemon runs."""
    idle_instance.up()
    return idle_instance
