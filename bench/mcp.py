"""How long from the start of `agentd mcp` until its client has the list of tools, and what does one use of a tool cost?

    python -m bench.mcp [--quick]

A daemon of its own, one agent whose program is `cat`; starts take turns with `python -c pass`, uses with the same call
by the thin client over its own connection. Prints medians and 95th percentiles. Run it from an installed package: an
editable one is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentd.client import Client, connect
from bench.cli import BASELINE, agentd, instance, took_ms

READER = """
command = "cat"
delivery = "pull"
[[rules]]
state = "idle"
screen = ''
"""
HELLO = [
    {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "bench", "version": "1"},
        },
    },
    {"jsonrpc": "2.0", "method": "notifications/initialized"},
]


class Server:
    """One `agentd mcp`, asked line by line."""

    def __init__(self, environ: dict[str, str]) -> None:
        self.process = subprocess.Popen([*agentd(), "mcp"], env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.ask(*HELLO)

    def ask(self, *messages: dict[str, Any]) -> Any:
        """Send messages and return the answer to the one that is answered."""
        self.process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def start_ms(environ: dict[str, str]) -> float:
    """Start one and return how long its list of tools took."""
    started_s = time.perf_counter()
    server = Server(environ)
    answer = server.ask({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
    spent_ms = (time.perf_counter() - started_s) * 1000
    assert answer["result"]["tools"]
    server.end()
    return spent_ms


def timed_ms(action: Callable[[], Any]) -> float:
    started_s = time.perf_counter()
    action()
    return (time.perf_counter() - started_s) * 1000


def starts(environ: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Return the times of starts, taken in turns."""
    times: dict[str, list[float]] = {BASELINE: [], "agentd mcp, to its tools": []}
    for number in range(rounds + 1):
        taken = (took_ms([sys.executable, "-c", "pass"], environ), start_ms(environ))
        if number:  # the first round warms the caches
            for values, spent_ms in zip(times.values(), taken, strict=True):
                values.append(spent_ms)
    return times


def uses(environ: dict[str, str], client: Client, rounds: int) -> dict[str, list[float]]:
    """Return the times of one call and of the same by a tool, taken in turns."""
    server = Server(environ)
    use = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    ways = {
        "agents.whoami by the client": lambda: client.call("agents.whoami"),
        "whoami by MCP": lambda: server.ask(use),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(timed_ms(way))
    server.end()
    return times


def report(times: dict[str, list[float]]) -> None:
    base = statistics.median(next(iter(times.values())))
    for name, values in times.items():
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[18]
        print(f"{name:28} {p50:8.2f} {p95:8.2f} {p50 / base:6.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    rounds = 10 if parser.parse_args().quick else 100
    with instance() as (environ, served):
        if not served:
            raise SystemExit("bench: no daemon, nothing to measure")
        directory = Path(environ["AGENTD_DIR"])
        (directory / "profiles").mkdir()
        (directory / "profiles" / "reader.toml").write_text(READER)
        subprocess.run([*agentd(), "restart"], env=environ, check=True, capture_output=True)
        with connect(environ=environ, autostart=False) as operator:
            agent = operator.call("agents.spawn", profile="reader", cwd=str(directory))["agents"][0]
        token = directory / "agents" / agent["id"] / "token"
        identity = {"AGENTD_SOCKET": str(directory / "agentd.sock"), "AGENTD_TOKEN_FILE": str(token)}
        print(f"{'ms':28} {'p50':>8} {'p95':>8} {'ratio':>6}")
        report(starts({**environ, **identity}, rounds))
        with connect(environ=identity, autostart=False) as client:
            report(uses({**environ, **identity}, client, 10 * rounds))
    print(f"\n{' '.join(agentd())}, python {sys.version.split()[0]}, {os.cpu_count()} cpus, {rounds} rounds")


if __name__ == "__main__":
    main()
