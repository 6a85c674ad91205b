"""One program with a time limit, in a session of its own, ended with all of its group when the caller goes away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import Final

import anyio

from agentd.tmux.processes import is_alive, start_of

Take = Callable[[bytes], object]

GRACE_S: Final = 5.0  # between asking a group to end and ending it
LAST_WORDS_S: Final = 2.0  # for what was printed just before the end; what a program left running may hold the pipe


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended; `status` is None when its time was up, `whole` tells that all of its output was read."""

    status: int | None
    whole: bool


async def run(
    argv: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    umask: int,
    timeout_s: float,
    out: Take,
    err: Take | None = None,
    given: bytes = b"",
    held: Sequence[int] = (),
    grace_s: float = GRACE_S,
    last_words_s: float = LAST_WORDS_S,
) -> Ended:
    """Run a program to its end or to the end of its time; raises OSError or ValueError when it cannot be started.

    It reads `given`. Without `err` both outputs go to `out`. The descriptors `held` stay open as long as anything of
    it lives. What it leaves running when it ends by itself is its user's.
    """
    async with AsyncExitStack() as stack:
        stdin = stack.enter_context(_holding(given))
        pipes = [await stack.enter_async_context(_pipe(take)) for take in (out, err) if take]
        with anyio.CancelScope(shield=True):  # cancelled in the middle, nobody would know of the child
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=stdin,
                stdout=pipes[0].writing,
                stderr=pipes[1].writing if err else subprocess.STDOUT,
                cwd=cwd,
                env=env,
                umask=umask,
                start_new_session=True,
                pass_fds=tuple(held),
            )
        for pipe in pipes:
            pipe.close_writing()
        status = await _end_of(process, timeout_s, grace_s)
        with anyio.move_on_after(last_words_s):
            for pipe in pipes:
                await pipe.ended.wait()
        return Ended(status, all(pipe.ended.is_set() for pipe in pipes))


class _Pipe(asyncio.Protocol):
    """What a program prints, given on as it comes."""

    def __init__(self, take: Take, writing: int) -> None:
        self._take = take
        self.writing = writing
        self.ended = asyncio.Event()

    def close_writing(self) -> None:
        """Leave the writing end to the program."""
        if self.writing >= 0:
            os.close(self.writing)
            self.writing = -1

    def data_received(self, data: bytes) -> None:
        """Give on what was printed."""
        self._take(data)

    def connection_lost(self, _error: Exception | None) -> None:
        """Take in that nobody can print any more."""
        self.ended.set()


@asynccontextmanager
async def _pipe(take: Take) -> AsyncIterator[_Pipe]:
    reading, writing = os.pipe()
    pipe = _Pipe(take, writing)
    with os.fdopen(reading, "rb") as file:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: pipe, file)
        try:
            yield pipe
        finally:
            pipe.close_writing()
            transport.close()


@contextlib.contextmanager
def _holding(given: bytes) -> Iterator[int]:
    """Give a descriptor from which this can be read."""
    if not given:
        yield subprocess.DEVNULL
        return
    with TemporaryFile() as file:
        file.write(given)
        file.seek(0)
        yield file.fileno()


async def _end_of(process: asyncio.subprocess.Process, timeout_s: float, grace_s: float) -> int | None:
    started = start_of(process.pid)
    with anyio.move_on_after(timeout_s):
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                with anyio.CancelScope(shield=True):
                    if is_alive(started):  # else its pid may be another's by now
                        await _end(process, grace_s)
                    await process.wait()
    return None


async def _end(process: asyncio.subprocess.Process, grace_s: float) -> None:
    if grace_s:
        _signal_group(process, signal.SIGTERM)
        with anyio.move_on_after(grace_s):
            await process.wait()
    _signal_group(process, signal.SIGKILL)  # also when its leader obeyed: others of the group may not have
    await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS refuses a group of dead ones only
        os.killpg(process.pid, number)
