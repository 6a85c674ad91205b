"""The log of a daemon whose disk is full: it loses lines, and says how many once it can."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import resource, sys
from agentd import logs

log = logs.to_file(sys.argv[1], "info")
log.info("before")
usual = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (0, usual[1]))
log.warning("lost")
log.warning("lost, too")
resource.setrlimit(resource.RLIMIT_FSIZE, usual)
log.info("after", text="a\\nb")
log.info("last")
"""


def test_a_disk_that_takes_no_lines_stops_nobody_who_logs(tmp_path: Path) -> None:
    file = tmp_path / "log"
    subprocess.run([sys.executable, "-c", PROGRAM, str(file)], check=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["before", "lines could not be written", "after", "last"]
    assert lines[1]["lost"] == 2
    assert lines[2]["text"] == "a\nb"
