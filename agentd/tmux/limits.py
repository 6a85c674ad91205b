"""How many panes a tmux server has room for: at the end of its file descriptors it does not refuse, it hangs."""

from __future__ import annotations

import contextlib
import resource
import sys

from agentd.errors import OverLimit

_FILES_EACH = 3  # a pane's terminal, and what a spawn needs for a moment
_FILES_MORE = 256  # for clients, buffers and the server's own


def check_room(server_pid: int, agents: int) -> None:
    """Refuse more agents than the server can hold open files for; raise its soft limit when the hard one allows."""
    need = _FILES_EACH * agents + _FILES_MORE
    soft, hard = _limits(server_pid)
    if hard < need:
        raise OverLimit(
            f"{agents} agents need {need} open files in one tmux server and it may have {hard}; nothing was started",
            hint="raise the hard limit (ulimit -Hn) before the tmux server starts, or ask for fewer agents",
        )
    if soft < need:
        _raise_soft(server_pid, need, hard)


def _limits(pid: int) -> tuple[float, float]:
    found: tuple[int, int]
    if sys.platform == "linux":
        try:
            found = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        except (ProcessLookupError, PermissionError):  # it just ended: that is told by the next command
            return float("inf"), float("inf")
    else:
        found = resource.getrlimit(resource.RLIMIT_NOFILE)  # which the server has from us
    soft, hard = (float("inf") if each == resource.RLIM_INFINITY else each for each in found)
    return soft, hard


def _raise_soft(pid: int, soft: int, hard: float) -> None:
    if sys.platform == "linux":
        whole = resource.RLIM_INFINITY if hard == float("inf") else int(hard)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, whole))
