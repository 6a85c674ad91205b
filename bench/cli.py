"""How long does a whole `agentd` process take, beside the same interpreter doing nothing?

    python -m bench.cli [--quick]

The commands take turns with `python -c pass` within each round, so that the machine's mood hits all; prints medians,
95th percentiles and the ratio of the medians, of the time on the clock and of the processor's time (user and system),
which says more on a busy machine. A daemon of its own serves them; where it cannot start, those that need one are
measured up to their refusal and are marked so. Run it from an installed wheel, with the Python it is installed in: an
editable one is slower.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

BASELINE = "python -c pass"
COMMANDS = {
    "ls": ["ls"],
    "ls --json": ["ls", "--json"],
    "status": ["status"],
    "send": ["send", "operator", "hello"],
    "msg": ["msg", "ID"],
    "--help": ["--help"],
    "version": ["version"],
}
NEED_DAEMON = ("ls", "ls --json", "status", "send", "msg")


class Took(NamedTuple):
    """What one process took."""

    wall_ms: float
    cpu_ms: float


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


def message_id(environ: dict[str, str]) -> str:
    """Return the id of a message to ask for."""
    argv = [*agentd(), "send", "operator", "hello", "--json"]
    sent = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    return str(json.loads(sent.stdout).get("id", "m000000000000")) if sent.stdout else "m000000000000"


def took(argv: list[str], environ: dict[str, str]) -> Took:
    """Run a process to its end and return how long that took."""
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in range(3)]
    started = time.perf_counter()
    pid = os.posix_spawn(argv[0], argv, environ, file_actions=nowhere)
    _, _, used = os.wait4(pid, 0)
    return Took((time.perf_counter() - started) * 1000, (used.ru_utime + used.ru_stime) * 1000)


def measure(environ: dict[str, str], rounds: int) -> dict[str, list[Took]]:
    """Return each command's times, taken in turns."""
    id_ = message_id(environ)
    cases = {BASELINE: [sys.executable, "-c", "pass"]}
    cases |= {name: [*agentd(), *(id_ if word == "ID" else word for word in argv)] for name, argv in COMMANDS.items()}
    times: dict[str, list[Took]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, argv in cases.items():
            spent = took(argv, environ)
            if number:  # the first round warms the caches
                times[name].append(spent)
    return times


def report(times: dict[str, list[Took]], *, served: bool) -> None:
    """Print a table."""
    base = [statistics.median(column) for column in zip(*times[BASELINE], strict=True)]
    print(f"{'whole process':20} {'p50 ms':>8} {'p95 ms':>8} {'ratio':>6} {'cpu p50':>8} {'ratio':>6}")
    for name, values in times.items():
        label = name if served or name not in NEED_DAEMON else f"{name} (refused)"
        walls, cpus = zip(*values, strict=True)
        p50, cpu, p95 = statistics.median(walls), statistics.median(cpus), statistics.quantiles(walls, n=20)[18]
        print(f"{label:20} {p50:8.1f} {p95:8.1f} {p50 / base[0]:6.2f} {cpu:8.1f} {cpu / base[1]:6.2f}")
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
