"""How a slot of the pool becomes somebody's agent: with a name, a team and a token that is new."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import anyio

from agentd.agents.booted import clock_s
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ids import session_name
from agentd.agents.ledger import Ledger
from agentd.agents.registry import Entry
from agentd.agents.roster import Roster
from agentd.agents.starts import SpawnRequest
from agentd.agents.tokens import Tokens
from agentd.errors import AgentdError
from agentd.failpoint import failpoint
from agentd.records import Agent


class HandOut:
    """Gives slots away; who gets which is on disk before anybody is told."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger, tokens: Tokens) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._tokens = tokens

    def prepare(self, slots: Sequence[Agent], requests: Sequence[SpawnRequest]) -> list[Entry]:
        """Return the slots as the agents that were asked for, and let them know who they are; nothing is kept yet."""
        agents = [_somebodys(slot, request) for slot, request in zip(slots, requests, strict=True)]
        for agent in agents:
            self._parts.places.write_identity(agent)
            if live := self._roster.live.get(agent.id):
                live.owned_since_s = clock_s()
        return self._tokens.written(agents)

    async def keep(self, entries: Sequence[Entry]) -> None:
        """Have on disk, in one commit, whose the agents are, and tell of them.

        A crash before the commit leaves slots of the pool, whose tokens the next daemon makes anew; one after it
        leaves agents that answer to their names. Raises StorageError, and the slots are nobody's again, but as good as
        lost: their programs have tokens that nobody knows.
        """
        before = [self._parts.directory.entry(entry.agent.id) for entry in entries]
        failpoint("acquire.before_commit")
        with anyio.CancelScope(shield=True):  # a caller who goes away must not leave an agent that is half somebody's
            try:
                await self._ledger.save_new(entries)
            except AgentdError:
                self._ledger.put_back(before)
                raise
        failpoint("acquire.after_commit")
        for entry in entries:
            self._ledger.tell("agent.spawned", entry.agent)
            self._roster.start(show_name, self._parts, entry.agent)


async def show_name(parts: CrewParts, agent: Agent) -> None:
    """Have tmux show whose session it is; the id in its name, by which it is found, stays."""
    if agent.pane is None:
        return
    try:
        await parts.tmux.rename(agent.pane, session_name(agent.name, agent.home))
    except AgentdError as error:  # the name is for people; everything of ours goes by the id
        parts.log.warning("could not rename a session", agent=agent.id, error=error.message)


def _somebodys(slot: Agent, request: SpawnRequest) -> Agent:
    now_ns = time.time_ns()
    return replace(
        slot,
        name=request.name,
        team=request.team,
        role=request.role,
        pooled=False,
        warm=True,
        created_ns=now_ns,
        started_by=request.descent.started_by,
        family=request.descent.family,
        generation=request.descent.generation,
        spawn_key=request.key,
    )
