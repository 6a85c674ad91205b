"""Whose turn it is to write to a repository: one of the daemon's tasks at a time, and no git of an earlier daemon."""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import anyio

from agentd.errors import Busy
from agentd.private import open_private

WAIT_S: Final = 10.0  # for a git that outlived its daemon
_PAUSE_S: Final = 0.05  # a lock of the file system wakes nobody


class Turns:
    """One lock for each directory of worktrees, which is one for each repository."""

    def __init__(self, wait_s: float = WAIT_S) -> None:
        self._wait_s = wait_s
        self._locks: dict[str, anyio.Lock] = {}

    @asynccontextmanager
    async def of(self, home: str) -> AsyncIterator[tuple[int, ...]]:
        """Be the only one; gives the descriptors that git is to hold, so that its lock ends with the last of it."""
        async with self._locks.setdefault(home, anyio.Lock()):
            descriptor = open_private(f"{home}/lock", os.O_RDWR | os.O_CREAT)
            try:
                await self._lock(descriptor, home)
                yield (descriptor,)
            finally:
                os.close(descriptor)

    async def _lock(self, descriptor: int, home: str) -> None:
        with anyio.move_on_after(self._wait_s):
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await anyio.sleep(_PAUSE_S)
                else:
                    return
        raise Busy(
            f"a git of an earlier daemon is still at work for {home}; nothing was changed", hint="try again soon"
        )
