"""The gate of a tmux server: control connections are opened and closed only while nothing else happens.

Up to tmux 3.6b a server that sends a notification while a control client connects dies, and every agent with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from agentd.errors import Busy
from agentd.tmux.failures import TmuxUnavailable

_MAX_WAITING = 4096


class Gate:
    """Many may pass at once, or one alone; who wants to be alone goes before new ones who do not."""

    def __init__(self) -> None:
        self._passing = 0
        self._alone = False
        self._waiting_alone = 0
        self._waiting_shared = 0
        self._changed = anyio.Condition()

    @asynccontextmanager
    async def shared(self, timeout_s: float) -> AsyncIterator[None]:
        """Pass together with others; TmuxUnavailable when somebody is alone for too long."""
        if self._closed:
            await self._wait_shared(timeout_s)
        self._passing += 1
        try:
            yield
        finally:
            self._passing -= 1
            if self._waiting_alone and not self._passing:
                await self._tell()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Pass alone."""
        self._waiting_alone += 1
        try:
            async with self._changed:
                while self._alone or self._passing:
                    await self._changed.wait()
                self._alone = True
        except BaseException:
            self._waiting_alone -= 1
            await self._tell()
            raise
        self._waiting_alone -= 1
        try:
            yield
        finally:
            self._alone = False
            await self._tell()

    @property
    def _closed(self) -> bool:
        return self._alone or self._waiting_alone > 0

    async def _wait_shared(self, timeout_s: float) -> None:
        if self._waiting_shared >= _MAX_WAITING:
            raise Busy(f"{_MAX_WAITING} commands wait while a connection to tmux is opened; this one was not sent")
        self._waiting_shared += 1
        try:
            with anyio.move_on_after(timeout_s):
                async with self._changed:
                    while self._closed:
                        await self._changed.wait()
                    return
        finally:
            self._waiting_shared -= 1
        raise TmuxUnavailable(
            f"opening a connection to tmux takes more than {timeout_s:g} s; nothing was sent meanwhile",
            hint="see whether the tmux server is stopped; agentd goes on by itself",
        )

    async def _tell(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self._changed:
                self._changed.notify_all()
