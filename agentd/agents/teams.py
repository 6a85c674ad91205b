"""Teams: a named set of agents, brought up as a whole."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from agentd.agents.directory import Directory
from agentd.agents.names import valid_name
from agentd.agents.profile import EnvName
from agentd.agents.registry import Registry, Team
from agentd.errors import InvalidValue, NotFound
from agentd.records import Agent, AgentState

MAX_TEAM = 1000


class TeamHead(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The [team] table of a team file."""

    name: str
    cwd: str = "."


class TeamMember(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One [[agents]] table of a team file."""

    name: str
    profile: str
    role: str = ""
    count: Annotated[int, Meta(ge=1, le=MAX_TEAM)] | None = None
    cwd: str = ""
    prompt: str = ""
    env: dict[EnvName, str] = {}
    trust: bool = False
    worktree: bool | str = False


@dataclass(frozen=True, slots=True)
class Place:
    """One agent that a team file asks for."""

    name: str
    profile: str
    role: str
    cwd: str
    prompt: str
    env: Mapping[str, str]
    trust: bool
    worktree: bool = False
    branch: str | None = None


class Teams:
    """Team files as data, and the teams that are kept."""

    def __init__(self, registry: Registry, directory: Directory, kept: Sequence[Team]) -> None:
        self._registry = registry
        self._directory = directory
        self._teams = {team.name: team for team in kept}

    def __iter__(self) -> Any:
        return iter(self._teams.values())

    def get(self, name: str) -> Team:
        """Return a team; raises NotFound naming those there are."""
        if name not in self._teams:
            known = ", ".join(sorted(self._teams)) or "none"
            raise NotFound(f"no team is named `{name}`", hint=f"teams: {known}")
        return self._teams[name]

    def members(self, name: str) -> list[Agent]:
        """Return the team's agents that have not stopped."""
        return [a for a in self._directory if a.team == name and a.state is not AgentState.STOPPED]

    async def keep(self, name: str, cwd: str, agents: Sequence[Mapping[str, Any]]) -> Team:
        """Write the team down."""
        team = Team(name, cwd, time.time_ns(), tuple(agents))
        self._teams[name] = team
        await self._registry.save_team(team)
        return team

    async def forget(self, name: str) -> None:
        """Remove the team; its agents are somebody else's matter."""
        self._teams.pop(name, None)
        await self._registry.forget_team(name)


def read_team(
    head: Mapping[str, Any], agents: Sequence[Mapping[str, Any]], base_dir: str
) -> tuple[str, str, list[Place]]:
    """Return a team file's name, directory and places; raises InvalidValue naming the table and key that is wrong."""
    team = _converted(head, TeamHead, "[team]")
    valid_name(team.name)
    cwd = _directory(base_dir, team.cwd)
    places: list[Place] = []
    for number, table in enumerate(agents, 1):
        where = f"[[agents]] number {number}"
        places += _places(_converted(table, TeamMember, where), where, cwd)
        if len(places) > MAX_TEAM:
            raise InvalidValue(f"the team has more than {MAX_TEAM} agents", hint="lower a count")
    names = [place.name for place in places]
    twice = {name for name, count in Counter(names).items() if count > 1}
    if twice:
        raise InvalidValue(f"the team names {', '.join(sorted(twice))} twice", hint="give each agent its own name")
    return team.name, cwd, places


def _places(member: TeamMember, where: str, cwd: str) -> list[Place]:
    if isinstance(member.worktree, str) and member.count is not None:
        raise InvalidValue(
            f"{where}: several agents cannot be on one branch", hint="write `worktree = true`", field="worktree"
        )
    names = [member.name] if member.count is None else [f"{member.name}-{n}" for n in range(1, member.count + 1)]
    if member.role:
        valid_name(member.role)
    place = _directory(cwd, member.cwd)
    return [
        Place(
            valid_name(n),
            member.profile,
            member.role,
            place,
            member.prompt,
            member.env,
            member.trust,
            worktree=bool(member.worktree),
            branch=member.worktree if isinstance(member.worktree, str) else None,
        )
        for n in names
    ]


def _directory(base_dir: str, given: str) -> str:
    if "\0" in given:
        raise InvalidValue("`cwd` has a NUL in it", hint="correct the team file; nothing was started")
    return str(Path(base_dir, given).resolve())


def _converted(table: Mapping[str, Any], kind: type[Any], where: str) -> Any:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{where}: {error}", hint="correct the team file; nothing was started") from None
