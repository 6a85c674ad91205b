"""A daemon's door for the clients to speak to."""

from __future__ import annotations

import pytest
from serving import serving_in_thread


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "agentd.sock")


@pytest.fixture
def served(path):
    with serving_in_thread(path) as served:
        yield served
