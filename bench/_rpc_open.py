"""How long calls take that come at a fixed rate, whatever the door does."""

from __future__ import annotations

from bench._rpc_load import open_loop
from bench._rpc_process import serving
from bench._rpc_servers import AT_ONCE, PARAMS, WAITS, bare, door
from bench._rpc_table import Rows

CONNECTIONS = 100
RATES = {2_500: 1.0, 20_000: 2.0}  # a second; the most that p99 may be, ms


def measure(seconds: float, rounds: int) -> Rows:
    """Let both kinds of calls take turns with the bare protocol, which shows what is the machine's and the client's."""
    rows = Rows()
    with serving({"bare": bare, "door": door}) as servers:
        for _ in range(rounds):
            for per_s, most_ms in RATES.items():
                for name, method in (("bare", AT_ONCE), ("door", AT_ONCE), ("door, waits", WAITS)):
                    path = servers[name.split(",")[0]].path
                    took = open_loop(path, seconds, CONNECTIONS, per_s, method, PARAMS)
                    held = name != "bare"
                    what = f"{name}, {per_s}/s"
                    rows.add(f"{what}, p99 ms", took.quantile_ms(0.99), most=most_ms if held else None)
                    rows.add(f"  {what}, p50 ms", took.quantile_ms(0.5))
                    share = 100 * (1 - took.lost / (took.lost + took.count))
                    rows.add(f"{what}, % answered", share, least=100 if held else None)
    return rows
