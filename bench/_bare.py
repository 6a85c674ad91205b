"""The least that can be called a control-mode client: what ours is compared with."""

from __future__ import annotations

import asyncio
import socket as sockets
import subprocess
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path


class BareClient(asyncio.Protocol):
    """Gives each line its reply, in order; knows nothing of what is in them, has no deadlines and no names."""

    def __init__(self) -> None:
        self.attached = asyncio.get_running_loop().create_future()
        self._waiting: deque[asyncio.Future[list[bytes]]] = deque([self.attached])
        self._rest = b""
        self._lines: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if line.startswith((b"%end ", b"%error ")):
                self._waiting.popleft().set_result(self._lines)
                self._lines = []
            elif not line.startswith(b"%"):
                self._lines.append(line)

    def ask(self, line: bytes) -> asyncio.Future[list[bytes]]:
        """Send one line; the future is its reply."""
        reply = asyncio.get_running_loop().create_future()
        self._waiting.append(reply)
        self.transport.write(line)
        return reply

    async def burst(self, lines: Sequence[bytes]) -> None:
        """Send all lines in one write and wait for their replies."""
        replies = [asyncio.get_running_loop().create_future() for _ in lines]
        self._waiting.extend(replies)
        self.transport.write(b"".join(lines))
        await replies[-1]


@asynccontextmanager
async def bare_client(socket: str, session: str = "hub") -> AsyncIterator[BareClient]:
    """Attach to a session of the server at the socket."""
    ours, theirs = sockets.socketpair()
    flags = "ignore-size,no-output"
    argv = ["tmux", "-S", socket, "-u", "-C", "attach-session", "-E", "-t", f"={session}", "-f", flags]
    process = await asyncio.create_subprocess_exec(*argv, stdin=theirs, stdout=theirs)
    theirs.close()
    _, client = await asyncio.get_running_loop().create_unix_connection(BareClient, sock=ours)
    await client.attached
    try:
        yield client
    finally:
        client.transport.write_eof()
        await process.wait()
        client.transport.close()


@asynccontextmanager
async def plain_server() -> AsyncIterator[str]:
    """Run a server with no configuration and a session `hub`; give its socket, and end it afterwards."""
    with tempfile.TemporaryDirectory(prefix="ab-") as directory:
        socket = str(Path(directory, "t.sock"))
        tmux = ["tmux", "-S", socket, "-f", "/dev/null"]
        subprocess.run([*tmux, "new-session", "-d", "-s", "hub", "sleep", "100000"], check=True)
        try:
            yield socket
        finally:
            subprocess.run([*tmux, "kill-server"], check=True)
