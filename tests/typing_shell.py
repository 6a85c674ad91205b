"""A real shell at a real pseudo-terminal, into which a test types as a person does."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping

DEADLINE_S = 30.0
AGAIN_S = 2.0  # after a key that nothing came of
ESCAPES = re.compile(
    r"\x1b(?:\[[0-9;?>=<]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][0-9A-Za-z]|[=>78DEHM])|\r|\x07"
)


class TypingShell:
    """A shell, what it printed so far, and keys for it."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self.printed = ""

    def type(self, keys: str) -> None:
        """Press keys; what was printed before them is forgotten."""
        self.printed = ""
        os.write(self._descriptor, keys.encode())

    def interrupt(self, pattern: str) -> None:
        """Press Ctrl-C until something is printed: Python's readline misses one that comes as it begins to wait."""
        end_s, self.printed = time.monotonic() + DEADLINE_S, ""
        while not self.printed:
            os.write(self._descriptor, b"\x03")
            if not select.select([self._descriptor], [], [], AGAIN_S)[0]:
                assert time.monotonic() < end_s, "nothing was printed"
                continue
            self.until(pattern)

    def until(self, pattern: str) -> str:
        """Wait until something is printed; return everything since the last keys."""
        end_s = time.monotonic() + DEADLINE_S
        while not re.search(pattern, self.printed, re.DOTALL):
            left_s = end_s - time.monotonic()
            ready = select.select([self._descriptor], [], [], max(0.0, left_s))[0]
            assert ready, f"{pattern!r} was not printed, but {self.printed!r}"
            try:
                data = os.read(self._descriptor, 65536).decode(errors="replace")
            except OSError:
                data = ""
            assert data, f"it ended after {self.printed!r}"
            if "\x1b[c" in data or "\x1b[0c" in data:  # what kind of terminal are you
                os.write(self._descriptor, b"\x1b[?6c")
            self.printed += ESCAPES.sub("", data)
        return self.printed

    def ended(self) -> int:
        """Wait for its end; return its exit code."""
        end_s = time.monotonic() + DEADLINE_S
        while select.select([self._descriptor], [], [], max(0.0, end_s - time.monotonic()))[0]:
            try:
                data = os.read(self._descriptor, 65536)
            except OSError:  # Linux says so when the other side is closed
                break
            if not data:
                break
            self.printed += ESCAPES.sub("", data.decode(errors="replace"))
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)


@contextlib.contextmanager
def typing_shell(argv: list[str], environ: Mapping[str, str]) -> Iterator[TypingShell]:
    """Run a program at a pseudo-terminal; it is gone afterwards."""
    pid, descriptor = pty.fork()
    if pid == 0:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests themselves run in the background
        os.execvpe(argv[0], argv, {**environ, "TERM": "xterm"})
    shell = TypingShell(pid, descriptor)
    try:
        yield shell
    finally:
        os.close(descriptor)
        if shell.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(shell.pid, signal.SIGKILL)
            os.waitpid(shell.pid, 0)
