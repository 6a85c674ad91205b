"""R14: a door without free file descriptors hangs up, waits, and serves again; it leaves some to everything else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agentd.doors.accepting import connections_for

CHILD = Path(__file__).with_name("exhausted_child.py")
CPU_SHARE = 0.5  # of a client that asks a hundred times a second, and its door


def test_who_comes_when_no_descriptor_is_free_is_hung_up_on_once(path: str):
    root = CHILD.parents[2]
    places = os.pathsep.join([str(root), str(root / "tests")])
    argv = [sys.executable, str(CHILD), path]
    done = subprocess.run(
        argv, env=os.environ | {"PYTHONPATH": places}, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told.pop("share") < CPU_SHARE
    assert told == {"said": "", "hung_up": [1], "answered": True}


@pytest.mark.parametrize(
    ("files", "open_files", "allowed"),
    [(128, 47, 33), (1024, 47, 721), (20_000, 500, 10_000), (10_240, 28, 9700), (64, 60, 1)],
)
def test_connections_leave_descriptors_to_the_rest(files: int, open_files: int, allowed: int):
    assert connections_for(10_000, files, open_files) == allowed


def test_a_limit_of_the_configuration_that_is_lower_counts():
    assert connections_for(16, 1024, 47) == 16
