"""Calls about the git worktrees of agents."""

from __future__ import annotations

from typing import Any

from agentd.api.parts import Parts
from agentd.api.views import error_row
from agentd.errors import AgentdError, Conflict
from agentd.records import Agent, AgentState, Caller
from agentd.wire import calls


async def list_(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List the worktrees of agents, with what is in each."""
    rows = []
    for agent in sorted((agent for agent in parts.directory if agent.repo), key=lambda agent: agent.name):
        row = {"agent": agent.name, "id": agent.id, "state": agent.state, "path": agent.cwd, "repo": agent.repo}
        try:
            found = await parts.lodging.look(agent)
        except AgentdError as error:
            rows.append({**row, "branch": agent.branch, "work": error.message, "own_commits": 0})
            continue
        if found is not None:
            rows.append({**row, "branch": found.branch, "work": found.work, "own_commits": found.own_commits})
    return {"worktrees": rows}


async def clean(parts: Parts, _caller: Caller, params: calls.WorktreesClean) -> dict[str, Any]:
    """Remove the worktrees of agents that have ended, but no work that is in them."""
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for agent in _meant(parts, params):
        try:
            if parts.crew.known(agent.id):
                raise Conflict(
                    f"{agent.name} is {agent.state}; its worktree was kept", hint=f"agentd stop {agent.name}"
                )
            cleaned = await parts.lodging.vacate(agent, force=params.force)
            if not cleaned.removed and cleaned.why:
                raise Conflict(cleaned.why, hint="commit what is in it, or give it up with --force")
            if cleaned.removed:
                done.append({"agent": agent.name, "path": agent.cwd, "kept": cleaned.why})
        except AgentdError as error:
            failed.append({"agent": agent.name, **error_row(error)})
    return {"done": done, "failed": failed}


def _meant(parts: Parts, params: calls.WorktreesClean) -> list[Agent]:
    if params.targets:
        named = {agent.id: agent for target in params.targets for agent in parts.directory.resolve(target)}
        return [agent for agent in named.values() if agent.repo]
    ended = (AgentState.STOPPED, AgentState.FAILED)
    return [agent for agent in parts.directory if agent.repo and agent.state in ended]
