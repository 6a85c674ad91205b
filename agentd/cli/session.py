"""Reaching the daemon, and the few things that every command says in the same way."""

from __future__ import annotations

from agentd.cli.output import complain
from agentd.errors import EXIT_OK, EXIT_PARTIAL, from_wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.client import Client

NO_AGENTS = "no agents; try `agentd spawn shell`"


class Shared:
    """One connection for several commands: opened by the first, closed by nobody but its owner."""

    def __init__(self) -> None:
        self._client: Client | None = None

    def __enter__(self) -> Client:
        if self._client is None:
            self._client = _connect()
        return self._client

    def __exit__(self, *_how: object) -> None:
        pass

    def close(self) -> None:
        """Close it; what the daemon was asked to wait for is cancelled, and the next command opens it again."""
        if self._client is not None:
            self._client.close()
            self._client = None


_shared: Shared | None = None  # of `agentd repl`; a command alone has a connection of its own


def share(shared: Shared | None) -> None:
    """Have every command from now on use this connection."""
    global _shared
    _shared = shared


def connection() -> Client | Shared:
    """Return the connection to make a command's calls over, as a block; the daemon is started when none runs."""
    return _shared or _connect()


def reached() -> Client:
    """Return a connection to the daemon that runs, none is started; raises Unavailable."""
    return _connect(autostart=False)


def _connect(*, autostart: bool = True) -> Client:
    from agentd.client import connect  # the usual commands make their call without it

    return connect(autostart=autostart)


def ask(method: str, params: dict[str, Any] | None = None) -> Any:
    """Make one call, starting the daemon when it is not running, and return the answer."""
    with connection() as client:
        return client.call(method, given(params or {}))


def ask_once(method: str, params: dict[str, Any] | None = None) -> Any:
    """Make the only call of a command, one that waits for nothing; see one_call."""
    if _shared is None:
        from agentd.cli.one_call import NotMade
        from agentd.cli.one_call import ask as ask_quickly

        try:
            return ask_quickly(method, given(params or {}))
        except NotMade:
            pass
    return ask(method, params)


def given(params: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters that have a value."""
    return {name: value for name, value in params.items() if value is not None}


def report_failed(failed: Sequence[dict[str, Any]], name: str) -> int:
    """Say on stderr what was refused and why; returns the exit code of a batch."""
    for row in failed:
        values = row["error"]
        complain(from_wire(values["code"], f"{row[name]}: {values['message']}", values))
    return EXIT_PARTIAL if failed else EXIT_OK
