"""One command of the user's: with a time limit, little input and little output."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from agentd.agents import child
from agentd.agents.text import sanitise

OUTPUT_BYTES: Final = 4_096  # of what it prints; the rest is read and forgotten
LAST_WORDS_S: Final = 0.1  # for what it printed just before its end


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended; `error` is empty when it ended with status 0."""

    error: str = ""
    output: str = ""


async def run(argv: Sequence[str], given: bytes, env: Mapping[str, str], umask: int, timeout_s: float) -> Done:
    """Run a command to its end, or to the end of its time: then it is killed with all of its process group."""
    output = _Output()
    try:
        ended = await child.run(
            argv,
            cwd=env.get("HOME") or "/",
            env=env,
            umask=umask,
            timeout_s=timeout_s,
            out=output.add,
            given=given,
            grace_s=0.0,
            last_words_s=LAST_WORDS_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = error.strerror or error if isinstance(error, OSError) else error
        return Done(f"{argv[0]} cannot be run: {why}")
    how = f"it was killed after {timeout_s:g} s" if ended.status is None else _how(ended.status)
    return Done(how, sanitise(output.kept.decode("utf-8", "replace")).strip())


class _Output:
    """The beginning of what a command prints; it can always print on."""

    def __init__(self) -> None:
        self.kept = b""

    def add(self, data: bytes) -> None:
        """Keep what there is room for."""
        self.kept += data[: OUTPUT_BYTES - len(self.kept)]


def _how(status: int) -> str:
    if status >= 0:
        return f"it exited with status {status}" if status else ""
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"
