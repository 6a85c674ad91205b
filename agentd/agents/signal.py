"""A wake-up that several causes may set and one task waits for."""

from __future__ import annotations

import asyncio


class Signal:
    """Remembers that something happened until it is waited for; waiting takes it back.

    A future and a timer of the loop: each agent waits several times for each look at its screen, and a cancel scope
    with an event for each wait was a tenth of the daemon's work (`bench/states.py`).
    """

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        self._is_set = True
        if self._waiter is not None:
            _wake(self._waiter)

    def clear(self) -> None:
        """Forget what happened before."""
        self._is_set = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most so long; tell whether it was."""
        if not self._is_set:
            await self._waited(timeout_s)
        was_set, self._is_set = self._is_set, False
        return was_set

    async def _waited(self, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(timeout_s, _wake, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
            self._waiter = None


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
