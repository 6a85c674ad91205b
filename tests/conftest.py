"""Shared by every floor's tests."""

from __future__ import annotations

import fault_rows
import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The daemon runs on asyncio."""
    return "asyncio"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the rows of faults came to; in the long form only, which is run to be quoted."""
    if fault_rows.LONG:
        for line in fault_rows.ROWS:
            terminalreporter.write_line(line)
