"""A server's place for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from servers import Place, temporary_place


@pytest.fixture
def place() -> Iterator[Place]:
    """A short private directory; nothing of its server is left afterwards."""
    with temporary_place() as place:
        yield place
