"""The real programs: their own command `./dev real`, one program after the other."""

from __future__ import annotations

from collections.abc import Iterator

import programs
import pytest
import results
from stage import Stage, stage


@pytest.fixture(scope="module")
def program(request: pytest.FixtureRequest) -> programs.Program:
    """Give a program that is there; skip with the reason when it cannot be had."""
    found = programs.PROGRAMS[request.param]
    if programs.installed(found) is None and not programs.MAY_INSTALL:
        pytest.skip(
            f"{found.name} {found.version} is not installed; `./dev real` installs it below {programs.directory()}"
        )
    try:
        programs.install(found)
    except programs.NotThere as why:
        pytest.skip(str(why))
    return found


@pytest.fixture
def real(program: programs.Program) -> Iterator[Stage]:
    """Give a daemon that can start the program."""
    with stage(program) as one:
        yield one


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    for line in results.table():
        terminalreporter.write_line(line)
