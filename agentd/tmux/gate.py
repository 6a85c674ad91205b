"""The gate of a tmux server: control connections are opened and closed only while nothing else happens.

Up to tmux 3.6b a server that sends a notification while a control client connects dies, and every agent with it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class Gate:
    """Many may pass at once, or one alone; who wants to be alone goes before new ones who do not."""

    def __init__(self) -> None:
        self._passing = 0
        self._alone = False
        self._waiting_alone = 0
        self._changed = anyio.Condition()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Pass together with others."""
        if self._alone or self._waiting_alone:
            async with self._changed:
                while self._alone or self._waiting_alone:
                    await self._changed.wait()
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

    async def _tell(self) -> None:
        with anyio.CancelScope(shield=True):
            async with self._changed:
                self._changed.notify_all()
