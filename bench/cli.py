"""How long does a whole `agentd` process take, beside the same interpreter doing nothing?

    python -m bench.cli [--quick]

The commands take turns with `python -c pass` within each round, so that the machine's mood hits all; prints medians,
95th percentiles and the ratio of the medians. A daemon of its own serves them; where it cannot start, `ls`, `status`
and `send` are measured up to their refusal and are marked so. Run it from an installed package: an editable one is
slower.
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
from collections.abc import Iterator
from contextlib import contextmanager

BASELINE = "python -c pass"
COMMANDS = {
    "ls": ["ls"],
    "ls --json": ["ls", "--json"],
    "status": ["status"],
    "send": ["send", "operator", "hello"],
    "--help": ["--help"],
    "version": ["version"],
}
NEED_DAEMON = ("ls", "ls --json", "status", "send")


@contextmanager
def instance() -> Iterator[tuple[dict[str, str], bool]]:
    """Give the environment of a temporary instance, and whether its daemon runs."""
    directory = tempfile.mkdtemp(prefix="agentd-bench-", dir="/tmp")
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # users' processes find our modules compiled
    environ |= {"AGENTD_DIR": directory, "AGENTD_AUTOSTART": "0"}
    up = subprocess.run([*agentd(), "up"], env=environ, capture_output=True, text=True, check=False)
    if up.returncode:
        print(f"no daemon: {up.stderr.strip()}", file=sys.stderr)
    try:
        yield environ, up.returncode == 0
    finally:
        subprocess.run([*agentd(), "down", "--agents", "stop"], env=environ, capture_output=True, check=False)
        shutil.rmtree(directory, ignore_errors=True)


def agentd() -> list[str]:
    """Return the installed command beside this interpreter, else the module."""
    script = os.path.join(os.path.dirname(sys.executable), "agentd")
    return [script] if os.access(script, os.X_OK) else [sys.executable, "-m", "agentd"]


def took_ms(argv: list[str], environ: dict[str, str]) -> float:
    """Run a process to its end and return how long that took."""
    started = time.perf_counter()
    subprocess.run(argv, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return (time.perf_counter() - started) * 1000


def measure(environ: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Return each command's times, taken in turns."""
    cases = {BASELINE: [sys.executable, "-c", "pass"]} | {name: [*agentd(), *argv] for name, argv in COMMANDS.items()}
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, argv in cases.items():
            spent_ms = took_ms(argv, environ)
            if number:  # the first round warms the caches
                times[name].append(spent_ms)
    return times


def report(times: dict[str, list[float]], *, served: bool) -> None:
    base = statistics.median(times[BASELINE])
    print(f"{'whole process':24} {'p50 ms':>8} {'p95 ms':>8} {'ratio':>6}")
    for name, values in times.items():
        label = name if served or name not in NEED_DAEMON else f"{name} (refused)"
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[18]
        print(f"{label:24} {p50:8.1f} {p95:8.1f} {p50 / base:6.2f}")
    print(
        f"\n{' '.join(agentd())}, python {sys.version.split()[0]}, {os.cpu_count()} cpus, {len(times[BASELINE])} rounds"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    quick = parser.parse_args().quick
    with instance() as (environ, served):
        report(measure(environ, rounds=10 if quick else 100), served=served)


if __name__ == "__main__":
    main()
