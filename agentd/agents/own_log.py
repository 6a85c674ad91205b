"""The file in which an agent's program keeps its session itself, read without trusting who named it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from agentd.errors import Denied, InvalidValue, NotFound

HINT = "the program named it itself"


class Part(NamedTuple):
    """A part of a file."""

    data: bytes
    size_bytes: int


def read_part(path: str, offset: int, most_bytes: int) -> Part:
    """Return a part of a regular file of this user; raises NotFound, Denied or InvalidValue for anything else.

    The program that named the file may be hostile: no link is followed at its end, and nothing is opened that could
    make us wait.
    """
    if not Path(path).is_absolute() or "\0" in path:
        raise InvalidValue("the file in which it keeps its session has no absolute path", hint=HINT)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"{path} is not there (any more)", hint=HINT) from None
    except OSError as error:
        why = "it is a symlink" if Path(path).is_symlink() else error.strerror
        raise Denied(f"{path} cannot be read: {why}", hint=HINT) from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise Denied(f"{path} is not a regular file", hint=HINT)
        if info.st_uid != os.getuid():
            raise Denied(f"{path} belongs to uid {info.st_uid}, not to you", hint=HINT)
        return Part(os.pread(descriptor, most_bytes, offset), info.st_size)
    finally:
        os.close(descriptor)
