"""What the warm pool brings, and what it costs: claims, agents one by one, hits, memory, what is left behind.

    python -m bench pool [--quick] [--rounds N] [--part claim|seed|traces|memory|cycles] [--set KEY=VALUE]

Temporary instances with demo agents, plain ones and ones that need 2 s longer to boot; the baseline of each part is
the same agents without the pool, or with one that does not grow, in the same run. An agent's prompt is `submitted`
when its program says that it was given it, by its own note of the time. `delivered` is the message's state; an
agent's acknowledgement counts as well, for it may be the earlier one. CPU is that of the daemon, tmux and all agents,
counted from before the pool is filled until the last agent has ended: work that is done in advance is in it, and that
for nobody, for the pool is full again at the end. /proc is read, so Linux only. The daemon is told to boot under any
load (pool.load_max), and that its agents are small (pool.slot_mb); but for the traces, which have the usual limits,
it may begin as many boots a minute as it likes. `--rounds` counts cycles in that part.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys

from bench import _pool_claim, _pool_cycles, _pool_memory, _pool_seed, _pool_traces

PARTS = {
    "claim": _pool_claim.run,
    "seed": _pool_seed.run,
    "traces": _pool_traces.run,
    "memory": _pool_memory.run,
    "cycles": _pool_cycles.run,
}


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer agents and rounds")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the daemon")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else it would leave its instance behind
    print(f"python {platform.python_version()}, {os.cpu_count()} cpus, {sys.platform}", flush=True)
    for part in [options.part] if options.part else PARTS:
        print(f"\n-- {part}", flush=True)
        PARTS[part](options.quick, options.rounds, options.set)
    return 0


if __name__ == "__main__":
    sys.exit(main())
