"""What the waits that calls make have in common."""

from __future__ import annotations

from agentd.agents.waiters import Wait
from agentd.api.parts import Parts
from agentd.records import Caller


class CallersWait(Wait):
    """A wait of a caller, for no longer than the daemon lets one be."""

    __slots__ = ("_caller", "_parts")

    def __init__(self, parts: Parts, caller: Caller, key: str, timeout_s: float) -> None:
        super().__init__(parts.waiters, key, min(timeout_s, parts.config.rpc.wait_s))
        self._parts = parts
        self._caller = caller
