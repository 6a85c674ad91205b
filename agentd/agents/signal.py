"""A wake-up that several causes may set and one task waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


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

    @property
    def is_set(self) -> bool:
        """Tell whether something happened that nobody has waited for yet."""
        return self._is_set

    def clear(self) -> None:
        """Forget what happened before."""
        self._is_set = False

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most so long; tell whether it was."""
        until_s = time.monotonic() + timeout_s
        return await self.wait_until(lambda: until_s)

    async def wait_until(self, due_s: Callable[[], float]) -> bool:
        """Wait until it is set, or for a moment that may be put off meanwhile; tell whether it was set.

        Its waiter sleeps on while the moment is put off: the timer alone asks for it.
        """
        if not self._is_set:
            self._waiter = waiter = asyncio.get_running_loop().create_future()
            timer = _Timer(waiter, due_s)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiter = None
        was_set, self._is_set = self._is_set, False
        return was_set


class _Timer:
    """Wakes a waiter when a moment has come that is looked up each time."""

    def __init__(self, waiter: asyncio.Future[None], due_s: Callable[[], float]) -> None:
        self._waiter = waiter
        self._due_s = due_s
        self._handle: asyncio.TimerHandle | None = None
        self._look()

    def cancel(self) -> None:
        """Wake nobody any more."""
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        left_s = self._due_s() - time.monotonic()
        if left_s > 0:
            self._handle = self._waiter.get_loop().call_later(left_s, self._look)
        else:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
