"""What the door's calls cost beside the least that asyncio can do with the same frames."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing

from bench._rpc_load import Answered, ClosedLoop, calls
from bench._rpc_process import Server, serving
from bench._rpc_servers import AT_ONCE, PARAMS, WAITS, bare, bare_tasks, door
from bench._rpc_table import Rows

CASES = {  # connections, depth, the bar
    "1 x 1": (1, 1, None),
    "10 x 1": (10, 1, 0.8),
    "100 x 1": (100, 1, 0.8),
    "10 x 128": (10, 128, 0.7),
}
WAYS = {  # the server, the call
    "bare": ("bare", AT_ONCE),
    "door": ("door", AT_ONCE),
    "waits": ("door", WAITS),
    "bare, a task each": ("bare, a task each", WAITS),
}
TURN_S = 0.05
WAITS_LEAST = 0.2


def measure(seconds: float, rounds: int) -> Rows:
    """Let the servers take turns, short ones: what else the machine does then hits all of them."""
    rows = Rows()
    with serving({"bare": bare, "door": door, "bare, a task each": bare_tasks}) as servers:
        for case, (connections, depth, least) in CASES.items():
            with ExitStack() as stack:
                ways = {
                    name: _Way(servers[server], method, connections, depth, stack)
                    for name, (server, method) in WAYS.items()
                }
                for _ in range(max(1, round(rounds * seconds / TURN_S))):
                    _turn(rows, ways, case, least)
    return rows


class _Way:
    """One kind of calls at one server, on connections that stay open."""

    def __init__(self, server: Server, method: str, connections: int, depth: int, stack: ExitStack) -> None:
        self._server = server
        load = ClosedLoop(server.path, connections, calls(method, PARAMS, depth), each=depth)
        self._load = stack.enter_context(closing(load))

    def turn(self) -> tuple[Answered, float]:
        """Return what came in a turn, and the server's time for a call, in microseconds."""
        before_s, _ = self._server.spent()
        took = self._load.run(TURN_S)
        return took, (self._server.spent()[0] - before_s) / took.count * 1e6


def _turn(rows: Rows, ways: Mapping[str, _Way], case: str, least: float | None) -> None:
    took, cpu_us = {}, {}
    for name, way in ways.items():
        took[name], cpu_us[name] = way.turn()
    bare_per_s = took["bare"].per_s
    if least is None:
        for name, answered in took.items():
            for share in (50, 99):
                rows.add(f"{name}, {case}, p{share} us", answered.quantile_ms(share / 100) * 1e3)
        return
    rows.add(f"bare, {case}, calls/s", bare_per_s)
    rows.add(f"door, {case}, calls/s", took["door"].per_s)
    rows.add(f"door / bare, {case}", took["door"].per_s / bare_per_s, least=least)
    rows.add(f"waits / bare, {case}", took["waits"].per_s / bare_per_s, least=WAITS_LEAST)
    tasks_per_s = took["bare, a task each"].per_s
    rows.add(f"bare with a task each / bare, {case}", tasks_per_s / bare_per_s)
    rows.add(f"waits / bare with a task each, {case}", took["waits"].per_s / tasks_per_s)
    for name in ("door", "waits"):
        rows.add(f"  CPU of bare / of {name}, {case}", cpu_us["bare"] / cpu_us[name])
    for name in ways:
        rows.add(f"  {name}, {case}, us of CPU a call", cpu_us[name])
