"""Programs that outlived their tmux server: found by the instance in their environment, and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Collection
from pathlib import Path


def end_all(instance: str, agent_ids: Collection[str]) -> list[int]:
    """Kill every program that carries this instance's id and one of these agents'; return their pids.

    Reads /proc, so it finds nothing where there is none (macOS); the daemon itself never carries the variables.
    """
    mark = f"AGENTD_INSTANCE={instance}".encode()
    theirs = {f"AGENTD_AGENT_ID={agent_id}".encode() for agent_id in agent_ids}
    ended = []
    for pid in _pids():
        environment = _environment(pid)
        if pid != os.getpid() and mark in environment and not theirs.isdisjoint(environment):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


def _pids() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile, or belongs to somebody else
        return []
