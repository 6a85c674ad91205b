"""Directories and files that are the user's alone."""

from __future__ import annotations

import os
import stat

from agentd.errors import InvalidValue


def private_dir(path: str) -> str:
    """Create the directory with mode 0700, or check that it is a real one, ours and private.

    Raises InvalidValue naming what is wrong; nothing is repaired that somebody else may own.
    """
    try:
        _make_private(path)
        info = os.lstat(path)
    except OSError as error:
        raise InvalidValue(f"cannot make the directory {path}: {error.strerror}", hint="check its parent") from None
    problem = _why_not_private(path, info)
    if problem:
        raise InvalidValue(f"{path} {problem}", hint="remove it, or choose another place with AGENTD_DIR")
    return path


def _make_private(path: str) -> None:
    # os.makedirs gives its mode to the last directory only; the others would get what the umask leaves.
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    except FileNotFoundError:
        parent = os.path.dirname(path)
        if not parent or os.path.lexists(parent):
            raise
        _make_private(parent)
        os.mkdir(path, 0o700)


def _why_not_private(path: str, info: os.stat_result) -> str:
    if not stat.S_ISDIR(info.st_mode):
        return "is not a directory (a symlink is not accepted)"
    if info.st_uid != os.getuid():
        return f"belongs to uid {info.st_uid}, not to you"
    if info.st_mode & 0o077:
        return f"has mode {stat.S_IMODE(info.st_mode):04o}, others may enter; it must be 0700"
    parent = os.stat(os.path.dirname(path) or "/")
    if parent.st_mode & 0o002 and not parent.st_mode & stat.S_ISVTX:
        return "lies in a directory that everybody may write to and that has no sticky bit"
    return ""


def open_private(path: str, flags: int) -> int:
    """Open a file of ours without following a symlink, created with mode 0600; returns the descriptor."""
    try:
        return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        why = "it is a symlink" if os.path.islink(path) else error.strerror
        raise InvalidValue(f"cannot open {path}: {why}; it was left alone", hint="move it away and try again") from None
