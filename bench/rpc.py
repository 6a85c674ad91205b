"""What does the RPC door cost beside the least that asyncio can do, and beside what others would use instead?

    python -m bench.rpc [--quick] [--part NAME]... [--rounds N] [--seconds S]

Servers are processes of their own and the load is another one, the same bytes for each server that speaks our frames.
Within a round the servers take short turns, so that the machine's mood hits all; ratios are of one round, and what is
printed is their median, the least and the most. Every figure with a bar stands in one table at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable

from bench import _rpc_ceiling, _rpc_durable, _rpc_fanout, _rpc_flood, _rpc_list, _rpc_memory, _rpc_open, _rpc_peers
from bench._boxes import progress
from bench._rpc_table import Row, Rows, show, show_bars

Part = Callable[[float, int], Rows]
PARTS: dict[str, tuple[str, Part]] = {
    "ceiling": ("calls, beside a bare asyncio.Protocol that packs the same answer", _rpc_ceiling.measure),
    "peers": ("calls, beside other servers", _rpc_peers.measure),
    "open": ("calls that come at a fixed rate over 100 connections", _rpc_open.measure),
    "list": ("the list of 1,000 agents, 10 connections", _rpc_list.measure),
    "fanout": ("events to 100 subscribers", _rpc_fanout.measure),
    "memory": ("memory of the door's process", _rpc_memory.measure),
    "flood": ("a call a time on one connection while another floods", _rpc_flood.measure),
    "durable": ("messages.send of 1,000 callers, each on its own connection", _rpc_durable.measure),
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter turns, fewer rounds")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this one; may be given again")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of one turn")
    given = parser.parse_args()
    seconds = given.seconds or (0.25 if given.quick else 0.5)
    rounds = given.rounds or (3 if given.quick else 9)
    rows: list[Row] = []
    for name in given.part or PARTS:
        title, measure = PARTS[name]
        progress(title)
        part = list(measure(seconds, rounds))
        progress("")
        show(f"{name}: {title}", part)
        rows += part
    show_bars(rows)
    print(f"\n{rounds} rounds of {seconds:g} s; python {sys.version.split()[0]}, {os.cpu_count()} cpus, {sys.platform}")


if __name__ == "__main__":
    main()
