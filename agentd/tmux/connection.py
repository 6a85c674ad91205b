"""One control-mode client of a tmux server: commands in, replies in order, notifications as they come.

The client gets one end of a socket pair and hands it to the server: bytes go between us and the server directly, while
the client's process sleeps. It is started by `setpriv --pdeathsig KILL` where there is one: a client that outlives us
with unread replies wedges the server. Elsewhere such orphans are ended when the server is next adopted.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import signal
import socket as sockets
from asyncio import Future
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

import anyio

from agentd.errors import Busy
from agentd.tmux.channel import Channel, text_of
from agentd.tmux.failures import Desync, TmuxTimeout, TmuxUnavailable
from agentd.tmux.meter import Meter
from agentd.tmux.notation import ControlParser, Notification, Reply, command, encode
from agentd.tmux.processes import Process, send_signal, start_of

HUB = "_agentd"  # the hidden session our clients are attached to
_CLIENT_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TERM", "TMPDIR")  # never TMUX, TMUX_PANE
OWNER = "AGENTD_CONTROL_OF"  # in a client's environment: "pid:started" of the daemon it belongs to
_END_S = 2.0  # for a client to say goodbye
_BATCH = 32  # commands to a write: tmux works on them while we prepare the next
_MAX_PENDING = 4096  # commands without a reply: a server that stands still must not fill our memory

OnNotification = Callable[[Notification], None]


@dataclass(slots=True)
class _Call:
    """A line that was sent, and who waits for its reply."""

    line: str
    reply: Future[Reply]
    sent_s: float
    deadline_s: float


class ControlConnection(asyncio.Protocol, Channel):
    """One attached control client; open and close it only behind the server's gate."""

    def __init__(self, on_notification: OnNotification, meter: Meter, log: Any) -> None:
        self._on_notification = on_notification
        self._meter = meter
        self._log = log
        self._parser = ControlParser()
        self._waiting: deque[_Call] = deque()
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._loop.time()
        self._unwritten: list[bytes] = []
        self._deadline: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._client: Process | None = None
        self._attached = self._loop.create_future()
        self._abandoned = False
        self._why = ""
        self.ready = False  # whether commands can be sent; kept, because every command asks for it several times
        self.lost = asyncio.Event()

    @classmethod
    async def open(
        cls, argv: Sequence[str], flags: str, *, on_notification: OnNotification, meter: Meter, log: Any
    ) -> ControlConnection:
        """Attach to the hub with the flags, and wait for as long as that takes.

        `argv` is the tmux program with its server options. A client that is still connecting is never killed: that can
        kill the server. When the wait is cancelled the client says goodbye by itself as soon as it is attached.
        """
        connection = cls(on_notification, meter, log)
        with anyio.CancelScope(shield=True):  # short, and half of it would leave a client nobody knows
            await connection._start([*argv, "-N", "-u", "-C", "attach-session", "-E", "-t", f"={HUB}", "-f", flags])
        try:
            await asyncio.shield(connection._attached)
        except asyncio.CancelledError:
            connection._abandon()
            raise
        return connection

    @property
    def why(self) -> str:
        """Return why it ended; empty while it has not."""
        return self._why

    @property
    def pid(self) -> int:
        """Return the pid of the client's process."""
        return self._process.pid if self._process else 0

    @property
    def pending(self) -> int:
        """Return how many lines have no reply yet."""
        return len(self._waiting)

    @property
    def waits_s(self) -> float:
        """Return for how long the oldest line without a reply has been waiting; 0 while there is none."""
        return self._loop.time() - self._waiting[0].sent_s if self._waiting else 0.0

    @property
    def silent_s(self) -> float:
        """Return for how long nothing was heard."""
        return self._loop.time() - self._heard_s

    # -- commands

    async def ask(self, line: str, *, timeout_s: float | None) -> Reply:
        """Send one line with one command (see Channel)."""
        return await self._write([line], self._parser.expect, timeout_s)

    async def capture(self, line: str, facts: str, target: str, *, timeout_s: float | None) -> Reply:
        """Send a capture and a format in one write (see Channel)."""
        nonce = secrets.token_hex(16)
        lines = [line, command("display-message", "-p", "-t", target, nonce + facts)]
        return await self._write(lines, lambda: self._parser.expect_capture(nonce), timeout_s)

    async def frame(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Send commands that give any number of blocks (see Channel)."""
        nonce = secrets.token_hex(16)
        framed = [*lines, command("display-message", "-p", nonce)]
        return await self._write(framed, lambda: self._parser.expect_frame(nonce), timeout_s)

    async def sequence(self, lines: Sequence[str], *, timeout_s: float | None) -> Reply:
        """Send commands that depend on each other, in one write (see Channel)."""
        joined = [" ; ".join(lines)]
        return await self._write(joined, lambda: self._parser.expect_sequence(len(lines)), timeout_s)

    def post(self, *arguments: str) -> None:
        """Send one command whose reply nobody waits for; a lost connection is found out elsewhere."""
        if self.ready:
            self._write([command(*arguments)], self._parser.expect, None)

    def _write(self, lines: Sequence[str], expect: Callable[[], None], timeout_s: float | None) -> Future[Reply]:
        if not self.ready:
            raise TmuxUnavailable(f"the connection to tmux is closed: {self._why or 'it was not opened'}")
        if len(self._waiting) >= _MAX_PENDING:
            raise Busy(f"{_MAX_PENDING} commands wait for tmux already; this one was not sent")
        data = encode("\n".join(lines))
        expect()
        sent_s = self._meter.sent()
        call = _Call(lines[0], self._loop.create_future(), sent_s, sent_s + (inf if timeout_s is None else timeout_s))
        self._waiting.append(call)
        self._watch(call.deadline_s)
        if not self._unwritten:  # what is asked in one turn of the loop goes out in few writes
            self._loop.call_soon(self._flush)
        self._unwritten.append(data)
        if len(self._unwritten) >= _BATCH:
            self._flush()
        return call.reply

    def _flush(self) -> None:
        data, self._unwritten = b"".join(self._unwritten), []
        if data and self._transport is not None and not self._why:
            self._transport.write(data)

    def _watch(self, deadline_s: float) -> None:
        """Have one timer for all that wait: it is due when the first of them is."""
        if deadline_s == inf or (self._deadline is not None and self._deadline.when() <= deadline_s):
            return
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._deadline = None
        late = [call for call in self._waiting if call.deadline_s <= self._loop.time()]
        if not late:
            self._watch(min((call.deadline_s for call in self._waiting), default=inf))
            return
        self._meter.timed_out(late[0].sent_s)
        for call in late:
            why = f"tmux did not answer `{call.line.partition(' ')[0]}` within {call.deadline_s - call.sent_s:.3g} s"
            if not call.reply.done():
                call.reply.set_exception(
                    TmuxTimeout(why, hint="agentd reconnects by itself; see whether the tmux server is stopped")
                )
                call.reply.exception()  # whoever waited may be gone
        self.drop(why)

    # -- the end

    async def close(self) -> None:
        """Say goodbye and wait until the server has let go."""
        if self._transport is not None and not self.lost.is_set():
            if self._transport.can_write_eof() and not self._transport.is_closing():
                self._transport.write_eof()
            with anyio.move_on_after(_END_S):
                await self.lost.wait()
        self.drop("closed")
        await self._reap()

    def drop(self, why: str) -> None:
        """End the connection at once; commands under way fail."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()
        self._fail_waiting()
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._attached.done():  # a client that is still connecting must not be killed
            self._kill()

    def _end(self, why: str) -> None:
        self._why = self._why or why
        self.ready = False

    async def _reap(self) -> None:
        if self._process is not None and self._attached.done():
            with anyio.move_on_after(_END_S, shield=True):
                await self._process.wait()

    def _kill(self) -> None:
        if self._client is not None:  # asyncio's own kill() may reap it, and its watcher then complains
            send_signal(self._client, signal.SIGKILL)

    def _abandon(self) -> None:
        self._abandoned = True
        if self._attached.done():
            self._goodbye()

    def _goodbye(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write_eof()

    def _fail_waiting(self) -> None:
        while self._waiting:
            future = self._waiting.popleft().reply
            if not future.done():
                future.set_exception(TmuxUnavailable(f"the connection to tmux was lost: {self._why}"))
                future.exception()  # whoever waited may be gone

    # -- bytes

    async def _start(self, argv: Sequence[str]) -> None:
        ours, theirs = sockets.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                *_dies_with_us(),
                *argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=asyncio.subprocess.DEVNULL,
                env={**client_environment(), OWNER: mark_of(start_of(os.getpid()))},
                start_new_session=True,  # a Ctrl-C in the daemon's terminal is not for our clients
            )
        except OSError as error:
            ours.close()
            raise TmuxUnavailable(f"cannot run {argv[0]}: {error.strerror}", hint="is tmux installed?") from None
        finally:
            theirs.close()
        self._client = start_of(self._process.pid)
        await self._loop.create_unix_connection(lambda: self, sock=ours)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (asyncio)."""
        self._transport = transport  # type: ignore[assignment]  # a socket's transport is always a full one

    def data_received(self, data: bytes) -> None:
        """Take in bytes (asyncio)."""
        self._heard_s = self._loop.time()
        try:
            heard = self._parser.feed(data)
        except Desync as error:
            self.drop(error.message)
            return
        for each in heard:
            if isinstance(each, Reply):
                self._take_reply(each)
            else:
                self._take_notification(each)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail what waits (asyncio)."""
        self._end(f"tmux closed it{f' ({exc})' if exc else ''}")
        if not self._attached.done():
            self._attached.set_exception(TmuxUnavailable(f"tmux did not let us in: {self._why}"))
            self._attached.exception()
        self._fail_waiting()
        self.lost.set()

    def _take_reply(self, reply: Reply) -> None:
        if reply.ours:
            if not self._waiting:
                return  # a listener ended the connection in the middle of what was read
            call = self._waiting.popleft()
            self._meter.answered(call.sent_s, self._heard_s, ok=reply.ok)
            if not call.reply.done():
                call.reply.set_result(reply)
        elif not self._attached.done():
            if not reply.ok:
                self._end(text_of(reply))
                return  # its end follows
            self._attached.set_result(None)
            self.ready = not self._why
            if self._abandoned:
                self._goodbye()

    def _take_notification(self, notification: Notification) -> None:
        if notification.name == b"exit":
            self._end(f"tmux said goodbye {notification.rest.decode('utf-8', 'replace')}".strip())
            return
        try:
            self._on_notification(notification)
        except Exception:  # noqa: BLE001  whatever a listener does wrong, replies must go on
            self._log.exception("a listener failed on a tmux notification", notification=notification.name.decode())


def client_environment() -> dict[str, str]:
    """Return what a tmux client of ours sees of our environment."""
    return {name: os.environ[name] for name in _CLIENT_ENVIRONMENT if name in os.environ}


def mark_of(owner: Process) -> str:
    """Return what a client's environment says of the daemon it belongs to."""
    return f"{owner.pid}:{owner.started}"


def _dies_with_us() -> list[str]:
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL"] if setpriv else []
