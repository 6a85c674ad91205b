"""What the server tells unasked, made into events; each death is told once."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import anyio

from agentd.errors import AgentdError
from agentd.tmux.calls import Calls
from agentd.tmux.connection import HUB, ControlConnection
from agentd.tmux.events import (
    Activity,
    LayoutChanged,
    Output,
    PaneDied,
    Renamed,
    SessionsChanged,
    TmuxEvent,
    WindowsChanged,
)
from agentd.tmux.links import SNAPSHOT
from agentd.tmux.notation import Notification, output_of
from agentd.tmux.processes import send_signal

END_LOOKS = 25  # at a pane that is dead without a status, until tmux has learned how it ended
END_LOOK_S = 0.02
_DEAF_LOOK_S = 1.0  # between looks while nothing is heard
_DEAD_FORMAT = "#{pane_id}|#{pane_dead_status}#{pane_dead_signal}"


class Lag:
    """How much later than the reply to a command of ours its notification comes."""

    def __init__(self) -> None:
        self._sent = False
        self._replied_s = 0.0
        self.last_ms = 0.0

    def sent(self) -> None:
        """A command that changes the sessions is under way."""
        self._sent, self._replied_s = True, 0.0

    def replied(self) -> None:
        """Its reply is here."""
        self._replied_s = time.monotonic() if self._sent else 0.0

    def heard(self) -> None:
        """A change of the sessions was told."""
        if self._sent:
            self.last_ms = round((time.monotonic() - self._replied_s) * 1000, 3) if self._replied_s else 0.0
        self._sent = False


class Hearing:
    """Turns notifications into events, and looks for deaths when something hints at one."""

    def __init__(self, calls: Calls, log: Any, on_event: Callable[[TmuxEvent], None]) -> None:
        self._calls = calls
        self._log = log
        self._on_event = on_event
        self._death_hint = anyio.Event()
        self._told_dead: set[str] = set()
        self._activity: dict[str, str] = {}
        self._heard: set[str] = set()  # whose output was told since the last snapshot
        self.unread_bytes: dict[str, int] = {}  # typed into a pane since it last printed
        self.started = 0  # panes since the last snapshot
        self.lag = Lag()
        self.count = 0

    @property
    def panes(self) -> int:
        """Return how many panes there are about now."""
        return len(self._activity) + self.started

    def tell(self, event: TmuxEvent) -> None:
        """Hand an event on."""
        try:
            self._on_event(event)
        except Exception:  # noqa: BLE001  whatever a listener does wrong, the connection must go on
            self._log.exception("a listener failed on a tmux event", tmux_event=type(event).__name__)

    def forget(self, pane_id: str) -> None:
        """Drop what is kept of a pane that is gone."""
        self._told_dead.discard(pane_id)
        self._activity.pop(pane_id, None)
        self.unread_bytes.pop(pane_id, None)

    def forget_all(self) -> None:
        """Drop what is kept of a server that is gone."""
        self._told_dead.clear()
        self._activity.clear()
        self.unread_bytes.clear()
        self.started = 0

    def nudge(self) -> None:
        """Have the server reap its children: with utempter it loses the signal of many (tmux-2.md §0.8)."""
        if self._calls.server is not None:
            send_signal(self._calls.server.process, signal.SIGCHLD)

    # -- notifications

    def take(self, notification: Notification) -> None:
        """Take in one notification of the events connection."""
        self.count += 1
        output = output_of(notification)
        if output is not None:
            pane_id, escaped = output
            self.unread_bytes.pop(pane_id, None)
            self._heard.add(pane_id)
            self.tell(Output(pane_id, escaped, self._calls.server_id))
            return
        rest = notification.rest.decode("utf-8", "replace")
        match notification.name:
            case b"subscription-changed":
                self._take_snapshot(rest.partition(" : ")[2])
            case b"pause":
                self._resume(rest)
            case b"sessions-changed":
                self.lag.heard()
                self.tell(SessionsChanged(self._calls.server_id))
            case b"window-add" | b"window-close" | b"unlinked-window-add" | b"unlinked-window-close":
                self.tell(WindowsChanged(self._calls.server_id))
            case b"session-renamed":
                session_id, _, name = rest.partition(" ")
                self.tell(Renamed(session_id, name, self._calls.server_id))

    def _take_snapshot(self, snapshot: str) -> None:
        before, heard = self._activity, self._heard
        self._heard = set()
        self._activity = dict(each.split(" ", 1) for each in snapshot.split(";") if each)
        self.started = 0
        for pane_id in self.unread_bytes.keys() - self._activity.keys():
            del self.unread_bytes[pane_id]
        for pane_id, state in self._activity.items():
            if before.get(pane_id) == state:
                continue
            dead = state.startswith("1")
            if dead or pane_id not in heard:
                self.tell(Activity(pane_id, dead, self._calls.server_id))
            if dead and pane_id not in self._told_dead:
                self._death_hint.set()

    def _resume(self, pane_id: str) -> None:
        """Go on with a pane whose output came faster than we read it; what was skipped is not sent again."""
        events = self._events()
        if events is not None:
            events.post("refresh-client", "-A", f"{pane_id}:continue")
        self.tell(Output(pane_id, b"", self._calls.server_id))

    def _events(self) -> ControlConnection | None:
        return self._calls.pool.links.events() if self._calls.pool else None

    # -- while nothing is heard

    async def look_when_deaf(self) -> None:
        """Ask once a second what the events connection would have told, while there is none."""
        while True:
            await anyio.sleep(_DEAF_LOOK_S)
            if self._calls.stopped or self._calls.pool is None or self._calls.pool.links.hearing:
                continue
            try:
                channel = self._calls.channel(bulk=True)
                shown = await channel.run(
                    "display-message", "-p", "-t", f"={HUB}:", SNAPSHOT, timeout_s=self._calls.timeout_s
                )
            except AgentdError as error:
                self._log.warning("could not see which panes live", error=error.message)
            else:
                self._take_snapshot("".join(shown))

    # -- deaths

    def take_hook(self) -> None:
        """Have the panes looked at: one may have died, or a window was split."""
        self._death_hint.set()
        self.tell(LayoutChanged(self._calls.server_id))

    async def watch_deaths(self) -> None:
        """Tell each death once, with how it came about."""
        while True:
            await self._death_hint.wait()
            self._death_hint = anyio.Event()
            try:
                await self._tell_deaths()
            except AgentdError as error:
                self._log.warning("could not see which panes died", error=error.message)

    async def _tell_deaths(self) -> None:
        for attempt in range(END_LOOKS):
            rows, server = await self._calls.rows("list-panes", "-a", "-f", "#{pane_dead}", "-F", _DEAD_FORMAT)
            waiting = False
            self._told_dead &= {row.partition("|")[0] for row in rows}
            for row in rows:
                pane_id, how = row.split("|", 1)
                if pane_id in self._told_dead:
                    continue
                if how or attempt == END_LOOKS - 1:
                    self._told_dead.add(pane_id)
                    self.tell(PaneDied(pane_id, server))
                else:
                    waiting = True
            if not waiting:
                return
            self.nudge()
            await anyio.sleep(END_LOOK_S)
