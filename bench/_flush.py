"""A slower disk: the same bench with a pause after each flush of its own process and of the servers it starts."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_SOURCE = Path(__file__).with_name("_slow_flush.c")
_VARIABLE = "FLUSH_US"  # what the library reads; set only in a run that is slowed


def add_option(options: argparse.ArgumentParser) -> None:
    """Give a bench the option `--flush-ms`."""
    options.add_argument("--flush-ms", type=float, default=0.0, help="let every flush to the disk take so much longer")


def flush_us() -> int:
    """Return by how much the flushes of this run are slowed."""
    return int(os.environ.get(_VARIABLE, "0"))


def slowed(flush_ms: float) -> int | None:
    """Run this bench again with slower flushes; returns its exit status, None when this is that run or none is asked.

    The flushes of several threads and processes take their time side by side, as on a disk with a queue. A program that
    does not call the C library (Go's do not) is out of reach.
    """
    if not flush_ms or flush_us():
        return None
    compiler = shutil.which("cc")
    if sys.platform != "linux" or compiler is None:
        print("bench: --flush-ms needs Linux and a C compiler named cc", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="agentd-bench-") as place:
        library = f"{place}/slow_flush.so"
        subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, str(_SOURCE), "-ldl"], check=True)
        environ = os.environ | {"LD_PRELOAD": library, _VARIABLE: str(round(flush_ms * 1000))}
        return subprocess.run([sys.executable, *sys.orig_argv[1:]], env=environ, check=False).returncode
