"""How often one identity may call."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from agentd.config import RpcConfig
from agentd.errors import RateLimit
from agentd.records import Caller

BURST_S: Final = 1.0  # of a second's calls so many may come at once
_MOST_IDENTITIES: Final = 10_000


class Rates:
    """One number for each identity: when all that it called would have been allowed, one by one."""

    def __init__(self, config: RpcConfig, clock_s: Callable[[], float]) -> None:
        self._agent_per_s = config.agent_calls_per_s
        self._operator_per_s = config.operator_calls_per_s
        self._clock_s = clock_s
        self._free_s: dict[str, float] = {}
        self.limits_operator = bool(config.operator_calls_per_s)

    def spend(self, caller: Caller) -> None:
        """Count a call; raises RateLimit, and counts nothing, when it comes too soon."""
        per_s = self._agent_per_s if caller.agent_id else self._operator_per_s
        if not per_s:
            return
        now_s = self._clock_s()
        free_s = max(self._free_s.get(caller.agent_id, 0.0), now_s)
        over_s = free_s + 1 / per_s - now_s - max(BURST_S, 1 / per_s)
        if over_s > 1e-9:
            raise RateLimit(
                f"{caller.name} calls more often than {per_s:g} times a second; this call was not made",
                hint="call again a little later, or send many messages in one batch",
                retry_after_ms=math.ceil(over_s * 1000 - 1e-6),
            )
        self._free_s[caller.agent_id] = free_s + 1 / per_s
        if len(self._free_s) > _MOST_IDENTITIES:
            self._free_s = {identity: at_s for identity, at_s in self._free_s.items() if at_s > now_s}
