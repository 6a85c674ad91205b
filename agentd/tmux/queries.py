"""What is asked of tmux through the cache: how each question is asked, and which event makes which answer untrue.

    sessions  (server)                         one server's sessions   untrue once a session, window or pane changes
    capture   (server, pane, pid, lines, raw)  what a pane shows       untrue once its program prints or ends

A server's identity stands in the question, so no answer outlives the server it came from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio

from agentd.cache.answer import Answer
from agentd.cache.cache import Cache
from agentd.cache.query import Query
from agentd.errors import AgentdError
from agentd.records import PaneRef
from agentd.tmux.events import (
    Activity,
    LayoutChanged,
    Lost,
    Output,
    PaneDied,
    Renamed,
    Restored,
    ServerGone,
    SessionsChanged,
    TmuxEvent,
    WindowsChanged,
)
from agentd.tmux.failures import PaneDead
from agentd.tmux.fleet import Fleet

SESSIONS = "sessions"
CAPTURE = "capture"
SESSIONS_AGE_S = 15.0  # a session's `activity` changes unheard
_TIERS = ("l1", "l2", "l3", "tmux")


async def ask(fleet: Fleet, query: Query) -> Any:
    """Ask tmux; None when there is no such server or pane (any more)."""
    if query.kind == SESSIONS:
        return await fleet.sessions_of(str(query.args[0]))
    server, pane_id, pid, lines, raw = query.args
    ref = PaneRef("", "", str(pane_id), int(pid), str(server))
    try:
        look = await fleet.look(ref, int(lines) or None, escapes=bool(raw))
    except PaneDead:
        return None
    return {
        "text": look.text,
        "width": look.width,
        "height": look.height,
        "cursor": [look.cursor_x, look.cursor_y],
    }


def tags_of(query: Query) -> tuple[str, ...]:
    """Return what an answer tells of."""
    if query.kind == SESSIONS:
        return (_sessions(str(query.args[0])),)
    server, pane_id = str(query.args[0]), str(query.args[1])
    return (_pane(server, pane_id), _layout(server))


class Queries:
    """The questions, answered from the cache while their answers are true."""

    def __init__(self, cache: Cache, fleet: Fleet) -> None:
        self._cache = cache
        self._fleet = fleet
        self._deaf_to: set[str] = set()  # servers whose events do not reach us

    # -- questions

    def kept_sessions(self, max_age_s: float | None) -> Answer | None:
        """Return every session if each server's are in the first tier; never waits."""
        limit_s = _limit(max_age_s)
        answers = [self._cache.peek(query, limit_s) for query in self._sessions()]
        kept = [answer for answer in answers if answer is not None]
        return _joined(kept) if kept and len(kept) == len(answers) else None

    async def sessions(self, caller: str, max_age_s: float | None = None, *, fresh: bool = False) -> Answer:
        """Return every session of every server, by server: its index, id, name, windows, panes and activity."""
        queries = self._sessions()
        answers: dict[int, Answer] = {}
        failures: list[AgentdError] = []

        async def one(at: int, query: Query) -> None:
            try:
                answers[at] = await self._cache.get(query, caller if at == 0 else "", _limit(max_age_s), fresh)
            except AgentdError as error:
                failures.append(error)

        async with anyio.create_task_group() as group:
            for at, query in enumerate(queries):
                group.start_soon(one, at, query)
        if failures:
            raise failures[0]
        return _joined([answers[at] for at in range(len(queries))])

    async def capture(
        self, ref: PaneRef, lines: int | None, *, raw: bool, caller: str, max_age_s: float | None, fresh: bool
    ) -> Answer:
        """Return what a pane shows; the value is None when it is gone."""
        query = Query(CAPTURE, (ref.server, ref.pane_id, ref.pid, lines or 0, int(raw)))
        return await self._cache.get(query, caller, max_age_s, fresh)

    def _sessions(self) -> list[Query]:
        return [Query(SESSIONS, (row["server"],)) for row in self._fleet.servers()]

    # -- what makes answers untrue

    def changed(self) -> None:
        """Forget what tells of sessions: we changed them ourselves, and tmux tells of it a moment later."""
        self._cache.drop(*(_sessions(row["server"]) for row in self._fleet.servers()))

    def on_tmux(self, event: TmuxEvent) -> None:
        """Drop what an event makes untrue."""
        match event:
            case Output() | Activity():
                self._cache.drop(_pane(event.server, event.pane_id))
            case PaneDied():
                self._cache.drop(_pane(event.server, event.pane_id), _sessions(event.server))
            case SessionsChanged() | WindowsChanged() | Renamed():
                self._cache.drop(_sessions(event.server))
            case LayoutChanged():
                self._cache.drop(_sessions(event.server), _layout(event.server))
            case Lost():
                self._deaf_to.add(event.server)
                self._cache.deaf()
            case Restored() | ServerGone():
                self._hear(event.server)

    def _hear(self, server: str) -> None:
        self._deaf_to.discard(server)  # of one that is gone there is nothing more to hear
        if not self._deaf_to:
            self._cache.hearing()

    # -- after a restart

    async def revive(self) -> None:
        """Serve screens that an earlier daemon kept of panes that have printed nothing since."""
        try:
            panes = await self._fleet.panes()
        except AgentdError:  # then they are asked for anew
            return
        printed_s = {(pane.ref.server, pane.ref.pane_id): pane.printed_s for pane in panes}

        def valid(query: Query, asked_at_s: float) -> bool:
            last_s = printed_s.get((str(query.args[0]), str(query.args[1]))) if query.kind == CAPTURE else None
            return last_s is not None and last_s + 1 < asked_at_s  # tmux tells whole seconds

        self._cache.revive(valid)


def _joined(answers: Sequence[Answer]) -> Answer:
    """Return the answers of all servers as one, as old as the oldest."""
    rows = [row for answer in answers for row in answer.value or ()]
    tier = max((answer.tier for answer in answers), key=_TIERS.index, default="tmux")
    ages, bounds = [answer.age_ms for answer in answers], [answer.bound_ms for answer in answers]
    return Answer(rows, tier, max(ages, default=0), max(bounds, default=0))


def _limit(max_age_s: float | None) -> float:
    return SESSIONS_AGE_S if max_age_s is None else min(max_age_s, SESSIONS_AGE_S)


def _sessions(server: str) -> str:
    return f"sessions {server}"


def _pane(server: str, pane_id: str) -> str:
    return f"{pane_id} {server}"


def _layout(server: str) -> str:
    return f"layout {server}"
