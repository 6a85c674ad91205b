"""The projects around directories, and which of their files are trusted: by path and by every byte."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import anyio.to_thread

from agentd.agents.profile import ProjectProfile
from agentd.agents.project import Project, Setup, parse
from agentd.agents.project_file import NAME, ProjectFile, find, places, read
from agentd.agents.registry import Registry
from agentd.agents.text import sanitise
from agentd.errors import Conflict, InvalidValue, NotFound

SEE = "see it and trust it: agentd project trust"


class Standing(StrEnum):
    """Whether anything in a file is used."""

    TRUSTED = "trusted"
    CHANGED = "changed"  # since it was trusted; it is not any more
    NOT_TRUSTED = "not trusted"


@dataclass(frozen=True, slots=True)
class Seen:
    """A project as one look found it."""

    project: Project
    standing: Standing


@dataclass(frozen=True, slots=True)
class Trusted:
    """The files that are trusted, whether they say that still or not, and the profiles of those that do."""

    paths: Sequence[str]
    profiles: Sequence[ProjectProfile]


@dataclass(frozen=True, slots=True)
class Fitting:
    """The setup command that may be run in fresh worktrees; or what is to be told of one that is not."""

    setup: Setup | None = None
    notice: str = ""


UNFITTED: Final = Fitting()


class Projects:
    """Finds files of projects; what was trusted is kept in the registry, never beside the file."""

    def __init__(self, registry: Registry, home: str) -> None:
        self._registry = registry
        self._home = home

    async def look(self, cwd: str) -> Seen:
        """Return the project around a directory; raises NotFound, or InvalidValue for a file that says nothing."""
        file = await self._file(cwd)
        if file is None:
            raise _none(cwd)
        return Seen(await anyio.to_thread.run_sync(parse, file), await self._standing(file))

    async def trust(self, cwd: str, digest: str) -> Seen:
        """Trust the file with the content that was shown; raises Conflict when it has another by now."""
        seen = await self.look(cwd)
        file = seen.project.file
        if file.digest != digest:
            raise Conflict(
                f"{file.path} is not what was shown any more; nothing was trusted", hint="see it again: agentd project"
            )
        await self._registry.trust(file.path, digest)
        return seen

    async def untrust(self, cwd: str) -> str:
        """Withdraw the trust in the nearest file that is there or was trusted; return its path."""
        found = await anyio.to_thread.run_sync(find, cwd, self._home)
        trusted = await self._registry.trusted()
        path = next((path for path in places(cwd, self._home) if path == found or path in trusted), None)
        if path is None:
            raise _none(cwd)
        await self._registry.untrust(path)
        return path

    async def fitting(self, cwd: str) -> Fitting:
        """Return how worktrees that are made from a directory are made ready."""
        try:
            seen = await self.look(cwd)
        except NotFound:
            return UNFITTED
        except InvalidValue as error:
            return Fitting(None, f"{error.message}; {error.hint}")
        setup, path = seen.project.setup, sanitise(seen.project.file.path)
        if setup is None or seen.standing is Standing.TRUSTED:
            return Fitting(setup)
        if seen.standing is Standing.CHANGED:
            return Fitting(
                None, f"{path} has changed since it was trusted, its setup command is not run any more; {SEE}"
            )
        return Fitting(None, f"{path} is not trusted, its setup command is not run; {SEE}")

    async def trusted(self) -> Trusted:
        """Return what is trusted now, the first trusted first; nothing of a file that has changed since."""
        digests = await self._registry.trusted()
        return Trusted(tuple(digests), await anyio.to_thread.run_sync(_profiles, digests))

    async def _file(self, cwd: str) -> ProjectFile | None:
        path = await anyio.to_thread.run_sync(find, cwd, self._home)
        return await anyio.to_thread.run_sync(read, path) if path else None

    async def _standing(self, file: ProjectFile) -> Standing:
        kept = (await self._registry.trusted()).get(file.path)
        if kept is None:
            return Standing.NOT_TRUSTED
        return Standing.TRUSTED if kept == file.digest else Standing.CHANGED


def _profiles(digests: Mapping[str, str]) -> list[ProjectProfile]:
    found: list[ProjectProfile] = []
    for path, digest in digests.items():
        try:
            file = read(path)
            profiles = parse(file).profiles if file.digest == digest else ()
        except InvalidValue:  # `agentd project` says why
            continue
        found += [ProjectProfile(profile, sanitise(path)) for profile in profiles]
    return found


def _none(cwd: str) -> NotFound:
    return NotFound(f"there is no {NAME} in {sanitise(cwd)} or above it", hint="docs/projects.md says what one is for")
