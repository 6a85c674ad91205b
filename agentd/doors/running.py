"""A call that is a task: its deadline, its cancellation, and for a stream its credit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from math import inf
from typing import Any

import anyio
import anyio.lowlevel

from agentd.doors import replies
from agentd.doors.deadlines import late
from agentd.errors import AgentdError, OverLimit
from agentd.events.feed import Feed
from agentd.wire.items import Items

_ITEMS_PER_TURN = 64


Send = Callable[[Items, int, int, bool], None]  # with which call's id and first number, and whether now
Finish = Callable[["RunningCall", Any, Exception | None], None]  # the call, its value, or what it raised


class RunningCall:
    """One call in flight; `run` makes it, `cancel` ends it with a reason, and `finish` is told how it ended.

    A deadline that is `told` is the scope's, so that what the call does can ask for it; it ends the call to the moment.
    Any other is for the door's sweep to see to: a timer for each call would take a third of what a call takes.
    """

    __slots__ = ("_finish", "_scope", "_told", "_waiting", "call_id", "deadline_s", "method", "until_s", "why")

    def __init__(
        self,
        call_id: int,
        method: str,
        waiting: Coroutine[Any, Any, Any],
        deadline_s: float,
        finish: Finish,
        *,
        told: bool,
    ) -> None:
        self.call_id = call_id
        self.method = method
        self._waiting = waiting
        self.deadline_s = deadline_s  # from when it runs
        self.until_s = inf
        self._finish = finish
        self._told = told
        self._scope: anyio.CancelScope | None = None
        self.why: AgentdError | None = None  # it was cancelled for

    def cancel(self, why: AgentdError) -> None:
        """End the call with this error, unless it ends by itself first; what it committed stays."""
        self.why = self.why or why
        if self._scope is not None:
            self._scope.cancel()

    def sweep(self, now_s: float) -> None:
        """End the call when its time is over."""
        if now_s >= self.until_s:
            self.cancel(late(self.method, self.deadline_s))

    async def run(self, scope: anyio.CancelScope) -> None:
        """Make the call."""
        self.until_s = asyncio.get_running_loop().time() + self.deadline_s
        if self._told:
            scope.deadline = self.until_s
        self._scope = scope
        if self.why is not None:
            scope.cancel()
        value, fault = None, None
        try:
            value = await self._waiting
        except Exception as error:  # noqa: BLE001  one call's end: told to its caller, and logged if ours
            fault = error
        self._scope = None
        if self._told:
            scope.deadline = inf
        self._finish(self, value, fault)

    def cancelled(self) -> None:
        """Answer with the reason it was cancelled for, or that its time is over."""
        self._finish(self, None, self.why or late(self.method, self.deadline_s))


class RunningStream(RunningCall):
    """A stream in flight; its items go out through `send` while it has credit and the connection is `writable`.

    A list among them is several items that are there at once: they go out together. A feed among them hands
    over `Items` as they come, until there is no room for them.
    """

    __slots__ = ("_credit", "_send", "_seq", "_wake", "_writable")

    def __init__(
        self,
        call_id: int,
        method: str,
        items: AsyncGenerator[Any, None],
        deadline_s: float,
        finish: Finish,
        credit: int,
        send: Send,
        writable: Callable[[], bool],
    ) -> None:
        super().__init__(call_id, method, self._stream(items), deadline_s, finish, told=True)
        self._credit = credit
        self._send = send
        self._writable = writable
        self._seq = 0
        self._wake = asyncio.Event()

    def add_credit(self, items: int) -> None:
        """Let the stream send more items."""
        self._credit += items
        self.wake()

    def wake(self) -> None:
        """Let the stream look again whether it may go on."""
        self._wake.set()

    async def _stream(self, items: AsyncGenerator[Any, None]) -> dict[str, Any]:
        left = list[Any]()
        async with aclosing(items):
            while True:
                while not (self._credit and self._writable()):
                    self._wake.clear()
                    await self._wake.wait()
                if not left:
                    try:
                        given = await anext(items)
                    except StopAsyncIteration:
                        return {"items": self._seq}
                    if isinstance(given, Feed):
                        await given.into(self._take)
                        continue
                    left = given if isinstance(given, list) else [given]
                most, before = min(self._credit, _ITEMS_PER_TURN), self._seq
                self._pack_and_hand_out(left[:most])
                left = left[most:]
                if self._seq // _ITEMS_PER_TURN != before // _ITEMS_PER_TURN:
                    await anyio.lowlevel.checkpoint()

    def _take(self, items: Items) -> bool:
        if self._credit < len(items) or not self._writable():
            return False
        try:
            self._hand_out(items, at_once=True)
        except OverLimit:  # the stream comes to the one that is too large by itself
            return False
        return True

    def _pack_and_hand_out(self, payloads: list[Any]) -> None:
        try:
            self._hand_out(replies.items(payloads))
        except OverLimit:
            if len(payloads) == 1:
                raise
            for payload in payloads:  # those before the one that is too large
                self._hand_out(replies.items([payload]))

    def _hand_out(self, items: Items, *, at_once: bool = False) -> None:
        self._send(items, self.call_id, self._seq + 1, at_once)
        self._credit -= len(items)
        self._seq += len(items)
