"""Taking connections at a listening socket, also when there is no file descriptor left for them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable
from pathlib import Path

from anyio.abc import TaskGroup
from structlog.typing import FilteringBoundLogger

PAUSE_S = 1.0  # without a free descriptor, before the next look
_PER_TURN = 8  # a few: one that is told to go away keeps its descriptor for some turns of the loop
_EXHAUSTED = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_LEAST_SPARE, _MOST_SPARE = 48, 512  # descriptors left to tmux, files and the programs we start


def most_connections(max_connections: int) -> int:
    """Return how many connections there may be so that the rest of the daemon still has descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max_connections
    return connections_for(max_connections, soft, len(list(Path("/dev/fd").iterdir())))


def connections_for(max_connections: int, files: int, open_files: int) -> int:
    """Return the same for a process that may have so many files open, and has so many."""
    spare = min(max(files // 4, _LEAST_SPARE), _MOST_SPARE)
    return max(1, min(max_connections, files - open_files - spare))


class Acceptor:
    """Makes a protocol of each connection.

    asyncio's own server tries a thousand times a second when descriptors run out, and logs each time. Here whoever
    waits then is hung up on, by means of one descriptor kept for that, and the socket is left alone for a while.
    """

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        tasks: TaskGroup,
        log: FilteringBoundLogger,
    ) -> None:
        self._listener = listener
        self._protocol = protocol
        self._tasks = tasks
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._reserve: int | None = None
        self._again: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Take connections from now on."""
        self._again = None
        self._keep_reserve()
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more, and close the socket."""
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()
        self._drop_reserve()

    def _accept(self) -> None:
        try:
            for _ in range(_PER_TURN):
                connection, _ = self._listener.accept()
                connection.setblocking(False)
                self._tasks.start_soon(self._connect, connection)
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self._pause(error)

    async def _connect(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol, connection)
        except OSError as error:
            connection.close()
            self._log.warning("rpc.not_accepted", reason=error.strerror)

    def _pause(self, error: OSError) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._again = self._loop.call_later(PAUSE_S, self.start)
        self._drop_reserve()
        hung_up = 0
        with contextlib.suppress(OSError):  # nobody waits any more, or somebody else took the descriptor
            while True:
                self._listener.accept()[0].close()
                hung_up += 1
        self._keep_reserve()
        self._log.warning("rpc.no_descriptor", reason=error.strerror, hung_up=hung_up)

    def _keep_reserve(self) -> None:
        if self._reserve is None:
            with contextlib.suppress(OSError):
                self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _drop_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None
