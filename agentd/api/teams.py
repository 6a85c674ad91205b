"""Calls about teams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentd.agents.line import Party
from agentd.agents.lodging import NO_WISH
from agentd.agents.names import valid_name
from agentd.agents.registry import Team
from agentd.agents.starts import SpawnRequest
from agentd.agents.teams import Place, read_team
from agentd.api import agents as agent_calls
from agentd.api.parts import Parts
from agentd.api.views import agent_row, error_row
from agentd.errors import AgentdError, AlreadyExists
from agentd.records import Agent, Caller
from agentd.wire import calls


async def up(parts: Parts, caller: Caller, params: calls.TeamUp) -> dict[str, Any]:
    """Bring a team up: what runs stays, what is missing is started, a failed one is named and the rest stay."""
    base = agent_calls.checked_cwd(params.cwd)
    return await bring_up(parts, caller, *read_team(params.team, params.agents, base), params.agents)


async def bring_up(
    parts: Parts, caller: Caller, name: str, cwd: str, places: Sequence[Place], tables: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Bring up a team that was read."""
    await parts.teams.keep(name, cwd, tables)
    members = {agent.name: agent for agent in parts.teams.members(name)}
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    ended: list[Agent] = []
    missing: list[tuple[SpawnRequest, str]] = []
    taken = parts.directory.taken_names()
    for place in places:
        member = members.get(place.name) or members.get(f"{name}-{place.name}")
        try:
            if member is None:
                missing.append((await _request(parts, name, place, taken), place.prompt))
            elif parts.crew.known(member.id):
                rows.append({**agent_row(parts, member), "started": False})
            else:
                ended.append(member)
        except AgentdError as error:
            failed.append({"name": place.name, **error_row(error)})
    notices = agent_calls.worktree_notices(request.wish for request, _ in missing)
    names = [agent.name for agent in ended] + [request.name for request, _ in missing]
    with parts.crew.parties.open(names, caller.pid) as party:
        again, lost = await _start_again(parts, party, ended)
        started, refused = await _start(parts, caller, party, missing)
    rows += [{**agent_row(parts, agent), "started": True} for agent in again + started]
    return {"team": name, "agents": rows, "failed": failed + lost + refused, "notices": notices}


async def _request(parts: Parts, team: str, place: Place, taken: set[str]) -> SpawnRequest:
    """Return what to start; the name is qualified by the team's only where somebody else holds it."""
    profile = parts.profiles.get(place.profile)
    cwd = agent_calls.checked_cwd(place.cwd)
    agent_calls.check_prompt(parts, place.prompt)
    name = valid_name(f"{team}-{place.name}") if place.name in taken else place.name
    if name in taken:
        raise AlreadyExists(f"both `{place.name}` and `{name}` are taken", hint="give the agent another name")
    taken.add(name)
    wish = await parts.lodging.wish(cwd, place.branch) if place.worktree else NO_WISH
    return SpawnRequest(profile, name, team, place.role, cwd, place.env, place.trust, wish=wish)


async def _start_again(parts: Parts, party: Party, ended: Sequence[Agent]) -> tuple[list[Agent], list[dict[str, Any]]]:
    started: list[Agent] = []
    failed: list[dict[str, Any]] = []
    for agent in ended:
        try:
            started.append(await parts.crew.respawn(agent, party))
        except AgentdError as error:
            failed.append({"name": agent.name, **error_row(error)})
    return started, failed


async def _start(
    parts: Parts, caller: Caller, party: Party, missing: list[tuple[SpawnRequest, str]]
) -> tuple[list[Agent], list[dict[str, Any]]]:
    if not missing:
        return [], []
    greeting = agent_calls.Greeting(parts, caller, {request.name: prompt for request, prompt in missing})
    results = await parts.crew.spawn([request for request, _ in missing], party, greeting.greet)
    parts.queries.changed()
    started = [result for result in results if isinstance(result, Agent)]
    failed = [
        {"name": request.name, **error_row(result)}
        for (request, _), result in zip(missing, results, strict=True)
        if isinstance(result, AgentdError)
    ]
    greeting.check()
    return started, failed


def list_(parts: Parts, _caller: Caller, _params: calls.Nothing) -> dict[str, Any]:
    """List teams."""
    return {"teams": [_row(parts, team) for team in sorted(parts.teams, key=lambda team: team.name)]}


def _row(parts: Parts, team: Team) -> dict[str, Any]:
    members = parts.teams.members(team.name)
    live = sum(1 for agent in members if parts.crew.live(agent.id))
    return {"name": team.name, "agents": len(members), "live": live, "cwd": team.cwd}


def get(parts: Parts, _caller: Caller, params: calls.OneTeam) -> dict[str, Any]:
    """Return one team and its agents."""
    team = parts.teams.get(params.team)
    members = parts.teams.members(team.name)
    return {**_row(parts, team), "agents": [agent_row(parts, agent) for agent in members]}


async def down(parts: Parts, caller: Caller, params: calls.OneTeam) -> dict[str, Any]:
    """Stop a team's agents and forget the team."""
    team = parts.teams.get(params.team)
    members = [agent.id for agent in parts.teams.members(team.name)]
    result: dict[str, Any] = {"stopped": [], "failed": []}
    if members:
        result = await agent_calls.stop(parts, caller, calls.Stop(targets=members))
    if not result["failed"]:
        await parts.teams.forget(team.name)
    return result
