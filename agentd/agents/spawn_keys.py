"""Askings for agents by key: whoever asks again before the first asking is answered waits for that answer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio


class SpawnKeys:
    """One asking at a time for each key that a caller gave."""

    def __init__(self) -> None:
        self._locks: dict[tuple[str, str], anyio.Lock] = {}

    @asynccontextmanager
    async def turn(self, caller_id: str, key: str | None) -> AsyncIterator[None]:
        """Be the only one that asks with this key; without a key, nobody waits."""
        if not key:
            yield
            return
        lock = self._locks.setdefault((caller_id, key), anyio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._locks.pop((caller_id, key), None)
