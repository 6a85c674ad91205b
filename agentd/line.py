"""One connection of the asynchronous client, for any number of tasks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import anyio

from agentd.calling import BACKOFF_S, Lost, too_late
from agentd.connections import connected_at_once
from agentd.errors import AgentdError
from agentd.wire.conversation import Conversation

if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812  as in the blocking client

_READ_BYTES = 65_536
CROWD = 256  # calls under way on one connection, from which on another is made; a stream counts as so many


class Line:
    """One connection. Whichever task waits for an answer reads for all of them; the others sleep until it has read."""

    def __init__(self, raw: Socket, token: str | None) -> None:
        self.talk = Conversation(token)
        self.broken: AgentdError | None = None  # what the daemon said when it ended the connection
        self.streams = 0
        self._raw = raw
        self._writing = anyio.Lock()
        self._reading = False
        self._news = anyio.Event()
        self._open = True
        self._unsent = bytearray()
        self._sent_bytes = 0
        self._pid = os.getpid()

    @property
    def usable(self) -> bool:
        """Tell whether a new call may go out here."""
        return self._open and self._is_ours() and not self.talk.leaving

    @property
    def is_open(self) -> bool:
        """Tell whether calls under way here may still be answered."""
        return self._open

    @property
    def load(self) -> int:
        """Return how many calls are under way here, and how many a stream is as good as."""
        return self.talk.under_way + CROWD * self.streams

    async def write(self, data: bytes) -> None:
        """Send all of it; who is cancelled meanwhile leaves the rest to the next writer: no frame stays half."""
        end = self._put(data)
        while self._sent_bytes < end:
            async with self._writing:
                await self._wait(anyio.wait_writable)
            self._flush()
            if not self._open:
                raise Lost(surely_undone=True)

    def _put(self, data: bytes) -> int:
        """Send what goes out at once; returns where the data ends in all that is sent here."""
        if not self._open or not self._is_ours():
            raise Lost(surely_undone=True)
        self._unsent += self.talk.opened(data)
        end = self._sent_bytes + len(self._unsent)
        self._flush()
        return end

    async def _wait(self, ready: Callable[[Socket], Awaitable[None]]) -> None:
        try:
            if self._open:
                await ready(self._raw)
        except anyio.ClosedResourceError:
            self._open = False

    def _flush(self) -> None:
        try:
            while self._unsent and self._open:
                size_bytes = self._raw.send(self._unsent)
                del self._unsent[:size_bytes]
                self._sent_bytes += size_bytes
        except BlockingIOError:
            return
        except OSError:
            self._open = False

    async def next_frame(self, call_id: int) -> list[Any]:
        """Return the call's next frame."""
        while True:
            frame = self.talk.take(call_id)
            if frame is not None:
                return frame
            if self.broken is not None:
                raise self.broken
            if not self._open:
                raise Lost(surely_undone=False)
            if self._reading:
                await self._news.wait()
            else:
                await self._read()

    def withdraw(self, call_id: int) -> None:
        """Tell the daemon that nobody waits any more; a broken connection has told it already."""
        cancel = self.talk.forget(call_id)
        if cancel and self._open and self._is_ours():
            self._put(cancel)

    def close(self) -> None:
        """Close it; those who wait are told."""
        self._open = False
        anyio.notify_closing(self._raw)
        self._raw.close()
        self._tell()

    def forsake(self) -> None:
        """Let go of it in a process that was forked: the connection is the other's, and its loop is not ours."""
        self._open = False
        self._raw.close()

    async def _read(self) -> None:
        self._reading = True
        try:
            await self._wait(anyio.wait_readable)
            if self._open:
                self._took(self._raw.recv(_READ_BYTES))
        except BlockingIOError:
            return
        except OSError:
            self._open = False
        except AgentdError as error:
            self.broken, self._open = error, False
        finally:
            self._reading = False
            self._tell()  # also when cancelled: another one must read on

    def _took(self, data: bytes) -> None:
        if not data:
            self._open = False
        self.talk.received(data)
        if self.talk.to_send and self._open:
            answers, self.talk.to_send = self.talk.to_send, b""
            self._put(answers)

    def _is_ours(self) -> bool:
        return self._pid == os.getpid()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


async def connected(path: str, timeout_s: float) -> Socket | None:
    """Return a connected socket, None when nobody serves the path."""
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                return connected_at_once(path)
            except BlockingIOError:
                await anyio.sleep(BACKOFF_S[0])  # more clients connect at this moment than the system queues
    raise too_late("the connection")
