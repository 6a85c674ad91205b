"""What the door's calls cost beside the least that asyncio can do with the same frames."""

from __future__ import annotations

from bench._rpc_load import Answered, calls, closed_loop
from bench._rpc_process import Server, serving
from bench._rpc_servers import AT_ONCE, PARAMS, WAITS, bare, door
from bench._rpc_table import Rows

CASES = {"10 x 1": (10, 1, 0.8), "100 x 1": (100, 1, 0.8), "10 x 128": (10, 128, 0.7)}  # connections, depth, the bar
WAITS_LEAST = 0.2


def measure(seconds: float, rounds: int) -> Rows:
    """Let the servers take turns."""
    rows = Rows()
    with serving({"bare": bare, "door": door}) as servers:
        for _ in range(rounds):
            one_at_a_time(rows, servers, seconds)
            for case, (connections, depth, least) in CASES.items():
                one_round(rows, servers, case, seconds, connections, depth, least)
    return rows


def one_at_a_time(rows: Rows, servers: dict[str, Server], seconds: float) -> None:
    """Measure what one call takes when nothing else happens."""
    for name, method in (("bare", AT_ONCE), ("door", AT_ONCE), ("waits", WAITS)):
        server = servers["bare" if name == "bare" else "door"]
        took = closed_loop(server.path, seconds, 1, calls(method, PARAMS))
        for share in (50, 99):
            rows.add(f"{name}, 1 x 1, p{share} us", took.quantile_ms(share / 100) * 1e3)


def one_round(
    rows: Rows, servers: dict[str, Server], case: str, seconds: float, connections: int, depth: int, least: float
) -> None:
    """Measure the three side by side."""

    def load(server: Server, method: str) -> tuple[Answered, float]:
        before_s, _ = server.spent()
        took = closed_loop(server.path, seconds, connections, calls(method, PARAMS, depth), each=depth)
        return took, (server.spent()[0] - before_s) / took.count

    bare_, bare_cpu_s = load(servers["bare"], AT_ONCE)
    door_, door_cpu_s = load(servers["door"], AT_ONCE)
    waits, waits_cpu_s = load(servers["door"], WAITS)
    rows.add(f"bare, {case}, calls/s", bare_.per_s)
    rows.add(f"door, {case}, calls/s", door_.per_s)
    rows.add(f"door / bare, {case}", door_.per_s / bare_.per_s, least=least)
    rows.add(f"waits / bare, {case}", waits.per_s / bare_.per_s, least=WAITS_LEAST)
    rows.add(f"  CPU of bare / of door, {case}", bare_cpu_s / door_cpu_s)
    rows.add(f"  CPU of bare / of one that waits, {case}", bare_cpu_s / waits_cpu_s)
    rows.add(f"  bare, {case}, share of a CPU", bare_cpu_s * bare_.per_s)
    rows.add(f"  bare, {case}, us of CPU a call", bare_cpu_s * 1e6)
    rows.add(f"  door, {case}, us of CPU a call", door_cpu_s * 1e6)
    rows.add(f"  waits, {case}, us of CPU a call", waits_cpu_s * 1e6)
