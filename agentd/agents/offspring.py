"""Agents that agents start: which, how many, how deep, and who may end them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache

from agentd.agents.bucket import Bucket
from agentd.agents.directory import Directory
from agentd.config import AgentsConfig
from agentd.errors import AgentdError, Denied, OverLimit, RateLimit
from agentd.records import Agent, Caller, Role

MOST_STARTERS: Final = 10_000  # counted at once; of more, the ones longest unused are counted anew


@dataclass(frozen=True, slots=True)
class Descent:
    """Whose child an agent is; all empty for one that the operator started."""

    started_by: str = ""  # an agent's id
    family: str = ""  # the id of the agent that the operator started, from which all others come
    generation: int = 0


OPERATORS_OWN: Final = Descent()


class Offspring:
    """Admits what agents ask to start; the operator is asked nothing here."""

    def __init__(self, config: AgentsConfig, directory: Directory, clock_s: Callable[[], float]) -> None:
        self._config = config
        self._directory = directory
        self._clock_s = clock_s
        self._buckets: LRUCache[str, Bucket] = LRUCache(MOST_STARTERS)

    @property
    def allowed(self) -> bool:
        """Tell whether agents may start any."""
        return bool(self._config.spawnable)

    def admit(self, caller: Caller, profile: str, count: int) -> Descent:
        """Return the descent of what a caller starts; raises Denied, OverLimit or RateLimit, and nothing is started."""
        if caller.role is not Role.AGENT:
            return OPERATORS_OWN
        parent = self._directory.entry(caller.agent_id).agent
        descent = Descent(parent.id, parent.family or parent.id, parent.generation + 1)
        refusal = self._forbidden(profile) or self._too_deep(descent) or self._too_many(descent, count)
        if refusal:
            raise refusal
        self._take(parent.id, count)
        return descent

    def check_own(self, caller: Caller, agents: Sequence[Agent]) -> None:
        """Raise Denied for an agent that did not start these, itself or through others."""
        if caller.role is not Role.AGENT:
            return
        foreign = [agent.name for agent in agents if not self._comes_of(agent, caller.agent_id)]
        if foreign:
            raise Denied(
                f"{foreign[0]} was not started by you; nothing was done", hint="ask the operator, or who started it"
            )

    def _comes_of(self, agent: Agent, ancestor: str) -> bool:
        seen: Agent | None = agent
        for _ in range(agent.generation):
            if seen is None or not seen.started_by:
                return False
            if seen.started_by == ancestor:
                return True
            seen = self._directory.get(seen.started_by)
        return False

    def _forbidden(self, profile: str) -> AgentdError | None:
        allowed = self._config.spawnable
        if profile in allowed:
            return None
        return Denied(
            f"agents may not start `{profile}` here; nothing was started",
            hint=f"they may start {', '.join(allowed)}; the operator can add to agents.spawnable",
        )

    def _too_deep(self, descent: Descent) -> AgentdError | None:
        if descent.generation <= self._config.spawn_depth:
            return None
        return OverLimit(
            f"you were started by an agent of an agent, {descent.generation - 1} deep, and agents.spawn_depth is "
            f"{self._config.spawn_depth}; nothing was started",
            hint="ask the agent that started you to do it",
        )

    def _too_many(self, descent: Descent, count: int) -> AgentdError | None:
        family = [agent for agent in self._directory if agent.family == descent.family and agent.state.live]
        most = self._config.family_max
        if len(family) + count <= most:
            return None
        return OverLimit(
            f"{len(family)} agents of your family live and {count} more would pass agents.family_max = {most}; "
            "nothing was started",
            hint="stop some of those you started, or ask the operator",
        )

    def _take(self, agent_id: str, count: int) -> None:
        per_min, now_s = self._config.spawns_per_min, self._clock_s()
        bucket = self._buckets.get(agent_id, Bucket(per_min, now_s)).at(now_s, per_min)
        if bucket.tokens < count:
            raise RateLimit(
                f"an agent may start {per_min} agents a minute, and you asked for {count} more; nothing was started",
                hint="wait, or start fewer",
                retry_after_ms=bucket.wait_ms(per_min, count) if count <= per_min else None,
            )
        self._buckets[agent_id] = bucket.take(count)
