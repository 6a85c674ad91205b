"""`agentd spawn`."""

from __future__ import annotations

import os
import time

from agentd.cli.agents import print_agents
from agentd.cli.onlooker import reaching, starting, watched
from agentd.cli.output import emit, tell_notices
from agentd.cli.session import connection, given, report_failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values
    from agentd.client import Client

WAIT_S = 300.0
SPAWN_TIMEOUT_S = 900.0  # a hundred agents that boot two at a time take some minutes
SETUP_TIMEOUT_S = 4200.0  # a project's setup command may take an hour


def spawn(values: Values) -> int:
    """Start agents, and wait for them when asked to."""
    with connection() as client:
        timeout_s = SETUP_TIMEOUT_S if values["worktree"] else SPAWN_TIMEOUT_S
        with watched(starting, quiet=values["json"]):
            answer = client.call("agents.spawn", _params(values), timeout_s=timeout_s)
        tell_notices(answer)
        if values["wait"]:
            waited_s = WAIT_S if values["timeout"] is None else values["timeout"]
            ids = {agent["id"] for agent in answer["agents"]}
            with watched(reaching(ids, values["wait"]), quiet=values["json"]):
                answer["agents"] = _wait(client, answer["agents"], values["wait"], waited_s)
    if values["json"]:
        emit(answer)
    else:
        print_agents(answer["agents"])
    return report_failed(answer["failed"], "name")


def _params(values: Values) -> dict[str, Any]:
    """Return the call's parameters; without --cwd agents start where the user stands."""
    params = {name: values[name] for name in ("profile", "n", "name", "team", "role", "prompt")}
    params["cwd"] = os.path.abspath(values["cwd"] or ".")
    params["env"] = dict(pair.split("=", 1) for pair in values["env"]) or None
    params["cold"] = values["cold"] or None
    params["worktree"] = bool(values["worktree"]) or None
    params["branch"] = values["worktree"] if isinstance(values["worktree"], str) else None
    params["trust"] = values["trust"] or None
    return given(params)


def _wait(client: Client, agents: list[dict[str, Any]], state: str, timeout_s: float) -> list[dict[str, Any]]:
    deadline_s = time.monotonic() + timeout_s
    ready = []
    for agent in agents:
        left_s = max(0.0, deadline_s - time.monotonic())
        params = {"target": agent["id"], "until": state, "timeout_s": left_s}
        ready.append(client.call("agents.wait", params)["agent"])
    return ready
