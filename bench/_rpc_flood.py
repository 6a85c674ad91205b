"""How long a call takes while another connection sends without a pause."""

from __future__ import annotations

from bench._rpc_load import calls, closed_loop, flood
from bench._rpc_process import elsewhere, serving
from bench._rpc_servers import AT_ONCE, PARAMS, WAITS, door
from bench._rpc_table import Rows

MOST_MS = 10.0
_BATCH = 5000  # more than may be in flight: no id comes twice at a time
_FLOODS = {"calls": calls(AT_ONCE, PARAMS, _BATCH), "calls that wait": calls(WAITS, PARAMS, _BATCH)}
_LEAD_S = 0.5  # the flood begins and ends beside the probe


def measure(seconds: float, rounds: int) -> Rows:
    """Let each flood come by itself; the flood is a process of its own."""
    rows = Rows()
    with serving({"door": door}) as servers, elsewhere() as submit:
        path = servers["door"].path
        submit(flood, path, 0.05, _FLOODS["calls"]).result()  # the process is up
        for _ in range(rounds):
            alone = closed_loop(path, seconds / 2, 1, calls(AT_ONCE, PARAMS))
            rows.add("  no flood, p99 ms", alone.quantile_ms(0.99))
            for what, request in _FLOODS.items():
                flooding = submit(flood, path, seconds + 2 * _LEAD_S, request)
                took = closed_loop(path, seconds, 1, calls(AT_ONCE, PARAMS))
                rows.add(f"a flood of {what}: another's p99 ms", took.quantile_ms(0.99), most=MOST_MS)
                rows.add(f"  a flood of {what}: another's p50 ms", took.quantile_ms(0.5))
                calls_per_s = flooding.result() / len(request) * _BATCH / (seconds + 2 * _LEAD_S)
                rows.add(f"  {what} of the flood a second", calls_per_s)
    return rows
