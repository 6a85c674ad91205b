"""Git as the tests run it: as nobody in particular, and without anybody's configuration."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

WHO = {f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


def git(place: Path, *words: str) -> str:
    """Run a git command in a directory; return what it printed."""
    environ = {**os.environ, **WHO, "GIT_CONFIG_GLOBAL": os.devnull}
    done = subprocess.run(["git", *words], cwd=place, env=environ, capture_output=True, text=True, check=True)
    return done.stdout
