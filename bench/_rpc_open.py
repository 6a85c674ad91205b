"""How long calls take that come at a fixed rate, whatever the door does."""

from __future__ import annotations

from bench._rpc_load import open_loop
from bench._rpc_process import serving
from bench._rpc_servers import AT_ONCE, PARAMS, WAITS, bare, bare_tasks, door
from bench._rpc_table import Rows

CONNECTIONS = 100
WAYS = {  # the server, the call, whether it is held to the bar
    "bare": ("bare", AT_ONCE, False),
    "bare, a task each": ("tasks", WAITS, False),
    "door": ("door", AT_ONCE, True),
    "door, waits": ("door", WAITS, True),
}
RATES = {2_500: 1.0, 20_000: 2.0}  # a second; the most that p99 may be, ms


def measure(seconds: float, rounds: int) -> Rows:
    """Let both kinds of calls take turns with the bare protocol, which shows what is the machine's and the client's."""
    rows = Rows()
    with serving({"bare": bare, "tasks": bare_tasks, "door": door}) as servers:
        for _ in range(rounds):
            for per_s, most_ms in RATES.items():
                for name, (server, method, held) in WAYS.items():
                    took = open_loop(servers[server].path, seconds, CONNECTIONS, per_s, method, PARAMS)
                    what = f"{name}, {per_s}/s"
                    rows.add(f"{what}, p99 ms", took.quantile_ms(0.99), most=most_ms if held else None)
                    rows.add(f"  {what}, p50 ms", took.quantile_ms(0.5))
                    share = 100 * (1 - took.lost / (took.lost + took.count))
                    rows.add(f"{what}, % answered", share, least=100 if held else None)
    return rows
