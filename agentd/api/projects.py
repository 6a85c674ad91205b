"""Calls about the project file of a directory."""

from __future__ import annotations

from typing import Any

from agentd.agents.project import Project, ProjectPool
from agentd.agents.projects import SEE, Seen, Standing
from agentd.agents.text import sanitise
from agentd.api import pool as pool_calls
from agentd.api import teams as team_calls
from agentd.api.agents import checked_cwd
from agentd.api.parts import Parts
from agentd.api.project_words import would
from agentd.api.views import error_row
from agentd.errors import AgentdError, Denied
from agentd.records import Caller
from agentd.wire import calls


async def get(parts: Parts, _caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Return the project around a directory, whether its file is trusted, and what it would do."""
    return _row(parts, await parts.projects.look(checked_cwd(params.cwd)))


async def trust(parts: Parts, _caller: Caller, params: calls.ProjectTrust) -> dict[str, Any]:
    """Trust a file as it was shown; slots of the pool that were set up otherwise are replaced.

    When it returns, the file's profiles are there.
    """
    seen = await parts.projects.trust(checked_cwd(params.cwd), params.digest)
    if seen.standing is not Standing.TRUSTED:
        parts.crew.outcomes.project_changed(seen.project.file.directory)
        parts.log.info("a project file is trusted", path=seen.project.file.path, digest=params.digest)
        await parts.profile_watch.look_now()
    return {"file": sanitise(seen.project.file.path), "state": Standing.TRUSTED}


async def untrust(parts: Parts, _caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Withdraw the trust in a file."""
    file = await parts.projects.untrust(checked_cwd(params.cwd))
    await parts.profile_watch.look_now()
    parts.crew.outcomes.project_changed(file.rpartition("/")[0])
    return {"file": sanitise(file), "state": Standing.NOT_TRUSTED}


async def up(parts: Parts, caller: Caller, params: calls.OneProject) -> dict[str, Any]:
    """Set the pools of a trusted project and bring its team up; what fails is named and the rest is done."""
    seen = await parts.projects.look(checked_cwd(params.cwd))
    project, file = seen.project, sanitise(seen.project.file.path)
    if seen.standing is not Standing.TRUSTED:
        why = "is not trusted" if seen.standing is Standing.NOT_TRUSTED else "has changed since it was trusted"
        raise Denied(f"{file} {why}; nothing was set or started", hint=SEE)
    if project.profiles:
        await parts.profile_watch.look_now()  # the file may be as it was trusted since this very moment
    failed: list[dict[str, Any]] = []
    notices: list[str] = []
    for pool in project.pools:
        try:
            notices += await _set(parts, caller, pool)
        except AgentdError as error:
            failed.append({"name": f"pool {pool.profile}", **error_row(error)})
    team: dict[str, Any] = {"team": None, "agents": [], "failed": [], "notices": []}
    if project.team is not None:
        read = project.team
        team = await team_calls.bring_up(parts, caller, read.name, read.cwd, read.places, read.agents)
    told = list(dict.fromkeys([*_lost_names(parts, project), *notices, *team["notices"]]))
    return {"file": file, "pools": _pool_rows(project), **team, "failed": failed + team["failed"], "notices": told}


async def _set(parts: Parts, caller: Caller, pool: ProjectPool) -> list[str]:
    """Set a pool; return what is to be told of it."""
    given = calls.PoolSet(
        profile=pool.profile,
        size=pool.size,
        most=pool.most,
        cwd=pool.cwd,
        worktree=pool.worktree,
        recycle=pool.recycle,
    )
    answer = await pool_calls.set_(parts, caller, given)
    return list(answer["notices"])


def _lost_names(parts: Parts, project: Project) -> list[str]:
    """Return a sentence for each profile of the file that is not used because its name is another's."""
    file = sanitise(project.file.path)
    names = [profile.name for profile in project.profiles]
    return [
        f"{file}: its profile {name} is not used, because {why}"
        for name in names
        if (why := parts.profiles.lost_to(name, file))
    ]


def _row(parts: Parts, seen: Seen) -> dict[str, Any]:
    project, setup = seen.project, seen.project.setup
    return {
        "file": sanitise(project.file.path),
        "state": seen.standing,
        "digest": project.file.digest,
        "setup": {"command": setup.words, "timeout_s": setup.timeout_s, "once": setup.once} if setup else None,
        "profiles": [
            {"name": profile.name, "command": [profile.command, *profile.args], "env": profile.env}
            for profile in project.profiles
        ],
        "pools": _pool_rows(project),
        "team": project.team.name if project.team else None,
        "would": would(project),
        "notices": _lost_names(parts, project),
    }


def _pool_rows(project: Project) -> list[dict[str, Any]]:
    return [
        {
            "profile": pool.profile,
            "place": sanitise(pool.cwd),
            "worktree": pool.worktree,
            "size": pool.size,
            "most": pool.size if pool.most is None else pool.most,
            "recycle": pool.recycle,
        }
        for pool in project.pools
    ]
