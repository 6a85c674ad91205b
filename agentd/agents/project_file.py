"""The file `agentd.toml` of a project: where it is found, and its bytes, read once."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agentd.errors import InvalidValue

NAME: Final = "agentd.toml"
MAX_BYTES: Final = 262_144


@dataclass(frozen=True, slots=True)
class ProjectFile:
    """The bytes that stood in a project's file: what is hashed is what is read."""

    path: str
    content: bytes

    @property
    def directory(self) -> str:
        """Return the project's directory."""
        return str(Path(self.path).parent)

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the whole content."""
        return hashlib.sha256(self.content).hexdigest()


def places(start: str, home: str) -> list[str]:
    """Return where the file of a directory's project may be, the nearest first: below the user's home and /."""
    here = Path(os.path.realpath(start))
    found: list[str] = []
    for directory in (here, *here.parents):
        if directory in (Path(os.path.realpath(home)), Path("/")):
            break
        found.append(str(directory / NAME))
    return found


def find(start: str, home: str) -> str | None:
    """Return the path of the nearest file, with a real directory; None when there is none."""
    return next((path for path in places(start, home) if os.path.lexists(path)), None)


def read(path: str) -> ProjectFile:
    """Read a file that was found; raises InvalidValue when it may not be one, or cannot be read."""
    real = Path(os.path.realpath(path))
    if not real.is_relative_to(Path(path).parent):
        raise _refused(path, "is a link that leads out of its directory")
    try:
        # Without waiting: a pipe in its place would keep us for ever.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refused(path, "is not a regular file")
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        why = (
            "is not a regular file"
            if error.errno in (errno.EISDIR, errno.ENXIO)
            else f"cannot be read: {error.strerror}"
        )
        raise _refused(path, why) from None
    if len(content) > MAX_BYTES:
        raise _refused(path, f"is larger than {MAX_BYTES} bytes")
    return ProjectFile(path, content)


def _refused(path: str, why: str) -> InvalidValue:
    return InvalidValue(f"{path} {why}; nothing in it is used", hint="put a small file of its own there, or remove it")
