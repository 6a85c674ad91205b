"""A wake-up that several causes may set and one task waits for."""

from __future__ import annotations

import anyio


class Signal:
    """Remembers that something happened until it is waited for; waiting takes it back."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake the waiter, now or when it next waits."""
        self._event.set()

    async def wait(self, timeout_s: float) -> bool:
        """Wait until it is set, at most so long; tell whether it was."""
        if not self._event.is_set():
            with anyio.move_on_after(timeout_s):
                await self._event.wait()
        was_set = self._event.is_set()
        if was_set:
            self._event = anyio.Event()
        return was_set
