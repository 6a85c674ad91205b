"""Programs behind the shim: how they are started, and who really is in the pane."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SHIM: Final = str(Path(__file__).with_name("shim.py"))


def shimmed(argv: Sequence[str]) -> list[str]:
    """Return the command that runs a program behind the shim."""
    return [sys.executable, "-I", "-S", SHIM, *argv]


def program_behind(pid: int) -> int:
    """Return the pid of the program when this one is the shim before it, else the pid itself."""
    if _words(pid)[3:4] != [SHIM.encode()]:
        return pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return pid
    return int(children[0]) if children else pid


def foreground_command(pid: int) -> str:
    """Return the name of the program in the foreground behind the shim; empty when nothing tells."""
    try:
        stat = Path(f"/proc/{program_behind(pid)}/stat").read_text(errors="replace")
    except OSError:
        return ""
    group = int(stat.rpartition(")")[2].split()[5])
    words = _words(group)
    return os.path.basename(words[0]).decode(errors="replace").removeprefix("-") if words else ""  # noqa: PTH119  bytes


def _words(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    except OSError:
        return []
