"""Named points at which a test may kill the process; nothing happens unless the environment asks for it."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Mapping

VARIABLE = "AGENTD_FAILPOINT"  # "name:kill@3,other:kill": the third time `name` is passed, the first time `other` is


def parse(text: str) -> dict[str, int]:
    """Return at which passing each named point kills; raises ValueError for anything else."""
    armed = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = part.partition(":")
        verb, _, count = action.partition("@")
        if verb != "kill" or not name:
            raise ValueError(f"{VARIABLE}: {part!r} is not name:kill or name:kill@N")
        armed[name] = int(count or 1)
    return armed


def _from(environ: Mapping[str, str]) -> dict[str, int]:
    return parse(environ.get(VARIABLE, ""))


_armed = _from(os.environ)
_passed: Counter[str] = Counter()


def failpoint(name: str) -> None:
    """Die here by SIGKILL when the environment armed this point and its turn has come."""
    if _armed:
        _pass(name)


def _pass(name: str) -> None:
    if name in _armed:
        _passed[name] += 1
        if _passed[name] == _armed[name]:
            os.kill(os.getpid(), signal.SIGKILL)
