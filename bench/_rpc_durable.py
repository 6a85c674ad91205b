"""Durable sends from 1,000 callers at once: commits that many share, beside a commit for each message."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from agentd import daemon
from agentd.paths import Paths
from bench._boxes import BODY
from bench._rpc_load import calls, closed_loop
from bench._rpc_process import allow_files, wait_for
from bench._rpc_table import Rows

CALLERS = 1000
_TO = "operator"  # an inbox that nothing empties
_SPAWN = multiprocessing.get_context("spawn")


def measure(seconds: float, rounds: int) -> Rows:
    """Let both kinds of daemons take turns, each with a mailbox of its own."""
    rows = Rows()
    allow_files()
    with _daemon(merged=True) as together, _daemon(merged=False) as apart:
        for _ in range(max(1, rounds // 2)):
            per_s = {}
            for name, path in (("group commit", together), ("one by one", apart)):
                took = closed_loop(
                    path, max(2.0, 2 * seconds), CALLERS, calls("messages.send", {"to": _TO, "body": BODY})
                )
                per_s[name] = took.per_s
                rows.add(f"{name}, messages/s", took.per_s)
                for share in (50, 99):
                    rows.add(f"  {name}, p{share} ms", took.quantile_ms(share / 100))
            rows.add("group commit / one by one", per_s["group commit"] / per_s["one by one"])
    return rows


@contextmanager
def _daemon(*, merged: bool) -> Iterator[str]:
    """Run a daemon of our own; give its socket."""
    place = tempfile.mkdtemp(prefix="agd-bench-", dir="/tmp")
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))}
    settings = {"MAX_INBOX_MESSAGES": "10000000", "GROUP_COMMIT": str(merged).lower()}
    environ = usual | {"AGENTD_DIR": place, **{f"AGENTD_MAILBOX__{name}": value for name, value in settings.items()}}
    path = Paths.find(environ).socket
    process = _SPAWN.Process(target=_run, args=(environ,))
    process.start()
    try:
        wait_for(path)
        yield path
    finally:
        down = [sys.executable, "-m", "agentd", "down", "--agents", "stop"]
        subprocess.run(down, env=environ, check=True, capture_output=True)
        process.join()
        shutil.rmtree(place)


def _run(environ: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    sys.exit(daemon.main(Paths.find(environ), [], os.open(os.devnull, os.O_WRONLY)))
