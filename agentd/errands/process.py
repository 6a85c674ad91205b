"""One command of the user's: a process group of its own, with a time limit, little input and little output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from tempfile import TemporaryFile

import anyio

from agentd.agents.text import sanitise
from agentd.tmux.processes import is_alive, start_of

OUTPUT_BYTES = 4_096  # of what it prints; the rest is read and forgotten
_LAST_WORDS_S = 0.1  # for what it printed just before its end


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended; `error` is empty when it ended with status 0."""

    error: str = ""
    output: str = ""


async def run(argv: Sequence[str], given: bytes, env: Mapping[str, str], umask: int, timeout_s: float) -> Done:
    """Run a command to its end, or to the end of its time: then it is killed with all of its process group.

    What it leaves running when it ends by itself is the user's.
    """
    with TemporaryFile() as stdin:
        stdin.write(given)
        stdin.seek(0)
        reading, writing = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin.fileno(),
                stdout=writing,
                stderr=subprocess.STDOUT,
                env=env,
                cwd=env.get("HOME") or "/",
                umask=umask,
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            os.close(reading)
            why = error.strerror or error if isinstance(error, OSError) else error
            return Done(f"{argv[0]} cannot be run: {why}")
        finally:
            os.close(writing)
        output = _Output()
        with os.fdopen(reading, "rb") as pipe:
            transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: output, pipe)
            try:
                how = await _ended(process, timeout_s)
                with anyio.move_on_after(_LAST_WORDS_S):  # a child of its may hold the other end for long
                    await output.ended.wait()
            finally:
                transport.close()
        return Done(how, sanitise(output.kept.decode("utf-8", "replace")).strip())


class _Output(asyncio.Protocol):
    """The beginning of what a command prints; it can always print on."""

    def __init__(self) -> None:
        self.kept = b""
        self.ended = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keep what there is room for."""
        self.kept += data[: OUTPUT_BYTES - len(self.kept)]

    def connection_lost(self, _error: Exception | None) -> None:
        """Take in that nobody can print any more."""
        self.ended.set()


async def _ended(process: asyncio.subprocess.Process, timeout_s: float) -> str:
    """Wait for a process; return what was wrong with its end."""
    started = start_of(process.pid)
    with anyio.move_on_after(timeout_s):
        try:
            status = await process.wait()
            return "" if status == 0 else _how(status)
        finally:
            if process.returncode is None and is_alive(started):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)
                with anyio.CancelScope(shield=True):
                    await process.wait()
    return f"it was killed after {timeout_s:g} s"


def _how(status: int) -> str:
    if status > 0:
        return f"it exited with status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"
