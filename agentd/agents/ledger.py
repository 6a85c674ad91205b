"""What is written down of agents: in memory, on disk, and told as events."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from agentd.agents.asking import NOTHING
from agentd.agents.crew_parts import CrewParts
from agentd.agents.program_status import Notice
from agentd.agents.registry import Entry
from agentd.agents.reports import Report
from agentd.agents.roster import Roster
from agentd.agents.status import Opinion
from agentd.errors import AgentdError
from agentd.records import Agent, AgentState


class Ledger:
    """The only part that writes the registry and the directory."""

    def __init__(self, parts: CrewParts, roster: Roster) -> None:
        self._directory = parts.directory
        self._registry = parts.registry
        self._places = parts.places
        self._lodging = parts.lodging
        self._transcripts = parts.transcripts
        self._events = parts.events
        self._log = parts.log
        self._roster = roster
        self.on_booted: list[Callable[[str], None]] = []  # told when an agent is no longer starting
        self.on_slot: list[Callable[[], None]] = []  # told when something happens to a slot of the pool

    def put(self, agent: Agent) -> None:
        """Change an agent in memory; its token stays."""
        self._directory.put(Entry(agent, self._directory.entry(agent.id).token))

    async def save_new(self, entries: Sequence[Entry]) -> None:
        """Put agents with their tokens into the directory, and on disk."""
        for entry in entries:
            self._directory.put(entry)  # before the first await: this reserves the names
        await self._registry.save(entries)

    async def keep(self, agents: Sequence[Agent]) -> Sequence[Agent]:
        """Put agents into the directory and on disk, and tell of the new state."""
        for agent in agents:
            self.put(agent)
        for agent in agents:
            if agent.pane is None:
                self.tell("agent.state", agent)
        if agents:
            await self._registry.save([self._directory.entry(agent.id) for agent in agents])
        return agents

    def put_back(self, entries: Sequence[Entry]) -> None:
        """Have agents in memory as they were: what they have become could not be written down."""
        for entry in entries:
            self._directory.drop(entry.agent.id)  # with the name that it has now
            self._directory.put(entry)

    def drop(self, agent_ids: Sequence[str]) -> None:
        """Forget agents that are not on disk yet."""
        for agent_id in agent_ids:
            self._directory.drop(agent_id)

    async def discard(self, agent_ids: Sequence[str]) -> None:
        """Forget agents, and remove what is kept of them."""
        if not agent_ids:
            return
        agents = [self._directory.entry(agent_id).agent for agent_id in agent_ids]
        for agent in agents:
            self._directory.drop(agent.id)
            self._places.remove(agent.home)
            if agent.repo:
                self._roster.start(self._vacate, agent)
        self._transcripts.forget(agent_ids)
        await self._registry.forget(agent_ids)

    async def _vacate(self, agent: Agent) -> None:
        await self._lodging.vacate(agent, force=agent.pooled)  # nobody ever worked in a slot's

    def keep_screen(self, agent_id: str, screen: str) -> None:
        """Write down what an ending agent's screen shows."""
        try:
            self._places.write_last_screen(self._directory.entry(agent_id).agent.home, screen)
        except (AgentdError, OSError) as error:  # the screen is a help; its agent's end matters more
            self._log.warning("could not keep a last screen", agent=agent_id, error=str(error))

    def on_opinion(self, agent_id: str, opinion: Opinion) -> None:
        """Take in what an agent's screen says about its state."""
        before = self._directory.entry(agent_id).agent
        since_ns = time.time_ns() if before.state is not opinion.state else before.since_ns
        agent = replace(
            before, state=opinion.state, reason=opinion.reason, since_ns=since_ns, waits_for=opinion.waits_for
        )
        self.put(agent)
        if agent.state is not before.state:
            self.tell("agent.state", agent, rule=opinion.rule)
            if before.state is AgentState.STARTING:
                self._roster.start(self._registry.save, [self._directory.entry(agent_id)])
                for told in self.on_booted:
                    told(agent_id)

    def on_asked(self, agent_id: str) -> None:
        """Tell that an agent that waits asks something else now."""
        self.tell("agent.state", self._directory.entry(agent_id).agent)

    def on_report(self, agent_id: str, report: Report) -> None:
        """Keep what a program says its session is called and where its own record of it is."""
        before = self._directory.entry(agent_id).agent
        resume_id, log_path = report.resume_id or before.resume_id, report.log_path or before.log_path
        if (resume_id, log_path) != (before.resume_id, before.log_path):
            self.put(replace(before, resume_id=resume_id, log_path=log_path))
            self._roster.start(self._registry.save, [self._directory.entry(agent_id)])

    def on_notice(self, agent_id: str, notice: Notice) -> None:
        """Tell what a program wants a person to notice."""
        agent = self._directory.entry(agent_id).agent
        self._events.emit(
            "agent.notified", agent=agent.id, name=agent.name, team=agent.team, kind=notice.kind, text=notice.text
        )

    def tell(self, event: str, agent: Agent, **more: str) -> None:
        """Emit an event about an agent; about a slot of the pool nobody but the pool is told."""
        if agent.pooled:
            for told in self.on_slot:
                told()
            return
        live = self._roster.live.get(agent.id)
        self._events.emit(
            event,
            agent=agent.id,
            name=agent.name,
            team=agent.team,
            state=agent.state,
            reason=agent.reason,
            waits_for=agent.waits_for,
            **(live.question if live else NOTHING),
            **more,
        )


def ended(agent: Agent, state: AgentState, reason: str, exit_status: int | None) -> Agent:
    """Return an agent as it is after its end."""
    return replace(
        agent, state=state, reason=reason, pane=None, exit_status=exit_status, since_ns=time.time_ns(), waits_for=""
    )
