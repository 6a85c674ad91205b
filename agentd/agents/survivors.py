"""Programs that outlived their tmux server: found by the instance in their environment, and ended."""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Collection
from pathlib import Path
from typing import Final

from agentd.agents.booted import clock_s
from agentd.errors import NotFound
from agentd.tmux.processes import start_of

TICK_S: Final = 0.05  # the system tells starts in hundredths of a second


def end_all(instance: str, homes: Collection[str]) -> list[int]:
    """Kill every program that carries this instance's id and one of these agents' homes; return their pids.

    Reads /proc, so it finds nothing where there is none (macOS); the daemon itself never carries the variables.
    """
    ended = []
    for pid in _marked(instance, homes):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
            ended.append(pid)
    return ended


def begun_since(instance: str, home: str, pid: int, since_s: float) -> list[int]:
    """Return the programs that were started in an agent's name since a time by `clock_s`, less the one in its pane.

    Raises NotFound where no /proc tells.
    """
    if not Path("/proc").is_dir():
        raise NotFound("this system does not tell which programs an agent has started", hint="stop it")
    young_s = clock_s() - since_s + TICK_S
    return [other for other in _marked(instance, [home]) if other != pid and _age_s(other) < young_s]


def _marked(instance: str, homes: Collection[str]) -> list[int]:
    mark = f"AGENTD_INSTANCE={instance}".encode()
    theirs = {f"AGENTD_AGENT_ID={home}".encode() for home in homes}
    found = [(pid, _environment(pid)) for pid in _pids() if pid != os.getpid()]
    return [pid for pid, environment in found if mark in environment and not theirs.isdisjoint(environment)]


def _age_s(pid: int) -> float:
    started = start_of(pid).started
    return clock_s() - int(started) / os.sysconf("SC_CLK_TCK") if started else math.inf


def _pids() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:  # it ended meanwhile, or belongs to somebody else
        return []
