"""Agents' tokens: made, written down, and exchanged for new ones.

The registry keeps a token's digest, the agent's file the token itself, and these are two writes. Whichever comes first,
after a crash between them they do not belong together; the next daemon finds that and makes a new token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import anyio

from agentd.agents.crew_parts import CrewParts
from agentd.agents.ids import new_token
from agentd.agents.ledger import Ledger
from agentd.agents.live import LiveAgent
from agentd.agents.registry import Entry, digest
from agentd.agents.roster import Roster
from agentd.errors import AgentdError, AgentGone, Busy
from agentd.failpoint import failpoint
from agentd.records import Agent


class Tokens:
    """Gives agents that run new tokens."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._rotating: set[str] = set()
        self.on_rotated: list[Callable[[str], None]] = []  # told whose connections are to be closed

    def written(self, agents: Sequence[Agent]) -> list[Entry]:
        """Write a new token for each; return what is to be kept of it."""
        tokens = [new_token() for _ in agents]
        for agent, token in zip(agents, tokens, strict=True):
            self._parts.places.write_token(agent.home, token)
        return [Entry(agent, digest(token)) for agent, token in zip(agents, tokens, strict=True)]

    async def rotate(self, live: LiveAgent) -> None:
        """Give an agent a new token; the old one has ended, with the connections it opened, when this returns.

        Raises StorageError, and the old one is as good as before; AgentGone when the agent ends meanwhile.
        """
        if live.id in self._rotating:
            raise Busy("its token is being exchanged already", hint="try again")
        self._rotating.add(live.id)
        try:
            with anyio.CancelScope(shield=True):  # a caller who goes away must not leave a token that nobody can read
                await self._exchange(live)
        finally:
            self._rotating.discard(live.id)
        for tell in self.on_rotated:
            tell(live.id)

    async def _exchange(self, live: LiveAgent) -> None:
        token, home = new_token(), self._parts.directory.entry(live.id).agent.home
        self._parts.places.lay_token(home, token)  # a full disk is met while the old one still counts
        failpoint("rotate.before_commit")
        await self._commit(live.id, digest(token))
        failpoint("rotate.after_commit")
        if self._roster.live.get(live.id) is not live:  # its file may be another's by now
            raise AgentGone("its program ended while its token was exchanged", hint="a respawn makes a new token")
        self._parts.places.exchange_token(home)

    async def _commit(self, agent_id: str, fresh: str) -> None:
        before = self._parts.directory.entry(agent_id)
        try:
            await self._ledger.save_new([Entry(before.agent, fresh)])
        except AgentdError:
            if now := self._parts.directory.get(agent_id):  # it may have another state by now
                self._ledger.put_back([Entry(now, before.token)])
            raise

    async def mend(self) -> None:
        """Give a new token to whoever was adopted with one that is not the registry's, slots of the pool among them."""
        entries = [self._parts.directory.entry(agent_id) for agent_id in self._roster.live]
        torn = [entry.agent for entry in entries if not self._is_whole(entry)]
        if not torn:
            return
        try:
            await self._ledger.save_new(self.written(torn))
        except AgentdError as error:  # they cannot call; everything else of them works
            self._parts.log.warning("could not make new tokens", agents=len(torn), error=error.message)

    def _is_whole(self, entry: Entry) -> bool:
        token = self._parts.places.token(entry.agent.home)
        return token is not None and digest(token) == entry.token
