"""A project's setup command: run once in a fresh worktree, with a time limit and the end of its output kept."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Final

from agentd.agents.child import run
from agentd.agents.text import sanitise
from agentd.errors import Conflict, DeadlineExceeded, InvalidValue, NotFound
from agentd.private import open_private

LOG_BYTES: Final = 65_536
_LINE_CHARS: Final = 200


async def run_setup(
    command: Sequence[str], path: str, log_path: str, timeout_s: float, environ: Mapping[str, str], umask: int
) -> None:
    """Run a command in a directory; raises what went wrong, with the last line that was printed."""
    if not command or not command[0] or any("\0" in word for word in command):
        raise InvalidValue("the setup command is empty or has a NUL character; nothing was run", field="setup")
    log = SetupLog(log_path)
    try:
        ended = await run(command, cwd=path, env=environ, umask=umask, timeout_s=timeout_s, out=log.add)
    except OSError as error:
        raise NotFound(f"`{command[0]}` cannot be run: {error.strerror}", hint="is it on the daemon's PATH?") from error
    finally:
        log.close()
    words, said, hint = f"`{' '.join(command)}`", log.last_line(), f"its output is in {log_path}"
    if ended.status is None:
        raise DeadlineExceeded(f"{words} did not end within {timeout_s:g} s and was ended; last: {said}", hint=hint)
    if ended.status != 0:
        how = f"exited with status {ended.status}" if ended.status > 0 else f"was killed by signal {-ended.status}"
        raise Conflict(f"{words} {how}; last: {said}", hint=hint)


class SetupLog:
    """The end of what a command printed, in a file that never grows beyond twice of that."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = open_private(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self._tail = b""
        self._size_bytes = 0

    def add(self, data: bytes) -> None:
        """Keep what was printed."""
        self._tail = (self._tail + data)[-LOG_BYTES:]
        if self._size_bytes + len(data) > 2 * LOG_BYTES:
            self._rewrite()
        else:
            self._write(data)

    def close(self) -> None:
        """Leave the last of it in the file."""
        if self._size_bytes > LOG_BYTES:
            self._rewrite()
        os.close(self._descriptor)

    def last_line(self) -> str:
        """Return the last line that says something."""
        lines = sanitise(self._tail[-4 * _LINE_CHARS :].decode("utf-8", "replace")).splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "nothing")[-_LINE_CHARS:]

    def _rewrite(self) -> None:
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self._size_bytes = 0
        self._write(self._tail)

    def _write(self, data: bytes) -> None:
        self._size_bytes += len(data)
        with contextlib.suppress(OSError):  # a full disk costs the log, not the setup
            os.write(self._descriptor, data)
