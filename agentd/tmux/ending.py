"""Ending panes, with everything that runs in them."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import anyio

from agentd.records import PaneRef
from agentd.tmux.calls import Calls
from agentd.tmux.connection import HUB
from agentd.tmux.hearing import Hearing
from agentd.tmux.notation import command
from agentd.tmux.processes import Process, ProcessTable, send_signal, wait_until_gone

_KILL_S = 2.0  # for the kernel to end what got SIGKILL


class Ending:
    """Ends panes: hangs up, and kills what is left after a time."""

    def __init__(self, calls: Calls, hearing: Hearing, log: Any) -> None:
        self._calls = calls
        self._hearing = hearing
        self._log = log
        self._table = ProcessTable()

    async def kill(self, ref: PaneRef, timeout_s: float) -> None:
        """End one pane; what is gone already is no error."""
        self._calls.check_server(ref)
        server_pid = int(ref.server.partition(":")[0])
        family = await anyio.to_thread.run_sync(self._table.family, ref.pid, server_pid)
        if timeout_s <= 0:
            _kill_all(family)
        with anyio.CancelScope(shield=True):
            await self._end_session(ref)
        self._hearing.forget(ref.pane_id)
        left = await wait_until_gone(family, timeout_s)
        _kill_all(left)
        left = await wait_until_gone(left, _KILL_S)
        if left:
            self._log.warning("programs outlive SIGKILL", pids=[process.pid for process in left])

    async def _end_session(self, ref: PaneRef) -> None:
        """Take the window out of the hub and end its session.

        Each step is awaited: in one burst they crash every tmux (tmux-2.md §4).
        """
        async with self._calls.mutation(ref) as (channel, _):
            self._hearing.lag.sent()
            hub_link = f"={HUB}:{ref.window_id}"
            await self._calls.ask(channel, command("unlink-window", "-t", hub_link), refused_ok=True)
            await self._calls.ask(channel, command("kill-session", "-t", ref.session_id), missing_ok=True)
            self._hearing.lag.replied()
            # Its session may have been ended by a person: then the hub's was the last link.
            await self._calls.ask(channel, command("kill-window", "-t", ref.window_id), missing_ok=True)


def _kill_all(processes: Sequence[Process]) -> None:
    for process in processes:
        send_signal(process, signal.SIGKILL)
