"""Calls about the project file of a directory."""

from __future__ import annotations

from typing import Any

from agentd.agents.project import Project, ProjectPool, one_line
from agentd.agents.projects import SEE, Seen, Standing
from agentd.agents.teams import Place
from agentd.agents.text import sanitise
from agentd.api import pool as pool_calls
from agentd.api import teams as team_calls
from agentd.api.agents import checked_cwd
from agentd.api.parts import Parts
from agentd.api.views import error_row
from agentd.errors import AgentdError, Denied
from agentd.records import Caller
from agentd.wire import calls

_PROMPT_CHARS = 200  # of a first message, where it is shown


async def get(parts: Parts, _caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Return the project around a directory, whether its file is trusted, and what it would do."""
    return _row(await parts.projects.look(checked_cwd(params.cwd)))


async def trust(parts: Parts, _caller: Caller, params: calls.ProjectTrust) -> dict[str, Any]:
    """Trust a file as it was shown; slots of the pool that were set up otherwise are replaced."""
    seen = await parts.projects.trust(checked_cwd(params.cwd), params.digest)
    if seen.standing is not Standing.TRUSTED:
        parts.pool.project_changed(seen.project.file.directory)
        parts.log.info("a project file is trusted", path=seen.project.file.path, digest=params.digest)
    return {"file": sanitise(seen.project.file.path), "state": Standing.TRUSTED}


async def untrust(parts: Parts, _caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Withdraw the trust in a file."""
    file = await parts.projects.untrust(checked_cwd(params.cwd))
    parts.pool.project_changed(file.rpartition("/")[0])
    return {"file": sanitise(file), "state": Standing.NOT_TRUSTED}


async def up(parts: Parts, caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Set the pools of a trusted project and bring its team up; what fails is named and the rest is done."""
    seen = await parts.projects.look(checked_cwd(params.cwd))
    project, file = seen.project, sanitise(seen.project.file.path)
    if seen.standing is not Standing.TRUSTED:
        why = "is not trusted" if seen.standing is Standing.NOT_TRUSTED else "has changed since it was trusted"
        raise Denied(f"{file} {why}; nothing was set or started", hint=SEE)
    failed: list[dict[str, Any]] = []
    for pool in project.pools:
        try:
            await _set(parts, caller, pool)
        except AgentdError as error:
            failed.append({"name": f"pool {pool.profile}", **error_row(error)})
    team: dict[str, Any] = {"team": None, "agents": [], "failed": [], "notices": []}
    if project.team is not None:
        read = project.team
        team = await team_calls.bring_up(parts, caller, read.name, read.cwd, read.places, read.agents)
    return {"file": file, "pools": _pool_rows(project), **team, "failed": failed + team["failed"]}


async def _set(parts: Parts, caller: Caller, pool: ProjectPool) -> None:
    given = calls.PoolSet(profile=pool.profile, size=pool.size, most=pool.most, cwd=pool.cwd, worktree=pool.worktree)
    await pool_calls.set_(parts, caller, given)


def _row(seen: Seen) -> dict[str, Any]:
    project, setup = seen.project, seen.project.setup
    return {
        "file": sanitise(project.file.path),
        "state": seen.standing,
        "digest": project.file.digest,
        "setup": {"command": setup.words, "timeout_s": setup.timeout_s, "once": setup.once} if setup else None,
        "pools": _pool_rows(project),
        "team": project.team.name if project.team else None,
        "would": _would(project),
    }


def _pool_rows(project: Project) -> list[dict[str, Any]]:
    return [
        {
            "profile": pool.profile,
            "place": sanitise(pool.cwd),
            "worktree": pool.worktree,
            "size": pool.size,
            "most": pool.size if pool.most is None else pool.most,
        }
        for pool in project.pools
    ]


def _would(project: Project) -> list[str]:
    """Return in words what the file has done, each on one line that hides nothing."""
    said: list[str] = []
    if project.setup is not None:
        when = "in each fresh worktree" + ("" if project.setup.once else ", and again when it is set to a newer commit")
        said.append(f"run {when}, for at most {project.setup.timeout_s:g} s: {project.setup.shown}")
    said += [_would_keep(pool) for pool in project.pools]
    if project.team is not None:
        said += [_would_start(project.team.name, place) for place in project.team.places]
    return said


def _would_keep(pool: ProjectPool) -> str:
    most = "" if pool.most is None else f", at most {pool.most},"
    where = "worktrees from" if pool.worktree else "in"
    return one_line(f"keep {pool.size}{most} of {pool.profile} booted {where} {sanitise(pool.cwd)}")


def _would_start(team: str, place: Place) -> str:
    words = [f"start {place.name} of {place.profile} in {sanitise(place.cwd)} for the team {team}"]
    if place.worktree:
        words.append(f"in a worktree on {place.branch or 'a branch of its own'}")
    if place.trust:
        words.append("told that the directory is trusted")
    words += [f"with {name}={value}" for name, value in place.env.items()]
    if place.prompt:
        cut = "…" if len(place.prompt) > _PROMPT_CHARS else ""
        words.append(f"its first message: {place.prompt[:_PROMPT_CHARS]}{cut}")
    return one_line(", ".join(words))
