"""How an operation asks the server: only the one that gave the ids, and through the gate when it changes things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from agentd.errors import AlreadyExists, StaleTarget
from agentd.records import PaneRef
from agentd.tmux.channel import Channel
from agentd.tmux.failures import PaneDead, TmuxRefused, TmuxUnavailable
from agentd.tmux.gate import Gate
from agentd.tmux.pool import Pool
from agentd.tmux.server import Server

T = TypeVar("T")


class Calls:
    """The way to the server that there is now, shared by all operations; Tmux says which server that is."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.gate = Gate()
        self.pool: Pool | None = None
        self.server: Server | None = None
        self.stopped = False

    @property
    def server_id(self) -> str:
        """Return the server's identity; empty while there is none."""
        return self.server.id if self.server else ""

    def check_server(self, ref: PaneRef) -> None:
        """Refuse a pane of a server that is gone."""
        if self.stopped:
            raise TmuxUnavailable("the tmux server was stopped on request")
        if ref.server != self.server_id:
            raise StaleTarget(
                f"pane {ref.pane_id} belongs to the tmux server {ref.server}, which is gone",
                hint="start the agent again",
            )

    def channel(self, ref: PaneRef | None = None, *, bulk: bool = False) -> Channel:
        """Return the way for one command that changes nothing."""
        if ref is not None:
            self.check_server(ref)
        if self.pool is None:
            raise TmuxUnavailable("there is no tmux server at the moment", hint="agentd starts one by itself")
        return self.pool.channel(bulk=bulk)

    @asynccontextmanager
    async def mutation(self, ref: PaneRef | None = None) -> AsyncIterator[tuple[Channel, str]]:
        """Give the way for commands that change something, and the server; they make tmux notify: hence the gate."""
        self.channel(ref)  # whoever cannot be served anyway does not wait at the gate
        async with self.gate.shared(self.timeout_s):
            yield self.channel(ref), self.server_id

    async def rows(self, *arguments: str) -> tuple[list[str], str]:
        """Return the lines of a list over everything, and the server that gave it."""
        server = self.server_id
        return await self.looked(lambda channel: channel.run(*arguments, timeout_s=self.timeout_s), bulk=True), server

    async def looked(
        self, look: Callable[[Channel], Awaitable[T]], ref: PaneRef | None = None, *, bulk: bool = False
    ) -> T:
        """Return what a look gives; it changes nothing, so a lost connection under it has it made once more."""
        try:
            return await look(self.channel(ref, bulk=bulk))
        except TmuxUnavailable:
            return await look(self.channel(ref, bulk=bulk))

    async def ask(
        self, channel: Channel, command_line: str, *, missing_ok: bool = False, refused_ok: bool = False
    ) -> str:
        """Run one command; what is missing is PaneDead, unless that is fine."""
        reply = await channel.ask(command_line, timeout_s=self.timeout_s)
        said = "\n".join(each.decode("utf-8", "replace") for each in reply.lines)
        if not reply.ok and not refused_ok:
            refused = refusal(command_line, said)
            if not (missing_ok and isinstance(refused, PaneDead)):
                raise refused
        return said


def refusal(command_line: str, said: str) -> PaneDead | AlreadyExists | TmuxRefused:
    """Return the error that tmux's own words about a command mean."""
    refused = TmuxRefused(command_line.partition(" ")[0], said)
    if refused.missing:
        return PaneDead(f"its pane is gone ({said})")
    if "duplicate session" in said:
        return AlreadyExists(f"tmux has a session of that name already ({said})")
    return refused
