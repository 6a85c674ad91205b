"""The crew: starts, adopts, watches and ends agents."""

from __future__ import annotations

import random
from collections.abc import Sequence

import anyio
from anyio.abc import TaskStatus

from agentd.agents.adoption import Adoption, Homecoming
from agentd.agents.boots import Boots
from agentd.agents.calm import Calm
from agentd.agents.claims import Claims
from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.handout import HandOut
from agentd.agents.ledger import Ledger
from agentd.agents.line import Party
from agentd.agents.live import LiveAgent
from agentd.agents.outcomes import Outcomes
from agentd.agents.parties import Parties
from agentd.agents.pool import Pool
from agentd.agents.recycling import Recycling
from agentd.agents.refills import Refills
from agentd.agents.revival import Revival
from agentd.agents.roster import Roster
from agentd.agents.spawn_keys import SpawnKeys
from agentd.agents.starts import Greet, SpawnRequest, Starts
from agentd.agents.stock import Stock
from agentd.agents.tokens import Tokens
from agentd.agents.watch import Watch
from agentd.errors import AgentdError
from agentd.records import Agent, Change, Delivery, MessageState
from agentd.tmux.tmux import Activity, Output, PaneDied, Restored, ServerGone, TmuxEvent
from agentd.transcripts.segment import Why


class Crew:
    """Every live agent; each room of it does one thing to them."""

    def __init__(self, parts: CrewParts) -> None:
        self._parts = parts
        self._roster = Roster(parts.log)
        ledger = Ledger(parts, self._roster)
        self._ends = Ends(parts, self._roster, ledger)
        self._watch = Watch(parts, self._roster, ledger, self._ends)
        self._boots = boots = Boots(parts.config.agents)
        ledger.on_booted.append(boots.ended)
        self._roster.on_gone.append(boots.ended)
        self._starts = Starts(parts, self._roster, ledger, self._watch, self._ends, boots)
        self._homecoming = Homecoming(parts, self._roster, ledger, self._watch, self._ends)
        self.tokens = Tokens(parts, self._roster, ledger)
        hand_out = HandOut(parts, self._roster, ledger, self.tokens)
        recycling = Recycling(parts, self._roster, ledger, self._ends, self._watch)
        self.on_retired = recycling.on_retired
        stock, calm = Stock(), Calm()
        self.outcomes = Outcomes(parts, self._roster, stock, random.random)
        refills = Refills(parts, self._roster, ledger, self._starts, self._ends, boots, stock, self.outcomes)
        self._claims = Claims(parts, self._roster, self._starts, hand_out, stock, self.outcomes, refills, calm)
        self.pool = Pool(parts, self._roster, ledger, recycling, stock, self.outcomes, refills, calm)
        self.spawn_keys = SpawnKeys()
        self.parties = Parties()
        self._revival = Revival(parts, self._roster, ledger, self._starts)
        self._ends.on_crash.append(self._revival.crashed)

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Keep the agents' tasks until cancelled."""
        await self._roster.run(task_status=task_status)

    @property
    def count(self) -> int:
        """Return how many agents are alive; slots of the pool are nobody's, and counted there."""
        return sum(agent.id in self._roster.live for agent in self._parts.directory)

    def live(self, agent_id: str) -> LiveAgent | None:
        """Return the live part of an agent, or None when its program has ended."""
        return self._roster.live.get(agent_id)

    def known(self, agent_id: str) -> bool:
        """Tell whether an agent is alive or just being started: its program may call before tmux has answered us."""
        return self._roster.known(agent_id)

    def pane_pids(self) -> dict[int, str]:
        """Return the pid of each live agent's program, and whose it is; a pid is one machine's, not one server's."""
        return self._roster.pane_pids()

    async def quiesce(self, timeout_s: float) -> None:
        """Begin no delivery any more, and let those under way come to their end."""
        await self._watch.quiesce(timeout_s)

    async def spawn(self, requests: Sequence[SpawnRequest], party: Party, greet: Greet) -> list[Agent | AgentdError]:
        """Start agents or take them from the pool, in order of the requests; a failed one leaves nothing behind."""
        return await self._claims.spawn(requests, party, greet)

    def waiting(self, party: Party) -> int:
        """Return how many of a party wait for their turn to boot."""
        return self._boots.waiting(party)

    def hindrance(self) -> str:
        """Return what keeps the next agent from booting; empty when none waits."""
        return self._boots.hindrance()

    async def respawn(self, agent: Agent, party: Party, *, fresh: bool = False) -> Agent:
        """Start an ended agent again: same id, same inbox, a new token, and unless `fresh` its program's session."""
        return await self._starts.respawn(agent, party, fresh=fresh)

    async def adopt(self, recovered: Sequence[Delivery]) -> Adoption:
        """Take over the agents that outlived the last daemon; say which are lost and end what nobody knows."""
        adoption = await self._homecoming.adopt(recovered)
        for live in self._roster.live.values():
            if not live.status.started:
                self._boots.count(live.id, live.profile)
        await self.tokens.mend()
        self._revival.revive(adoption.crashed)
        await self.pool.take_over()
        directory = self._parts.directory
        await self._parts.lodging.sweep([agent.id for agent in (*directory, *directory.pooled())])
        return adoption

    async def stop(self, agent: Agent, *, force: bool) -> Agent:
        """End an agent, and its program with everything it started; what waits in its inbox is kept.

        Without `force` the program may go on as a slot of the pool, where its profile and its place say so.
        """
        recycled = None if force else await self.pool.recycle(agent)
        return recycled or await self._ends.stop(agent, force=force)

    def profile_changed(self, name: str) -> None:
        """Have the live agents of a profile read and treated as it says now; their programs run on as started."""
        profile = self._parts.profiles.get(name)
        self.outcomes.profile_changed(name)
        for live in self._roster.live.values():
            if live.profile.name == name:
                live.follow_profile(profile)

    # -- what happens

    def on_tmux(self, event: TmuxEvent) -> None:
        """Take in an event of one of our tmux servers."""
        match event:
            case Output():
                self._roster.heard(event)
            case Activity():
                if live := self._roster.at(event.server, event.pane_id):
                    live.screen_changed()
            case Restored():  # what was told meanwhile was not heard
                for agent_id in self._roster.on_server(event.server):
                    live = self._roster.live[agent_id]
                    live.recording.missed(Why.LOST)
                    live.screen_changed()
            case PaneDied():
                if live := self._roster.at(event.server, event.pane_id):
                    live.died()
            case ServerGone():
                self._roster.start(self._server_gone, event.server)

    async def _server_gone(self, server: str) -> None:
        self._revival.revive(await self._ends.server_gone(server))

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Take in committed changes of messages."""
        for inbox in {change.to for change in changes if change.state is MessageState.ACCEPTED}:
            if live := self._roster.live.get(inbox):
                live.inbox_changed()
