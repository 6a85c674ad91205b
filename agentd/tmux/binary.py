"""The tmux program on this machine: where it is, and whether it is one that we can work with."""

from __future__ import annotations

import re
import shutil
import subprocess

from agentd.errors import VersionMismatch
from agentd.tmux.failures import TmuxUnavailable

OLDEST = (3, 2)  # contract §1; doctor warns below 3.4 (tmux-2.md §4, versions)
_SAYS_TMUX = re.compile(r"tmux (\S+)")
_NUMBERS = re.compile(r"(?:next-)?(\d+)\.(\d+)")  # not those of `openbsd-7.8`, which are of the system
_ANSWER_S = 10.0


def find_binary(name: str) -> str:
    """Return the program's path."""
    found = shutil.which(name)
    if found is None:
        raise TmuxUnavailable(f"no program `{name}` was found", hint="install tmux, or set tmux.binary to its path")
    return found


def check_binary(path: str) -> None:
    """Ask the program what it is; blocks. One that tells no number (`master`) may be any version, so it may work."""
    try:
        done = subprocess.run(
            [path, "-V"], capture_output=True, timeout=_ANSWER_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise TmuxUnavailable(f"`{path} -V` cannot be run: {_why(error)}", hint="set tmux.binary to a tmux") from None
    said = done.stdout.decode("utf-8", "replace").strip()
    found = _SAYS_TMUX.match(said)
    if found is None:
        raise VersionMismatch(f"`{path} -V` says {said[:60]!r}: that is no tmux", hint="set tmux.binary to a tmux")
    check_version(found[1])


def check_version(version: str) -> None:
    """Refuse a tmux that is too old."""
    numbers = _NUMBERS.match(version)
    if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
        raise VersionMismatch(
            f"this is tmux {version} and agentd needs {OLDEST[0]}.{OLDEST[1]} or later",
            hint="install a newer tmux and stop the old server",
        )


def _why(error: OSError | subprocess.TimeoutExpired) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return f"it gave no answer within {_ANSWER_S:g} s"
