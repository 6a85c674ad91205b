"""What the list of 1,000 agents costs: as the daemon makes it, packed for each call, and encoded once."""

from __future__ import annotations

from bench._rpc_load import calls, closed_loop
from bench._rpc_process import serving
from bench._rpc_servers import AGENTS, LIST, LIST_PACKED, LIST_ROWS, bare_list, door
from bench._rpc_table import Rows

CONNECTIONS = 10
LEAST = 5.0
_WAYS = {  # server, call
    "rows packed for each call, bare": ("bare", LIST),
    "rows packed for each call, door": ("door", LIST_ROWS),
    "as the daemon makes it": ("door", LIST),
    "encoded once, door": ("door", LIST_PACKED),
}


def measure(seconds: float, rounds: int) -> Rows:
    """Let the ways take turns."""
    rows = Rows()
    plain, ours, once = "rows packed for each call, bare", "as the daemon makes it", "encoded once, door"
    with serving({"bare": bare_list, "door": door}) as servers:
        for _ in range(rounds):
            per_s: dict[str, float] = {}
            cpu_s: dict[str, float] = {}
            for name, (server, method) in _WAYS.items():
                before_s, _ = servers[server].spent()
                took = closed_loop(servers[server].path, seconds, CONNECTIONS, calls(method, {}))
                per_s[name] = took.per_s
                cpu_s[name] = (servers[server].spent()[0] - before_s) / max(1, took.count)
                rows.add(f"  {name}, lists/s", took.per_s)
                rows.add(f"  {name}, us of CPU", cpu_s[name] * 1e6)
            rows.add(f"list of {AGENTS}: the daemon's / packed plainly", per_s[ours] / per_s[plain], least=LEAST)
            rows.add(f"list of {AGENTS}: encoded once / packed plainly", per_s[once] / per_s[plain], least=LEAST)
            rows.add("  the same, CPU of packed plainly / encoded once", cpu_s[plain] / cpu_s[once])
    return rows
