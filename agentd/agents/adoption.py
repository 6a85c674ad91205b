"""What a new daemon does with the agents of the old one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentd.agents.crew_parts import CrewParts
from agentd.agents.ends import Ends
from agentd.agents.handout import show_name
from agentd.agents.ids import id_of_session, session_name
from agentd.agents.ledger import Ledger, ended
from agentd.agents.profile import Profile, stand_in
from agentd.agents.roster import Roster
from agentd.agents.watch import Watch
from agentd.errors import AgentdError
from agentd.records import Agent, AgentState, Delivery
from agentd.tmux.tmux import PaneInfo
from agentd.transcripts.segment import Why


@dataclass(frozen=True, slots=True)
class Adoption:
    """What a new daemon found of the old one's agents."""

    adopted: Sequence[str] = ()
    lost: Sequence[str] = ()
    orphans: Sequence[str] = ()
    crashed: Sequence[Agent] = ()  # those of the lost whose tmux server is gone


class Homecoming:
    """Takes over agents that outlived the last daemon."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger, watch: Watch, ends: Ends) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._watch = watch
        self._ends = ends

    async def adopt(self, recovered: Sequence[Delivery]) -> Adoption:
        """Take over the agents that still run; say which are lost and end what nobody knows."""
        found = await self._parts.tmux.panes()
        panes = {home: info for info in found if (home := id_of_session(info.session_name))}
        adopted, lost = self._sort(panes, recovered)
        leftover = [delivery for delivery in recovered if delivery.message.to not in self._roster.live]
        if leftover:
            await self._parts.mailbox.release(leftover)
        for info in panes.values():
            await self._ends.bury(info.ref)
        crashed = await self._lose(lost) if lost else []
        return Adoption(
            adopted, [a.name for a in lost if not a.pooled], [info.session_name for info in panes.values()], crashed
        )

    async def _lose(self, lost: Sequence[Agent]) -> list[Agent]:
        """Write down that agents are lost; return those whose whole tmux server is gone."""
        await self._ends.end_survivors([agent.home for agent in lost])
        why = "its pane was gone when agentd came back"
        failed = await self._ledger.keep([ended(agent, AgentState.FAILED, why, None) for agent in lost])
        servers = {row["server"] for row in self._parts.tmux.servers()}
        return [
            after
            for before, after in zip(lost, failed, strict=True)
            if before.pane is not None and before.pane.server not in servers
        ]

    def _sort(self, panes: dict[str, PaneInfo], recovered: Sequence[Delivery]) -> tuple[list[str], list[Agent]]:
        """Adopt who has a pane, taking it from the panes; return the names of those, and who is lost."""
        adopted: list[str] = []
        lost: list[Agent] = []
        for agent in [*self._parts.directory, *self._parts.directory.pooled()]:
            if agent.state is AgentState.STOPPED:
                continue
            info = panes.pop(agent.home, None)
            if info is not None:
                mine = [delivery for delivery in recovered if delivery.message.to == agent.id]
                self._adopt_one(agent, info, mine)
                if not agent.pooled:
                    adopted.append(agent.name)
            elif agent.pane is not None or agent.state is not AgentState.FAILED:
                lost.append(agent)
        return adopted, lost

    def _adopt_one(self, agent: Agent, info: PaneInfo, recovered: Sequence[Delivery]) -> None:
        profile = self._profile(agent.profile)
        kept = replace(agent, pane=info.ref)
        self._ledger.put(kept)
        self._parts.transcripts.missed(agent.id, Why.AWAY)
        if agent.warm and info.session_name != session_name(agent.name, agent.home):  # a crash came before that
            self._roster.start(show_name, self._parts, kept)
        started = agent.state is not AgentState.STARTING
        self._watch.begin(kept, profile, info.ref, started=started, recovered=recovered)

    def _profile(self, name: str) -> Profile:
        try:
            return self._parts.profiles.get(name)
        except AgentdError as error:
            return stand_in(name, error.message)
