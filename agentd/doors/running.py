"""A call that waits: its task, its deadline, its cancellation, and for a stream its credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from types import AsyncGeneratorType
from typing import Any

import anyio
import anyio.lowlevel

from agentd.errors import AgentdError, DeadlineExceeded

_ITEMS_PER_TURN = 64
Waiting = Coroutine[Any, Any, Any] | AsyncGenerator[Any, None]


class RunningCall:
    """One call in flight; `run` gives its answer, `cancel` ends it with a reason."""

    __slots__ = ("_deadline_s", "_scope", "_waiting", "_wake", "_why", "call_id", "credit", "method")

    def __init__(self, call_id: int, method: str, waiting: Waiting, deadline_s: float | None, credit: int) -> None:
        self.call_id = call_id
        self.method = method
        self.credit = credit
        self._waiting = waiting
        self._deadline_s = deadline_s
        self._scope: anyio.CancelScope | None = None
        self._why: AgentdError | None = None
        self._wake = asyncio.Event()

    @property
    def streams(self) -> bool:
        """Tell whether the call is a stream."""
        return isinstance(self._waiting, AsyncGeneratorType)

    def cancel(self, why: AgentdError) -> None:
        """End the call with this error, unless it ends by itself first; what it committed stays."""
        self._why = self._why or why
        if self._scope is not None:
            self._scope.cancel()

    def add_credit(self, items: int) -> None:
        """Let the stream send more items."""
        self.credit += items
        self.wake()

    def wake(self) -> None:
        """Let a stream that was held look again whether it may go on."""
        self._wake.set()

    async def run(self, send_item: Callable[[int, Any], None], writable: Callable[[], bool]) -> Any:
        """Return the call's answer; raises its error, the reason it was cancelled for, or DeadlineExceeded."""
        allowed_s = float("inf") if self._deadline_s is None else self._deadline_s
        answer = None
        with anyio.CancelScope(deadline=anyio.current_time() + allowed_s) as scope:
            self._scope = scope
            if self._why is not None:
                scope.cancel()
            if isinstance(self._waiting, AsyncGeneratorType):
                answer = await self._stream(self._waiting, send_item, writable)
            else:
                answer = await self._waiting  # type: ignore[misc]  # the other half of the union
        if scope.cancelled_caught:
            raise self._why or DeadlineExceeded(
                f"{self.method} did not end within its {allowed_s:g} s", hint="allow more time, or ask again"
            )
        return answer

    async def _stream(
        self, items: AsyncGenerator[Any, None], send_item: Callable[[int, Any], None], writable: Callable[[], bool]
    ) -> dict[str, Any]:
        seq = 0
        async with aclosing(items):
            while True:
                while not (self.credit and writable()):
                    self._wake.clear()
                    await self._wake.wait()
                try:
                    payload = await anext(items)
                except StopAsyncIteration:
                    return {"items": seq}
                self.credit -= 1
                seq += 1
                send_item(seq, payload)
                if seq % _ITEMS_PER_TURN == 0:
                    await anyio.lowlevel.checkpoint()
