"""The demonstration is the main job; here it has to come out whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_a_thousand_of_a_thousand_and_nothing_left_behind(tmp_path: Path):
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))} | {"HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "demo", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["asked"], report["accepted"], report["answered"]) == (1000, 1000, 1000)
    assert 0 < report["answered_before_kill"] < 1000
    assert report["pids_kept"]
    assert 0 < report["warm_ms"] < 1000 * report["ready_s"]
    assert report["left_behind"] == []
    assert list(tmp_path.iterdir()) == []
