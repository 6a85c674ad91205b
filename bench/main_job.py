"""What the main job costs through the daemon: list, status, spawn, send, batch, beside libtmux and a fork of tmux.

    python -m bench main_job [--quick]

One temporary instance; the client is this process, the daemon another. libtmux and the fork do the nearest thing they
can, on the same tmux server, in the same rounds: they type text and know nothing of receipts, so `send` ours is durable
and theirs is not. Every figure is the median of its rounds; the ratio is theirs / ours, from the medians; spread is
(slowest - fastest) / median.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import libtmux

from agentd.client import Client, connect

AGENTS = 20
SPAWN = 5
BATCH = 1000
SHARE = 100  # of a batch that the others are asked to type, and then scaled: all of it would take minutes


@contextmanager
def instance(*settings: str) -> Iterator[tuple[Client, str]]:
    """Give a client of a temporary instance with some settings, and its tmux socket."""
    directory = tempfile.mkdtemp(prefix="agd-bench-", dir="/tmp")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))} | {"AGENTD_DIR": directory}
    agentd = [sys.executable, "-m", "agentd"]
    words = [word for setting in settings for word in ("--set", setting)]
    subprocess.run([*agentd, "up", *words], env=environ, check=True, capture_output=True)
    try:
        with connect(environ=environ) as client:
            yield client, f"{directory}/tmux-0.sock"
    finally:
        subprocess.run([*agentd, "down", "--agents", "stop"], env=environ, check=True, capture_output=True)
        shutil.rmtree(directory)


class Bench:
    """The three ways to do each thing."""

    def __init__(self, client: Client, socket: str) -> None:
        self.client = client
        self.socket = socket
        self.server = libtmux.Server(socket_path=socket)
        self.made = 0

    def fork(self, *words: str) -> None:
        """Run tmux once."""
        subprocess.run(["tmux", "-S", self.socket, *words], check=True, capture_output=True)

    def ways(self) -> dict[str, dict[str, Callable[[], object]]]:
        """Return question -> way -> how."""
        first = self.client.call("agents.list")["agents"][0]
        pane = self.server.panes.filter(pane_id=first["pane"])[0]  # listed twice: its window is linked into the hub too
        target = first["pane"]
        items = [{"to": f"demo-{n % AGENTS + 1}", "body": f"item {n}"} for n in range(BATCH)]
        return {
            f"list of {AGENTS}": {
                "agentd": lambda: self.client.call("agents.list"),
                "libtmux": lambda: list(self.server.sessions),
                "fork": lambda: self.fork("list-sessions"),
            },
            "status of one": {
                "agentd": lambda: self.client.call("agents.explain", {"target": "demo-1"}),
                "libtmux": lambda: (pane.refresh(), pane.capture_pane()),
                "fork": lambda: (
                    self.fork("display-message", "-p", "-t", target, "#{pane_dead}"),
                    self.fork("capture-pane", "-p", "-t", target),
                ),
            },
            f"spawn of {SPAWN}": {"agentd": self.spawn_ours, "libtmux": self.spawn_libtmux, "fork": self.spawn_fork},
            "send of one": {
                "agentd": lambda: self.client.send("operator", "one message"),
                "libtmux": lambda: pane.send_keys("one message", enter=False),
                "fork": lambda: self.fork("send-keys", "-t", target, "-l", "--", "one message"),
            },
            f"batch of {BATCH}": {
                "agentd": lambda: self.client.send_batch(items),
                "libtmux": lambda: [pane.send_keys("item", enter=False) for _ in range(SHARE)],
                "fork": lambda: [self.fork("send-keys", "-t", target, "-l", "--", "item") for _ in range(SHARE)],
            },
        }

    def spawn_ours(self) -> None:
        """Start agents; the answer comes when tmux has them."""
        self.client.call("agents.spawn", {"profile": "sh", "n": SPAWN})

    def spawn_libtmux(self) -> None:
        """Start sessions one by one, as libtmux does."""
        for name in self.names():
            self.server.new_session(name, window_command="sh")

    def spawn_fork(self) -> None:
        """Start sessions one by one, a fork each."""
        for name in self.names():
            self.fork("new-session", "-d", "-s", name, "sh")

    def names(self) -> list[str]:
        """Return fresh session names."""
        self.made += SPAWN
        return [f"x{n}" for n in range(self.made - SPAWN, self.made)]


def measure(ways: dict[str, dict[str, Callable[[], object]]], rounds: int) -> list[tuple[str, str, list[float]]]:
    """Time every way of a question in turn, round by round, so that a change of the machine's speed hits all."""
    rows = []
    for question, by_way in ways.items():
        times: dict[str, list[float]] = {way: [] for way in by_way}
        for _ in range(rounds):
            for way, do in by_way.items():
                started = time.perf_counter()
                do()
                scale = BATCH / SHARE if question.startswith("batch") and way != "agentd" else 1
                times[way].append((time.perf_counter() - started) * scale)
        rows += [(question, way, taken) for way, taken in times.items()]
    return rows


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 rounds instead of 10")
    rounds = 3 if parser.parse_args().quick else 10
    with instance() as (client, socket):
        client.call("agents.spawn", {"profile": "demo", "n": AGENTS})
        for n in range(1, AGENTS + 1):
            client.call("agents.wait", {"target": f"demo-{n}", "until": "idle", "timeout_s": 60.0})
        rows = measure(Bench(client, socket).ways(), rounds)
    print(f"{rounds} rounds; medians; typing a batch is scaled up from {SHARE} of {BATCH}")
    print(f"{'question':<16} {'way':<8} {'median ms':>10} {'spread':>7} {'theirs / ours':>14}")
    ours = {question: statistics.median(taken) for question, way, taken in rows if way == "agentd"}
    for question, way, taken in rows:
        median = statistics.median(taken)
        spread = (max(taken) - min(taken)) / median
        print(f"{question:<16} {way:<8} {median * 1000:>10.2f} {spread:>7.2f} {median / ours[question]:>14.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
