"""What a project file would do, in words, for whoever is asked to trust it."""

from __future__ import annotations

import json
from typing import Any, Final

from agentd.agents.profile import Profile
from agentd.agents.project import Project, ProjectPool, one_line
from agentd.agents.teams import Place
from agentd.agents.text import sanitise

_PROMPT_CHARS: Final = 200  # of a first message, where it is shown
_SAID: Final = ("args", "env", "doc", "version", "rules")  # with the command, or what is only shown or looked for


def would(project: Project) -> list[str]:
    """Return in words what the file has done, each on one line that hides nothing."""
    said: list[str] = []
    if project.setup is not None:
        when = "in each fresh worktree" + ("" if project.setup.once else ", and again when it is set to a newer commit")
        said.append(f"run {when}, for at most {project.setup.timeout_s:g} s: {project.setup.shown}")
    said += [line for profile in project.profiles for line in _would_have(profile)]
    said += [_would_keep(pool) for pool in project.pools]
    if project.team is not None:
        said += [_would_start(project.team.name, place) for place in project.team.places]
    return said


def _would_have(profile: Profile) -> list[str]:
    """Return a profile's command and all else it sets but rules for its screen; in ASCII, where nothing hides."""
    words = " ".join(ascii(word) for word in (profile.command, *profile.args))
    env = "".join(f", with {name}={value!a}" for name, value in profile.env.items())
    said = [f"have a profile {profile.name}, whose agents run {words}{env}"]
    plain = Profile(name=profile.name, command=profile.command).data()
    for key, value in _set_in(profile.data(), plain).items():
        if key not in _SAID:
            said.append(f"set for the profile {profile.name}: {key} = {json.dumps(value)}")
    return said


def _set_in(values: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Return what is not as it is when nothing is said."""
    changed = {key: value for key, value in values.items() if value != plain.get(key)}
    return {key: _set_in(v, plain[key]) if isinstance(plain.get(key), dict) else v for key, v in changed.items()}


def _would_keep(pool: ProjectPool) -> str:
    most = "" if pool.most is None else f", at most {pool.most},"
    again = ", and take programs of stopped agents back" if pool.recycle else ""
    where = "worktrees from" if pool.worktree else "in"
    return one_line(f"keep {pool.size}{most} of {pool.profile} booted {where} {sanitise(pool.cwd)}{again}")


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
