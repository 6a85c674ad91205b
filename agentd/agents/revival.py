"""What becomes of agents that crashed, or whose tmux server did, when their profile says `respawn`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace

import anyio

from agentd.agents.crew_parts import CrewParts
from agentd.agents.ledger import Ledger
from agentd.agents.line import Party
from agentd.agents.profile import Profile
from agentd.agents.roster import Roster
from agentd.agents.starts import Starts
from agentd.errors import AgentdError
from agentd.records import Agent, AgentState

AT_ONCE = 4  # of all that are started again: the death of a thousand must leave room for those who ask for agents
ATTEMPTS = 5
FORGIVEN_S = 600.0  # after which an attempt counts no more
_FIRST_PAUSE_S = 0.5


class Revival:
    """Starts lost agents again, few at once, each so often and no oftener: one of them may be what kills servers."""

    def __init__(self, parts: CrewParts, roster: Roster, ledger: Ledger, starts: Starts) -> None:
        self._parts = parts
        self._roster = roster
        self._ledger = ledger
        self._starts = starts
        self._turns = anyio.CapacityLimiter(AT_ONCE)
        self._tried_s: dict[str, deque[float]] = {}

    def revive(self, agents: Sequence[Agent]) -> None:
        """Begin to start those lost agents again that want it; what cannot be started stays failed, with the reason."""
        self._forgive()
        for agent in agents:
            if (profile := self._profile(agent)) and profile.on_lost == "respawn":
                self._roster.start(self._revive, agent, 0.0)

    def crashed(self, agent: Agent) -> None:
        """Begin to start an agent again whose program ended by itself with an error, when its profile wants it."""
        self._forgive()
        if (profile := self._profile(agent)) and profile.on_crash == "respawn":
            self._roster.start(self._revive, agent, self._parts.config.agents.respawn_pause_s)

    def _profile(self, agent: Agent) -> Profile | None:
        """Return what says whether the agent is started again; a slot of the pool is the pool's to replace."""
        profiles = self._parts.profiles
        return profiles.get(agent.profile) if not agent.pooled and agent.profile in profiles.names() else None

    async def _revive(self, lost: Agent, first_s: float) -> None:
        why = f"it was tried {ATTEMPTS} times within {FORGIVEN_S / 60:g} minutes"
        while (wait_s := pause_s(len(self._tried(lost.id)), first_s)) is not None:
            await anyio.sleep(wait_s)
            async with self._turns:
                if not self._still(lost):
                    return
                self._tried_s.setdefault(lost.id, deque(maxlen=ATTEMPTS)).append(anyio.current_time())
                try:
                    await self._starts.respawn(lost, Party())
                except AgentdError as error:
                    why = error.message
                    if not error.retryable:
                        break
                else:
                    return
        if self._still(lost):
            await self._ledger.keep([replace(lost, reason=f"{lost.reason}, and it was not started again: {why}")])

    def _still(self, lost: Agent) -> bool:
        """Tell whether it still waits to be started again: nobody else has started, stopped or removed it."""
        now = self._parts.directory.get(lost.id)
        unchanged = now is not None and now.state is AgentState.FAILED and now.since_ns == lost.since_ns
        return unchanged and not self._roster.known(lost.id)

    def _tried(self, agent_id: str) -> list[float]:
        since_s = anyio.current_time() - FORGIVEN_S
        return [at_s for at_s in self._tried_s.get(agent_id, ()) if at_s > since_s]

    def _forgive(self) -> None:
        self._tried_s = {agent_id: tried for agent_id, tried in self._tried_s.items() if self._tried(agent_id)}


def pause_s(tried: int, first_s: float) -> float | None:
    """Return how long to wait after so many attempts; None when there is to be no other."""
    if tried >= ATTEMPTS:
        return None
    if not tried:
        return first_s
    return (2 * first_s or _FIRST_PAUSE_S) * 2.0 ** (tried - 1)
