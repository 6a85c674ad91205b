"""The least that can be called a control-mode client: what ours is compared with."""

from __future__ import annotations

import asyncio
import socket as sockets
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

CHUNK_BYTES = 1 << 16


class BareClient:
    """Writes lines and counts replies; knows nothing of what is in them, has no deadlines and no names."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._last = b""

    async def burst(self, lines: Sequence[bytes]) -> int:
        """Write all lines at once and wait for as many replies; return how many of them were errors."""
        self._writer.write(b"".join(lines))
        errors = await self.replies(len(lines))
        await self._writer.drain()
        return errors

    async def replies(self, count: int) -> int:
        """Wait for so many replies; return how many of them were errors."""
        errors = 0
        while count > 0:
            data = await self._reader.read(CHUNK_BYTES)
            if not data:
                raise ConnectionError("tmux closed the control connection")
            whole = self._last + data
            lines = whole.split(b"\n")
            self._last = lines.pop()
            for line in lines:
                if line.startswith((b"%end ", b"%error ")):
                    count -= 1
                    errors += line.startswith(b"%error ")
        return errors


@asynccontextmanager
async def bare_client(socket: str, session: str = "hub") -> AsyncIterator[BareClient]:
    """Attach to a session of the server at the socket."""
    ours, theirs = sockets.socketpair()
    flags = "ignore-size,no-output"
    argv = ["tmux", "-S", socket, "-u", "-C", "attach-session", "-E", "-t", f"={session}", "-f", flags]
    process = await asyncio.create_subprocess_exec(*argv, stdin=theirs, stdout=theirs)
    theirs.close()
    reader, writer = await asyncio.open_connection(sock=ours)
    client = BareClient(reader, writer)
    await client.replies(1)  # of the attach itself
    try:
        yield client
    finally:
        writer.write_eof()
        await process.wait()
        writer.close()


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
