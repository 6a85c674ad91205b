"""What agentd costs while nothing happens, and while many agents print.

    python -m bench load [--quick]

One temporary instance with shells as agents: first all of them idle, then 60 of them printing ten lines a second each.
CPU is the processes' own time from /proc (so Linux only), as a share of one core; memory is resident size. The baseline
is tmux itself: what its servers cost in the same seconds.
"""

from __future__ import annotations

import argparse
import glob
import os
import subprocess
import sys
import time
from pathlib import Path

from agentd.client import Client
from bench.main_job import instance

PRINTING = 60
# One process that prints: forks would load the machine with what is not asked here.
PRINTS = f"exec {sys.executable} -uc 'import itertools, time; [(print(n), time.sleep(0.1)) for n in itertools.count()]'"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def cpu_s(pid: int) -> float:
    """Return the CPU time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_mb(pid: int) -> float:
    """Return a process's resident size."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES / 1e6


def servers(directory: str) -> list[int]:
    """Return the pids of the tmux servers below a directory."""
    pids = []
    for socket in glob.glob(f"{directory}/tmux*.sock"):
        asked = subprocess.run(
            ["tmux", "-N", "-S", socket, "display-message", "-p", "#{pid}"], capture_output=True, text=True, check=True
        )
        pids.append(int(asked.stdout))
    return pids


def settle(client: Client, count: int) -> float:
    """Wait until so many agents are idle; return the seconds that took."""
    started = time.perf_counter()
    while sum(row["state"] == "idle" for row in client.call("agents.list")["agents"]) < count:
        time.sleep(0.2)
    return time.perf_counter() - started


def measure(client: Client, daemon: int, tmux: list[int], seconds: float) -> dict[str, float]:
    """Return shares of a core, memory and lateness over some seconds."""
    before = {pid: cpu_s(pid) for pid in [daemon, *tmux]}
    started = time.perf_counter()
    time.sleep(seconds)
    took_s = time.perf_counter() - started
    used = {pid: (cpu_s(pid) - before[pid]) / took_s * 100 for pid in before}
    metrics = client.call("daemon.metrics")
    return {
        "daemon_cpu": used[daemon],
        "tmux_cpu": sum(used[pid] for pid in tmux),
        "daemon_mb": rss_mb(daemon),
        "tmux_mb": sum(rss_mb(pid) for pid in tmux),
        "stall_p99_ms": metrics["loop_stall_ms_p99"],
        "stall_max_ms": metrics["loop_stall_ms_max"],
    }


def show(title: str, row: dict[str, float]) -> None:
    """Print one line."""
    shares = f"{row['daemon_cpu']:>9.1f} %{row['tmux_cpu']:>9.1f} %"
    sizes = f"{row['daemon_mb']:>11.0f}{row['tmux_mb']:>10.0f}"
    print(f"{title:<28}{shares}{sizes}{row['stall_p99_ms']:>11.1f}{row['stall_max_ms']:>11.1f}", flush=True)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="100 agents, 10 seconds")
    quick = parser.parse_args().quick
    agents, seconds = (100, 10.0) if quick else (1000, 60.0)
    with instance() as (client, socket):
        daemon = client.call("daemon.status")["pid"]
        started = time.perf_counter()
        client.call("agents.spawn", {"profile": "sh", "n": agents}, timeout_s=300)
        spawned_s = time.perf_counter() - started
        ready_s = spawned_s + settle(client, agents)
        tmux = servers(str(Path(socket).parent))
        print(f"{agents} agents: in tmux after {spawned_s:.1f} s, idle after {ready_s:.1f} s, {len(tmux)} servers")
        print(
            f"{'':<28}{'daemon':>11}{'tmux':>11}{'daemon MB':>11}{'tmux MB':>10}{'stall p99':>11}{'stall max':>11}",
            flush=True,
        )
        time.sleep(5)  # what starting left behind
        show(f"{agents} idle", measure(client, daemon, tmux, seconds))
        printing = min(PRINTING, agents)
        client.send_batch([{"to": f"sh-{n}", "body": PRINTS} for n in range(1, printing + 1)])
        time.sleep(5)
        show(f"{printing} of them printing", measure(client, daemon, tmux, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
