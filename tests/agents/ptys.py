"""Programs on a terminal that a test holds, behind the shim or not."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import subprocess
import termios
import time
from collections.abc import Callable

from panes import DEADLINE_S

from agentd.agents.shimmed import shimmed


class Run:
    """A program behind the shim, on a terminal that the test holds."""

    def __init__(self, *argv: str, shim: bool = True) -> None:
        self.master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x1e\x00\x64\x00\x00\x00\x00\x00")
        self.process = subprocess.Popen(
            shimmed(list(argv)) if shim else list(argv),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  there are no threads here
        )
        os.close(slave)
        self.seen = b""

    def until(self, wanted: bytes) -> bytes:
        """Read until it has printed something."""
        self._read(lambda: wanted in self.seen)
        assert wanted in self.seen, self.seen[-500:]
        return self.seen

    def rest(self) -> bytes:
        """Read until its end."""
        self._read(lambda: False)
        return self.seen

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def ended(self) -> int:
        return self.process.wait(DEADLINE_S)

    def _read(self, enough: Callable[[], bool]) -> None:
        end = time.monotonic() + DEADLINE_S
        while not enough():
            ready, _, _ = select.select([self.master], [], [], max(0.0, end - time.monotonic()))
            try:
                data = os.read(self.master, 65_536) if ready else b""
            except OSError:
                return
            if not data:
                return
            self.seen += data

    def end(self) -> None:
        """End it, whatever it does."""
        with contextlib.suppress(OSError):
            os.close(self.master)
        self.process.kill()
        self.process.wait(DEADLINE_S)
