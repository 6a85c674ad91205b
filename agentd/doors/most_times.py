"""How long a call may take at most, so that nothing waits for ever for what does not answer."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any, Final

from agentd.config import RpcConfig
from agentd.doors import mcp
from agentd.doors.tools import TOOLS
from agentd.wire.calls import CALLS, Takes

BATCH: Final = "rpc.batch"


class MostTimes:
    """The most time of each call, by what its row of the table says that it takes."""

    def __init__(self, config: RpcConfig) -> None:
        self._of_a_call_s = config.call_s
        self._most_s: Mapping[Takes, float] = {
            "moments": config.call_s,
            "a wait": config.call_s + config.wait_s,
            "long": max(config.long_s, config.call_s),
        }

    def of(self, method: str, params: Any) -> float:
        """Return the most time of a call, in seconds; a stream has no end."""
        if method == BATCH:
            return min(sum(self._of_row(_method_in(item)) for item in params), self._most_s["long"])
        return self._of_row(TOOLS[params["name"]].call if method == mcp.CALL else method)

    def is_long(self, most_s: float) -> bool:
        """Tell whether a most time is that of calls which plan with it: those that start programs."""
        return self._most_s["long"] <= most_s < inf

    def _of_row(self, method: str) -> float:
        row = CALLS.get(method)
        if row is None:
            return self._of_a_call_s
        return inf if row.stream else self._most_s[row.takes]


def _method_in(item: Any) -> str:
    """Return the method of a call within a batch; what is none is told as such when it is its turn."""
    return item[0] if isinstance(item, list) and item and isinstance(item[0], str) else ""
