"""Which control clients at our server belong to a daemon that is dead; those of a living one are never ours to end."""

from __future__ import annotations

import os
from pathlib import Path

from agentd.tmux.connection import OWNER
from agentd.tmux.processes import Process, is_alive, parent_of

_INIT = 1


def is_orphan(pid: int) -> bool:
    """Tell whether nobody uses this control client of our hub any more.

    Ours carry their owner's name in the environment. One without it is somebody else's tool: as long as it has a parent
    it is left alone. Where there is no /proc neither can be seen, and one instance has one daemon: us.
    """
    if not Path("/proc").is_dir():
        return True
    owner = _owner(pid)
    if owner is not None:
        return owner.pid == os.getpid() or not is_alive(owner)
    return parent_of(pid) in (_INIT, os.getpid(), None)


def _owner(pid: int) -> Process | None:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended, or is not ours to look at
        return None
    for word in words:
        name, _, value = word.partition(b"=")
        if name == OWNER.encode():
            owner, _, started = value.decode("ascii", "replace").partition(":")
            return Process(int(owner), started) if owner.isdigit() else None
    return None
