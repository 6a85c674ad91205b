"""A call that waits: its deadline, its cancellation, and for a stream its credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from math import inf
from typing import Any

import anyio
import anyio.lowlevel

from agentd.errors import AgentdError, DeadlineExceeded

_ITEMS_PER_TURN = 64


class RunningCall:
    """One call in flight; `run` gives its answer, `cancel` ends it with a reason."""

    __slots__ = ("_deadline_s", "_scope", "_waiting", "_why", "call_id", "method")
    streams = False

    def __init__(self, call_id: int, method: str, waiting: Coroutine[Any, Any, Any], deadline_s: float | None) -> None:
        self.call_id = call_id
        self.method = method
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._scope: anyio.CancelScope | None = None
        self._why: AgentdError | None = None

    def cancel(self, why: AgentdError) -> None:
        """End the call with this error, unless it ends by itself first; what it committed stays."""
        self._why = self._why or why
        if self._scope is not None:
            self._scope.cancel()

    def add_credit(self, items: int) -> None:
        """Let a stream send more items."""

    def wake(self) -> None:
        """Let a stream that was held look again whether it may go on."""

    async def run(self) -> Any:
        """Return the call's answer; raises its error, the reason it was cancelled for, or DeadlineExceeded."""
        deadline = inf if self._deadline_s is None else anyio.current_time() + self._deadline_s
        with anyio.CancelScope(deadline=deadline) as scope:
            self._scope = scope
            if self._why is not None:
                scope.cancel()
            return await self._waiting
        raise self._why or DeadlineExceeded(
            f"{self.method} did not end within its {self._deadline_s:g} s", hint="allow more time, or ask again"
        )


class RunningStream(RunningCall):
    """A stream in flight; its items go out through `send` while it has credit and the connection is `writable`.

    A list among them is several items that are there at once: they go out together.
    """

    __slots__ = ("_credit", "_send", "_wake", "_writable")
    streams = True

    def __init__(
        self,
        call_id: int,
        method: str,
        items: AsyncGenerator[Any, None],
        deadline_s: float | None,
        credit: int,
        send: Callable[[int, int, list[Any]], None],
        writable: Callable[[], bool],
    ) -> None:
        super().__init__(call_id, method, self._stream(items), deadline_s)
        self._credit = credit
        self._send = send
        self._writable = writable
        self._wake = asyncio.Event()

    def add_credit(self, items: int) -> None:
        """Let the stream send more items."""
        self._credit += items
        self.wake()

    def wake(self) -> None:
        """Let the stream look again whether it may go on."""
        self._wake.set()

    async def _stream(self, items: AsyncGenerator[Any, None]) -> dict[str, Any]:
        seq, left = 0, list[Any]()
        async with aclosing(items):
            while True:
                while not (self._credit and self._writable()):
                    self._wake.clear()
                    await self._wake.wait()
                if not left:
                    try:
                        given = await anext(items)
                    except StopAsyncIteration:
                        return {"items": seq}
                    left = given if isinstance(given, list) else [given]
                now, left = left[: min(self._credit, _ITEMS_PER_TURN)], left[min(self._credit, _ITEMS_PER_TURN) :]
                self._credit -= len(now)
                self._send(self.call_id, seq + 1, now)
                seq += len(now)
                if seq // _ITEMS_PER_TURN != (seq - len(now)) // _ITEMS_PER_TURN:
                    await anyio.lowlevel.checkpoint()
