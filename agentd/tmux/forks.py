"""A tmux process for each command: slow, and all there is when control mode is off or cannot be had.

Each command is guarded by the server's identity, in the server's own step: whoever answers at the socket, a command for
another server does nothing. It goes in by the standard input, so there is no limit of length and nothing to see in the
list of processes; what comes out is the reply and nothing else.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import time
from collections.abc import Sequence
from tempfile import TemporaryFile

import anyio

from agentd.errors import Busy
from agentd.tmux.breaker import Breaker
from agentd.tmux.channel import Channel
from agentd.tmux.connection import client_environment
from agentd.tmux.failures import TmuxTimeout, TmuxUnavailable
from agentd.tmux.meter import Meter
from agentd.tmux.notation import Reply, command, encode, line, quote
from agentd.tmux.processes import send_signal, start_of

AT_ONCE = 4
_MAX_WAITING = 1024
_PROBE_S = 1.0  # for a server that was silent to answer
_STRANGER = "agentd-stranger"  # printed by a server that is not the one meant
_NOBODY = (b"no server", b"error connecting", b"lost server", b"server exited", b"protocol version", b"server version")


class Forks(Channel):
    """Runs each command in a process of its own, a few at a time."""

    def __init__(self, argv: Sequence[str], server: str, breaker: Breaker) -> None:
        self._argv = [*argv, "-N", "-u", "source-file", "-"]
        self._condition = f"#{{==:#{{pid}}:#{{start_time}},{server}}}"
        self._breaker = breaker
        self._limit = anyio.CapacityLimiter(AT_ONCE)
        self.meter = Meter("forks", breaker)

    @property
    def pending(self) -> int:
        """Return how many commands run or wait for their turn."""
        return self._limit.borrowed_tokens + self._limit.statistics().tasks_waiting

    async def ask(self, line: str, *, timeout_s: float | None) -> Reply:
        """Run one command (see Channel)."""
        printed, error = await self._run([line], timeout_s)
        return Reply(printed) if error is None else Reply([error], ok=False)

    async def capture(self, line: str, facts: str, target: str, *, timeout_s: float | None) -> Reply:
        """Run a capture and a format in one process (see Channel): the last line is the format's."""
        nonce = secrets.token_hex(16)
        about = command("display-message", "-p", "-t", target, nonce + facts)
        printed, error = await self._run([line, about], timeout_s)
        if error is not None or not printed or not printed[-1].startswith(nonce.encode()):
            return Reply([error or b""], ok=False)
        return Reply(printed[:-1], frame=printed[-1][len(nonce) :])

    async def frame(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Run commands one after the other in one process (see Channel); the first error ends them."""
        printed, error = await self._run(lines, timeout_s)
        return Reply(printed if error is None else [*printed, error], ok=error is None)

    async def sequence(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Run commands that depend on each other in one process (see Channel)."""
        printed, error = await self._run(lines, timeout_s)
        return Reply(printed, ok=error is None, frame=error or b"")

    async def probe(self) -> None:
        """Ask the server whether it is there, whoever waits; the breaker hears of the answer."""
        await self._fork([command("display-message", "-p", "")], _PROBE_S)

    async def _run(self, lines: Sequence[str], timeout_s: float | None) -> tuple[list[bytes], bytes | None]:
        if self._limit.statistics().tasks_waiting >= _MAX_WAITING:
            raise Busy(f"{_MAX_WAITING} commands wait for a tmux process already; this one was not run")
        with anyio.move_on_after(timeout_s):
            async with self._limit:
                self._breaker.check()  # it may have opened while this one waited
                return await self._fork(lines, timeout_s)
        raise TmuxTimeout(f"no tmux process was free for `{lines[0].partition(' ')[0]}` within {timeout_s:g} s")

    async def _fork(self, lines: Sequence[str], timeout_s: float | None) -> tuple[list[bytes], bytes | None]:
        refuse = command("display-message", "-p", _STRANGER)
        guarded = line("if-shell", "-F", quote(self._condition), quote(" ; ".join(lines)), quote(refuse))
        sent_s = self.meter.sent()
        done = await self._exchange(encode(guarded), timeout_s)
        if done is None:
            self.meter.timed_out(sent_s)
            raise TmuxTimeout(
                f"tmux did not answer `{lines[0].partition(' ')[0]}` within {timeout_s:g} s; it was ended"
            )
        status, out, error = done
        if error.startswith(_NOBODY):
            raise TmuxUnavailable(f"tmux cannot be reached: {error.decode('utf-8', 'replace').strip()}")
        self.meter.answered(sent_s, time.monotonic(), ok=status == 0)
        printed = out.split(b"\n")[:-1]
        if printed == [_STRANGER.encode()]:
            raise TmuxUnavailable("another tmux server answers at our socket; it was left alone")
        return printed, (error.strip() or b"it gave no reason") if status else None

    async def _exchange(self, data: bytes, timeout_s: float | None) -> tuple[int, bytes, bytes] | None:
        """Return status, output and errors of one process; None when it hung and was killed.

        Through files: a frozen server keeps the client's pipes open, and their end would never come.
        """
        with TemporaryFile() as given, TemporaryFile() as out, TemporaryFile() as errors:
            given.write(data)
            given.seek(0)
            process = await self._start(given.fileno(), out.fileno(), errors.fileno())
            client = start_of(process.pid)
            with anyio.move_on_after(timeout_s):
                try:
                    await process.wait()
                finally:
                    if process.returncode is None:
                        send_signal(client, signal.SIGKILL)
                        with anyio.CancelScope(shield=True):
                            await process.wait()
                out.seek(0)
                errors.seek(0)
                return process.returncode or 0, out.read(), errors.read()
        return None

    async def _start(self, given: int, out: int, errors: int) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._argv, stdin=given, stdout=out, stderr=errors, env=client_environment(), start_new_session=True
            )
        except OSError as error:
            raise TmuxUnavailable(f"cannot run {self._argv[0]}: {error.strerror}", hint="is tmux installed?") from None
