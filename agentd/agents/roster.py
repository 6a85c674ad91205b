"""Who is alive, who is just being started or stopped, and the tasks that see to them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus

from agentd.agents.early import Early
from agentd.agents.live import LiveAgent
from agentd.logs import Log
from agentd.records import PaneRef
from agentd.tmux.tmux import Output


class Roster:
    """The live agents, by id and by pane; a pane is named by its server, too, because ids repeat on another."""

    def __init__(self, log: Log) -> None:
        self.live: dict[str, LiveAgent] = {}
        self.starting: set[str] = set()
        self.stopping: set[str] = set()
        self.renewed: dict[str, PaneRef] = {}  # slots whose programs are to forget whom they served; nobody watches
        self.claimed: set[str] = set()  # slots of the pool that are about to be somebody's
        self._by_pane: dict[tuple[str, str], LiveAgent] = {}
        self._log = log
        self._early = Early()
        self._tasks: TaskGroup | None = None
        self.on_gone: list[Callable[[str], None]] = []

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the agents' tasks until cancelled."""
        async with anyio.create_task_group() as self._tasks:
            task_status.started()
            await anyio.sleep_forever()

    def start(self, function: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Run something beside the callers; what goes wrong in it is logged."""
        if self._tasks is not None:
            self._tasks.start_soon(self._guarded, function, args)

    async def _guarded(self, function: Callable[..., Awaitable[None]], args: Sequence[Any]) -> None:
        try:
            await function(*args)
        except Exception:  # noqa: BLE001  one agent's or one write's trouble must not end the daemon
            self._log.error("a task of the crew failed", task=repr(function), exc_info=True)

    # -- who is there

    def known(self, agent_id: str) -> bool:
        """Tell whether an agent is alive or just being started."""
        return agent_id in self.live or agent_id in self.starting

    def at(self, server: str, pane_id: str) -> LiveAgent | None:
        """Return who lives in a pane."""
        return self._by_pane.get((server, pane_id))

    def on_server(self, server: str) -> set[str]:
        """Return who lives on a tmux server."""
        return {agent_id for agent_id, live in self.live.items() if live.terminal.ref.server == server}

    def add(self, live: LiveAgent) -> None:
        """Take in an agent that runs."""
        self.live[live.id] = live
        place = live.terminal.ref.server, live.terminal.ref.pane_id
        self._by_pane[place] = live
        for output in self._early.take(place):
            live.screen_changed(output)

    def heard(self, output: Output) -> None:
        """Hand output to whoever lives in its pane; a program prints before tmux has told us where it lives."""
        if live := self.at(output.server, output.pane_id):
            live.screen_changed(output)
        elif self.starting and not self._is_renewed(output):
            self._early.keep(output)

    def _is_renewed(self, output: Output) -> bool:
        return any((ref.server, ref.pane_id) == (output.server, output.pane_id) for ref in self.renewed.values())

    def pane_pids(self) -> dict[int, str]:
        """Return the pid of each program that runs, and whose it is; a pid is one machine's, not one server's."""
        pids = {live.terminal.ref.pid: agent_id for agent_id, live in self.live.items()}
        return {**pids, **{ref.pid: agent_id for agent_id, ref in self.renewed.items()}} if self.renewed else pids

    def remove(self, agent_id: str) -> None:
        """Take out an agent that ended, and let its task know."""
        live = self.live.pop(agent_id)
        self._by_pane.pop((live.terminal.ref.server, live.terminal.ref.pane_id), None)
        live.died()
        live.recording.close()
        for tell in self.on_gone:
            tell(agent_id)

    @contextmanager
    def being_started(self, ids: Collection[str]) -> Iterator[None]:
        """Mark agents as being started."""
        self.starting |= set(ids)
        try:
            yield
        finally:
            self.starting -= set(ids)
            if not self.starting:
                self._early.clear()

    @contextmanager
    def being_stopped(self, ids: Collection[str]) -> Iterator[None]:
        """Mark agents whose end is told by whoever ends them, not by their own tasks."""
        self.stopping |= set(ids)
        try:
            yield
        finally:
            self.stopping -= set(ids)
