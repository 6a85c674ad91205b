"""Starting programs, each in a session of its own: one write and one reply for each, many on their way at once."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import anyio

from agentd.errors import AgentdError, AlreadyExists
from agentd.records import PaneRef
from agentd.tmux.calls import Calls, refusal
from agentd.tmux.connection import HUB
from agentd.tmux.ending import Ending
from agentd.tmux.failures import TmuxRefused
from agentd.tmux.hearing import Hearing
from agentd.tmux.input import check_place, check_session_name, check_words
from agentd.tmux.limits import check_room
from agentd.tmux.looking import Looking
from agentd.tmux.notation import command, line, quote_lines

AT_ONCE = 64  # starts on their way; measured by bench/spawn.py
_NEW_FORMAT = "#{session_id}|#{window_id}|#{pane_id}|#{pane_pid}"

# The directory is an argument of the launcher and entered by it: as `-c` tmux would run any #(command) in its name.
# TMUX would show the agent the way to our server.
_LAUNCHER = 'unset TMUX TMUX_PANE; umask "$1"; cd -- "$2" && shift 2 && exec "$@"'

CHECK_S = 1.0  # a place that was found to be there is not looked at again for so long: many starts are much the same
_MOST_CHECKED = 1024


@dataclass(frozen=True, slots=True)
class SpawnOrder:
    """One program to start."""

    session_name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    cwd: str
    width: int
    height: int
    umask: int = 0o022


class Starting:
    """Starts programs; a start that fails leaves no session behind."""

    def __init__(
        self, calls: Calls, hearing: Hearing, looking: Looking, ending: Ending, log: Any, *, parallel: bool
    ) -> None:
        self._calls = calls
        self._hearing = hearing
        self._looking = looking
        self._ending = ending
        self._log = log
        self._limit = anyio.CapacityLimiter(AT_ONCE)
        self._checked_s: dict[tuple[str, str | None, str], float] = {}
        self._left: set[str] = set()  # names of sessions that a failed start may have left, or may still make
        self._undoing = anyio.Lock()
        self.spawned = 0
        self.failed = 0  # by tmux; what was refused before it was asked does not count
        self.parallel(on=parallel)

    def parallel(self, *, on: bool) -> None:
        """Start many at once, or one after the other."""
        self._limit.total_tokens = AT_ONCE if on else 1

    async def one(self, order: SpawnOrder) -> PaneRef:
        """Start one program."""
        self._check_room(1)
        return await self._start(order)

    async def rename(self, ref: PaneRef, session_name: str) -> None:
        """Give a session another name; one that is gone is no error."""
        check_session_name(session_name, HUB)
        rename = command("rename-session", "-t", ref.session_id, session_name)
        async with self._calls.mutation(ref) as (channel, _):
            await self._calls.ask(channel, rename, missing_ok=True)

    async def many(self, orders: Sequence[SpawnOrder]) -> list[PaneRef | AgentdError]:
        """Start programs; the results are in the order of the orders."""
        self._check_room(len(orders))
        results: dict[int, PaneRef | AgentdError] = {}
        waiting = iter(enumerate(orders))

        async def work() -> None:
            for index, order in waiting:
                try:
                    results[index] = await self._start(order)
                except AgentdError as error:
                    results[index] = error

        async with anyio.create_task_group() as group:
            for _ in range(min(AT_ONCE, len(orders))):
                group.start_soon(work)
        return [results[index] for index in range(len(orders))]

    async def tidy(self) -> None:
        """End what failed starts left, now that the server answers again."""
        for name in list(self._left):
            await self._undo_left(name)

    def forget_all(self) -> None:
        """Drop what is kept of a server that is gone."""
        self._left.clear()

    def _check_room(self, count: int) -> None:
        if self._calls.server is not None:
            check_room(self._calls.server.process.pid, self._hearing.panes + count)

    async def _start(self, order: SpawnOrder) -> PaneRef:
        check_session_name(order.session_name, HUB)
        check_words(order.argv, order.env)
        self._check_place(order.argv[0], order.env.get("PATH"), order.cwd)
        steps = _steps(order)
        async with self._limit:
            # Shielded, and each step has its deadline: a cancelled caller must not leave half a session.
            with anyio.CancelScope(shield=True):
                ref = await self._send(order.session_name, steps)
        return ref

    def _check_place(self, program: str, path: str | None, cwd: str) -> None:
        now_s, place = time.monotonic(), (program, path, cwd)
        if now_s - self._checked_s.get(place, -inf) < CHECK_S:
            return
        if len(self._checked_s) >= _MOST_CHECKED:
            self._checked_s.clear()
        check_place(*place)
        self._checked_s[place] = now_s

    async def _send(self, name: str, steps: Sequence[str]) -> PaneRef:
        if name in self._left:
            await self._undo_left(name)
        try:
            async with self._calls.mutation() as (channel, server):
                self._hearing.lag.sent()
                reply = await channel.sequence(steps, timeout_s=self._calls.timeout_s)
                self._hearing.lag.replied()
            said = reply.frame.decode("utf-8", "replace")
            if not reply.ok:
                raise TmuxRefused("link-window", said) if reply.lines else refusal(steps[0], said)
        except AlreadyExists:
            raise
        except AgentdError:
            self.failed += 1
            self._left.add(name)
            await self._undo_left(name)
            raise
        self._hearing.started += 1
        self.spawned += 1
        return _ref(reply.lines[0].decode(), server)

    async def _undo_left(self, name: str) -> None:
        """End the session of a start that failed half-way; while that cannot be done, none of the same name starts."""
        async with self._undoing:
            if name not in self._left:
                return
            try:
                for pane in await self._looking.panes():
                    if pane.session_name == name:
                        await self._ending.kill(pane.ref, 0.0)
                self._left.discard(name)
            except AgentdError as error:
                self._log.warning("could not see what a failed start left", session=name, error=error.message)


def _steps(order: SpawnOrder) -> list[str]:
    """Return the commands of one start; the window keeps its size whoever looks, and is linked where it is heard."""
    words = ["new-session", "-d", "-P", "-F", _NEW_FORMAT, "-s", order.session_name]
    words += ["-x", str(order.width), "-y", str(order.height), "-c", "/"]
    for name, value in order.env.items():
        words += ["-e", f"{name}={value}"]
    words += ["--", "/bin/sh", "-c", _LAUNCHER, "sh", f"{order.umask:03o}", order.cwd, *order.argv]
    target = f"={order.session_name}:"  # exactly this name
    return [
        line(*(quote_lines(word) for word in words)),
        # Not set-option window-size: that looks at every window there is. This sets the same for this one.
        command("resize-window", "-t", target, "-x", str(order.width), "-y", str(order.height)),
        command("link-window", "-d", "-s", target, "-t", f"={HUB}:"),
    ]


def _ref(reply: str, server: str) -> PaneRef:
    session_id, window_id, pane_id, pid = reply.split("|")
    return PaneRef(session_id, window_id, pane_id, int(pid), server)
