"""What a project asks for in its file: a setup command for worktrees, profiles, places of the pool, a team."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from agentd.agents.names import valid_name
from agentd.agents.profile import Profile, make_profile
from agentd.agents.project_file import ProjectFile
from agentd.agents.teams import Place, read_team
from agentd.agents.toml_tables import tables_of
from agentd.errors import InvalidValue

SHELL: Final = ("/bin/sh", "-c")
MAX_DOTS: Final = 100  # in one line: the time that a key takes to be read grows with the square of its parts
MAX_SETUP_S: Final = 3600.0
MAX_SLOTS: Final = 1000
_HEADERS: Final = {
    "worktree": "[worktree]",
    "profiles": "[profiles.NAME]",
    "pool": "[[pool]]",
    "team": "[team]",
    "agents": "[[agents]]",
}


class WorktreeTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The [worktree] table."""

    setup: str | list[str] | None = None
    setup_timeout_s: Annotated[float, Meta(ge=0.1, le=MAX_SETUP_S)] = 600.0
    setup_once: bool = False


class PoolTable(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One [[pool]] table."""

    profile: Annotated[str, Meta(min_length=1, max_length=48)]
    size: Annotated[int, Meta(ge=0, le=MAX_SLOTS)]
    most: Annotated[int, Meta(ge=0, le=MAX_SLOTS)] | None = None
    worktree: bool = False
    recycle: bool = False
    cwd: str = "."


@dataclass(frozen=True, slots=True)
class Setup:
    """The command that makes a fresh worktree ready; `once`: not again in one that is set to a newer commit."""

    words: tuple[str, ...]
    timeout_s: float
    once: bool

    @property
    def shown(self) -> str:
        """Return the command as a person reads it before trusting it: a line for sh as it is, words with quotes."""
        if self.words[:2] == SHELL:
            return one_line(self.words[2])
        return " ".join(one_line(repr(word)) for word in self.words)


@dataclass(frozen=True, slots=True)
class ProjectPool:
    """One place in which agents are kept booted."""

    profile: str
    cwd: str
    size: int
    most: int | None
    worktree: bool
    recycle: bool = False


@dataclass(frozen=True, slots=True)
class ProjectTeam:
    """The team, as read; `agents` as they stand in the file."""

    name: str
    cwd: str
    places: Sequence[Place]
    agents: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Project:
    """What one content of a project's file says."""

    file: ProjectFile
    setup: Setup | None
    profiles: Sequence[Profile]
    pools: Sequence[ProjectPool]
    team: ProjectTeam | None


def parse(file: ProjectFile) -> Project:
    """Return what a file says; raises InvalidValue naming the file, the table and the key that is wrong."""
    try:
        text = _text(file.content)
        tables, top = _tables(text), file.directory
        return Project(file, _setup(tables), _profiles(tables, text), _pools(tables, top), _team(tables, top))
    except InvalidValue as error:
        raise InvalidValue(f"{file.path}: {error.message}", hint="correct it; nothing in it is used") from None


def one_line(text: str) -> str:
    """Return a text with everything that could hide or move a part of it spelled out."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _text(content: bytes) -> str:
    if any(line.count(b".") > MAX_DOTS for line in content.splitlines()):
        raise InvalidValue(f"a line has more than {MAX_DOTS} dots")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"it is not TOML: {error}") from None


def _tables(text: str) -> dict[str, Any]:
    try:
        tables = tables_of(text)
    except ValueError as error:
        raise InvalidValue(f"it is not TOML: {error}") from None
    unknown = sorted(tables.keys() - _HEADERS.keys())
    if unknown:
        raise InvalidValue(f"`{unknown[0]}` is unknown; it has {', '.join(_HEADERS.values())}")
    for name, table in tables.items():
        header = _HEADERS[name]
        if not header.startswith("[["):
            _check_table(name, table, header)
        elif not isinstance(table, list) or not all(isinstance(row, dict) for row in table):
            raise InvalidValue(f"`{name}` is no list of tables; write {header}")
    return tables


def _check_table(name: str, table: object, header: str) -> None:
    if not isinstance(table, dict):
        raise InvalidValue(f"`{name}` is no table; write {header}")


def _setup(tables: Mapping[str, Any]) -> Setup | None:
    table = _converted(tables.get("worktree", {}), WorktreeTable, "[worktree]")
    if table.setup is None:
        return None
    words = (*SHELL, table.setup) if isinstance(table.setup, str) else tuple(table.setup)
    if not words or not words[0] or not words[-1].strip() or any("\0" in word for word in words):
        raise InvalidValue("[worktree]: `setup` is empty or has a NUL character")
    return Setup(words, table.setup_timeout_s, table.setup_once)


def _profiles(tables: Mapping[str, Any], text: str) -> list[Profile]:
    return [_profile(name, table, text) for name, table in tables.get("profiles", {}).items()]


def _profile(name: str, table: Any, text: str) -> Profile:
    try:
        where = f"[profiles.{valid_name(name)}]"
    except InvalidValue as error:
        raise InvalidValue(f"[profiles]: {error.message}") from None
    _check_table(f"profiles.{name}", table, where)
    return make_profile(name, table, where, text, f"profiles.{name}.")


def _pools(tables: Mapping[str, Any], directory: str) -> list[ProjectPool]:
    found: dict[tuple[str, str, bool], ProjectPool] = {}
    for number, row in enumerate(tables.get("pool", ()), 1):
        where = f"[[pool]] number {number}"
        table = _converted(row, PoolTable, where)
        if table.most is not None and table.most < table.size:
            raise InvalidValue(f"{where}: `most` is {table.most} and `size` is {table.size}")
        cwd = _below(directory, table.cwd, where)
        if (table.profile, cwd, table.worktree) in found:
            raise InvalidValue(f"{where} is for the same place as one before")
        pool = ProjectPool(table.profile, cwd, table.size, table.most, table.worktree, table.recycle)
        found[table.profile, cwd, table.worktree] = pool
    return list(found.values())


def _team(tables: Mapping[str, Any], directory: str) -> ProjectTeam | None:
    head, agents = tables.get("team"), tables.get("agents")
    if head is None and agents is None:
        return None
    if head is None or not agents:
        raise InvalidValue("[team] and [[agents]] go together")
    name, cwd, team = read_team(head, agents, directory)
    for number, place in enumerate((cwd, *(place.cwd for place in team))):
        _below(directory, place, f"[[agents]] `{team[number - 1].name}`" if number else "[team]")
    return ProjectTeam(name, cwd, team, agents)


def _below(directory: str, given: str, where: str) -> str:
    """Return a directory of the project, with every link followed."""
    if "\0" in given:
        raise InvalidValue(f"{where}: `cwd` has a NUL in it")
    place = Path(os.path.realpath(Path(directory, given)))
    if not place.is_relative_to(directory):
        raise InvalidValue(f"{where}: `cwd` is {place}, which is not below {directory}")
    return str(place)


def _converted(table: object, kind: type[Any], where: str) -> Any:
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise InvalidValue(f"{where}: {error}") from None
