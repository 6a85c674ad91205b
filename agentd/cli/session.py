"""Reaching the daemon, and the few things that every command says in the same way."""

from __future__ import annotations

from agentd.cli.output import complain
from agentd.client import connect
from agentd.errors import EXIT_OK, EXIT_PARTIAL, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

NO_AGENTS = "no agents; try `agentd spawn shell`"


def ask(method: str, params: dict[str, Any] | None = None) -> Any:
    """Make one call, starting the daemon when it is not running, and return the answer."""
    with connect() as client:
        return client.call(method, given(params or {}))


def given(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def report_failed(failed: Sequence[dict[str, Any]], name: str) -> int:
    """Say on stderr what was refused and why; returns the exit code of a batch."""
    for row in failed:
        values = row["error"]
        complain(from_wire(values["code"], f"{row[name]}: {values['message']}", values))
    return EXIT_PARTIAL if failed else EXIT_OK
