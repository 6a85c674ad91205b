"""The command line in this process, with an instance of its own where no daemon runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from serving import Served, serving_in_thread

from agentd.cli import main

NOT_OURS = ("AGENTD_", "TMUX", "XDG_", "NO_COLOR")


@dataclass(frozen=True)
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give the AGENTD_DIR of an instance without a daemon, in which none is started."""
    for name in list(os.environ):
        if name.startswith(NOT_OURS):
            monkeypatch.delenv(name)
    place = tmp_path / "d"
    monkeypatch.setenv("AGENTD_DIR", str(place))
    monkeypatch.setenv("AGENTD_AUTOSTART", "0")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield place


@pytest.fixture
def agentd(directory: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Give a function that runs one command line."""

    def run(*argv: str) -> Ran:
        capsys.readouterr()
        code = main(argv)
        done = capsys.readouterr()
        assert "Traceback" not in done.err
        return Ran(code, done.out, done.err)

    return run


@pytest.fixture
def served(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Give a real door at AGENTD_SOCKET, with answers that a test can set."""
    path = str(tmp_path / "s")
    monkeypatch.setenv("AGENTD_SOCKET", path)
    with serving_in_thread(path) as door:
        yield door
