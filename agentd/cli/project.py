"""Commands about the project file of a directory."""

from __future__ import annotations

import os
import sys

from agentd.cli.agents import print_agents
from agentd.cli.onlooker import starting, watched
from agentd.cli.output import emit, facts, note, say, tell_notices
from agentd.cli.session import ask, connection, report_failed
from agentd.errors import EXIT_FAILED, EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from agentd.cli.grammar import Values

UP_TIMEOUT_S = 4200.0  # a setup command may take an hour
_MEANINGS = {
    "trusted": "trusted",
    "changed": "changed since it was trusted: nothing in it is used",
    "not trusted": "not trusted: nothing in it is used",
}


def show(values: Values) -> int:
    """Show the project file, whether it is trusted, and what it would do."""
    seen = ask("projects.get", _where(values))
    if values["json"]:
        emit(seen)
        return EXIT_OK
    tell_notices(seen)
    facts([("file", seen["file"]), ("state", _MEANINGS[seen["state"]]), ("sha256", seen["digest"])])
    _tell(seen, say)
    if seen["state"] != "trusted":
        say("trust it: agentd project trust")
    return EXIT_OK


def trust(values: Values) -> int:
    """Show what the file would do, and trust it when that is wanted."""
    seen = ask("projects.get", _where(values))
    if not values["json"]:
        say(seen["file"])
    _tell(seen, note if values["json"] else say)
    tell_notices(seen)
    if not values["yes"] and not _wanted(seen["file"]):
        note("agentd: nothing was trusted")
        return EXIT_FAILED
    answer = ask("projects.trust", {**_where(values), "digest": seen["digest"]})
    if values["json"]:
        emit(answer)
    else:
        say(f"{answer['file']} is trusted until it changes")
    return EXIT_OK


def untrust(values: Values) -> int:
    """Withdraw the trust."""
    answer = ask("projects.untrust", _where(values))
    if values["json"]:
        emit(answer)
    else:
        say(f"{answer['file']} is not trusted; nothing in it is used")
    return EXIT_OK


def up(values: Values) -> int:
    """Set the pools and bring the team up."""
    with connection() as client, watched(starting, quiet=values["json"]):
        answer = client.call("projects.up", _where(values), timeout_s=UP_TIMEOUT_S)
    tell_notices(answer)
    if values["json"]:
        emit(answer)
    else:
        for pool in answer["pools"]:
            say(f"pool {pool['profile']}: {pool['size']} to {pool['most']} in {pool['place']}")
        if answer["agents"]:
            print_agents(answer["agents"])
    return report_failed(answer["failed"], "name")


def _where(values: Values) -> dict[str, Any]:
    return {"cwd": os.path.abspath(values["cwd"] or ".")}


def _tell(seen: dict[str, Any], tell: Callable[[str], None]) -> None:
    for line in seen["would"] or ["do nothing: there is nothing in it"]:
        tell(f"  would {line}")


def _wanted(file: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal to ask on; nothing was trusted", hint="read it, then add --yes")
    print(f"trust {file} until it changes? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
