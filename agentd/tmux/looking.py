"""What panes and sessions look like."""

from __future__ import annotations

from typing import Any

import anyio

from agentd.records import PaneRef
from agentd.tmux.calls import Calls
from agentd.tmux.failures import PaneDead
from agentd.tmux.hearing import END_LOOK_S, END_LOOKS, Hearing
from agentd.tmux.notation import Reply, command
from agentd.tmux.views import (
    FACTS_FORMAT,
    NOT_HUB,
    PANES_FORMAT,
    SESSIONS_FORMAT,
    Facts,
    Look,
    PaneInfo,
    Surroundings,
    facts_of,
    pane_of,
    session_of,
)

_MAX_LINES = 100_000
_LONG_LINES = 200  # of scrollback: more than that is bulk


class Looking:
    """Captures and lists."""

    def __init__(self, calls: Calls, hearing: Hearing) -> None:
        self._calls = calls
        self._hearing = hearing

    async def look(self, ref: PaneRef, lines: int | None, *, escapes: bool) -> Look:
        """Return what the pane shows; of a dead one when tmux has learned how it ended."""
        reply, facts = await self._capture(ref, lines, escapes=escapes)
        for _ in range(END_LOOKS):
            if not facts.end_unknown:
                break
            self._hearing.nudge()
            await anyio.sleep(END_LOOK_S)
            reply, facts = await self._capture(ref, lines, escapes=escapes)
        shown = b"\n".join(reply.lines).decode("utf-8", "replace")
        return facts.look(shown if escapes else _without_blank_ends(shown))

    async def panes(self) -> list[PaneInfo]:
        """Return every pane that is not the hub's."""
        rows, server = await self._calls.rows("list-panes", "-a", "-f", NOT_HUB, "-F", PANES_FORMAT)
        return [pane_of(row, server) for row in rows]

    async def sessions(self) -> list[dict[str, Any]]:
        """Return every session but the hub."""
        rows, _ = await self._calls.rows("list-sessions", "-f", NOT_HUB, "-F", SESSIONS_FORMAT)
        return [session_of(row) for row in rows]

    async def surroundings(self, ref: PaneRef) -> Surroundings:
        """Return who is attached to the pane's session, and where its program is."""
        words = ("display-message", "-p", "-t", ref.pane_id, "#{pane_pid}|#{session_attached}|#{pane_current_path}")
        rows = await self._calls.looked(lambda channel: channel.run(*words, timeout_s=self._calls.timeout_s), ref)
        pid, _, rest = (rows[0] if rows else "").partition("|")
        if pid != str(ref.pid):
            raise PaneDead(f"pane {ref.pane_id} is gone")
        people, _, cwd = rest.partition("|")
        return Surroundings(int(people or 0), cwd)

    async def attached(self) -> list[str]:
        """Return the terminals of the people who are attached; our own connections have none."""
        rows, _ = await self._calls.rows("list-clients", "-F", "#{client_tty}")
        return [row for row in rows if row.startswith("/dev/")]

    async def _capture(self, ref: PaneRef, lines: int | None, *, escapes: bool) -> tuple[Reply, Facts]:
        words = ["capture-pane", "-p", "-J", "-t", ref.pane_id]
        words += ["-e"] if escapes else []
        words += ["-S", str(-min(lines, _MAX_LINES))] if lines else []
        reply = await self._calls.looked(
            lambda channel: channel.capture(
                command(*words), FACTS_FORMAT, ref.pane_id, timeout_s=self._calls.timeout_s
            ),
            ref,
            bulk=(lines or 0) > _LONG_LINES,
        )
        facts = facts_of(reply.frame)
        if facts is None or facts.pid != ref.pid:
            raise PaneDead(f"pane {ref.pane_id} is gone")
        return reply, facts


def _without_blank_ends(shown: str) -> str:
    if " \n" not in shown and not shown.endswith(" "):
        return shown
    return "\n".join([each.rstrip(" ") for each in shown.split("\n")])
