"""The files that profiles come from: those we ship and the user's, read so that a bad one harms no other."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from agentd.agents.names import valid_name
from agentd.errors import InvalidValue

BUILT_IN = "built-in"
MAX_BYTES = 1_000_000
AGAIN = "correct the file; it is read again by itself"

Stamp = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """One file, or why it cannot be read."""

    name: str
    origin: str  # its path, or `built-in`
    text: str = ""
    error: InvalidValue | None = None


def built_in() -> Iterator[ProfileFile]:
    """Yield the profiles we ship."""
    for entry in resources.files("agentd.agents").joinpath("profiles").iterdir():
        if entry.name.endswith(".toml"):
            yield ProfileFile(entry.name.removesuffix(".toml"), BUILT_IN, entry.read_text(encoding="utf-8"))


def users(directory: str) -> Iterator[ProfileFile]:
    """Yield the user's files, in order of their names."""
    for path in sorted(_paths(directory)):
        name = Path(path).stem
        try:
            yield ProfileFile(valid_name(name), path, _text(path))
        except InvalidValue as error:
            yield ProfileFile(name, path, error=InvalidValue(f"{path}: {error.message}", hint=error.hint))
        except (OSError, UnicodeDecodeError) as error:
            why = InvalidValue(f"cannot read {path}: {error}", hint="check its permissions and encoding")
            yield ProfileFile(name, path, error=why)


def stamp(directory: str, more: Iterable[str] = ()) -> Stamp:
    """Return what tells whether a file of a directory, or one more, was changed, by path."""
    return {path: _stamp_of(path) for path in (*_paths(directory), *more)}


def _paths(directory: str) -> list[str]:
    """Return the files of a directory; none when there is no such directory."""
    try:
        return [entry.path for entry in os.scandir(directory) if entry.name.endswith(".toml")]
    except OSError:
        return []


def _stamp_of(path: str) -> tuple[int, ...]:
    try:
        info = Path(path).stat()
    except OSError:  # it went meanwhile, or is a link to nothing
        return ()
    return (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino)


def _text(path: str) -> str:
    info = Path(path).stat()
    if not stat.S_ISREG(info.st_mode):  # reading a pipe would wait for ever
        raise InvalidValue("it is not a file", hint="remove it")
    if info.st_size > MAX_BYTES:
        raise InvalidValue(f"it is {info.st_size} bytes long; {MAX_BYTES} are allowed", hint="it is no profile")
    return Path(path).read_text(encoding="utf-8")
