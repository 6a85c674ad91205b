"""The asynchronous client: the blocking one's methods, with await. Any number of tasks may share it."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio

from agentd.calling import (
    BATCH_SIZE,
    CONNECTIONS,
    DEFAULT_CREDIT,
    MOST_TRIES,
    RETURN_S,
    SILENCE_S,
    CallError,
    EventsAsked,
    Gathered,
    Lost,
    arguments,
    as_method,
    batch_results,
    chunks,
    closed,
    may_repeat,
    method_named,
    outcome_unknown,
    pauses,
    receipt,
    rest_of_batch,
    rest_of_wait,
    spawned,
    stream_broke,
    taking,
    too_late,
)
from agentd.errors import AgentdError, DeadlineExceeded, Unavailable
from agentd.line import CROWD, Line, connected
from agentd.place import Place
from agentd.records import Receipt
from agentd.wire import CREDIT, DEFAULT_TIMEOUT_S, ITEM
from agentd.wire.conversation import outcome
from agentd.wire.frames import encode

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from agentd.typed import AsyncCalls

    Attempt = Callable[[Callable[[Line], Awaitable[Any]], bool], Awaitable[Any]]
else:
    AsyncCalls = object

__all__ = ["AsyncClient", "connect"]


@asynccontextmanager
async def connect(
    socket: str | None = None,
    *,
    autostart: bool = True,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connections: int = CONNECTIONS,
    patience_s: float = RETURN_S,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[AsyncClient]:
    """Give a client connected to the daemon, which is started when it is not running.

    `connections`: how many it may have; one serves many tasks, and others are made beside streams and crowds of calls.
    `patience_s`: how long a call waits for a daemon that is away, as it is while it is restarted.
    """
    place = Place.find(socket, autostart=autostart, token=token, environ=environ)
    client = AsyncClient(place, timeout_s, connections=connections, patience_s=patience_s)
    try:
        await client.open()
        yield client
    finally:
        await client.close()


class AsyncClient(AsyncCalls):
    """The daemon's calls, for any number of tasks; see `agentd.client.Client`, whose methods these are."""

    def __init__(
        self,
        place: Place,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        connections: int = CONNECTIONS,
        patience_s: float = RETURN_S,
    ) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._most = connections
        self._patience_s = patience_s
        self._lines: list[Line] = []
        self._retired: list[Line] = []  # the daemon said goaway there; calls under way still end on it
        self._opening = anyio.Lock()
        self._closed = False
        self._pid = os.getpid()

    # calls

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None, **kw: Any
    ) -> Any:
        """Make a call and return its answer; `timeout_s` as in the blocking client."""
        values, options, allowed_s = arguments(method, {**(params or {}), **kw}, timeout_s, self._timeout_s)

        server: dict[str, Any] = {}

        async def once(line: Line) -> Any:
            nonlocal server
            call_id, data = line.talk.request(method, values, options)
            try:
                await line.write(data)
                return outcome(await line.next_frame(call_id))
            finally:
                server = line.talk.server
                line.withdraw(call_id)

        with anyio.move_on_after(allowed_s):
            while True:
                asked_s = anyio.current_time()
                try:
                    return await self._attempt(once, may_repeat(method, values))
                except DeadlineExceeded:
                    rest = rest_of_wait(method, values, anyio.current_time() - asked_s, server)
                    if rest is None:
                        raise
                    values = rest
        raise too_late(method)

    async def stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        credit: int = DEFAULT_CREDIT,
        timeout_s: float | None = None,
        **kw: Any,
    ) -> AsyncGenerator[Any, None]:
        """Yield a stream's items; `timeout_s` is the longest wait for the next one. Closing it ends the stream."""

        async def begin(line: Line) -> tuple[Line, int]:
            call_id, data = line.talk.request(method, {**(params or {}), **kw}, {"credit": credit})
            try:
                await line.write(data)
            except BaseException:
                line.talk.forget(call_id)
                raise
            return line, call_id

        with anyio.move_on_after(self._timeout_s) as time_left:
            line, call_id = await self._attempt(begin, repeatable=True)
        if time_left.cancelled_caught:
            raise too_late(method)
        taken = 0
        line.streams += 1
        try:
            while (frame := await _next_item(line, call_id, method, timeout_s))[0] == ITEM:
                yield frame[3]
                taken += 1
                if taken * 2 >= credit:
                    await line.write(encode([CREDIT, call_id, taken]))
                    taken = 0
            outcome(frame)
        except Lost:
            raise stream_broke(method) from None
        finally:
            line.streams -= 1
            line.withdraw(call_id)

    def pipeline(self) -> AsyncPipeline:
        """Return a block whose calls go out together at its end; each one's answer is then its `result()`."""
        return AsyncPipeline(self._attempt, self._timeout_s)

    if not TYPE_CHECKING:  # type checkers know each of them

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """Return the method for a call of the table: noun_verb is the call noun.verb."""
            method = method_named(name)
            from agentd import typed

            return as_method(name, typed.AsyncCalls, self.stream if method.endswith(".follow") else self.call)

    # the main ones, with their own shapes

    async def spawn(self, profile: str, **kw: Any) -> Any:
        """Start agents; returns the agent's map, or a list when n > 1 (with the errors of those that failed last)."""
        return spawned(await self.call("agents.spawn", {"profile": profile, **kw}), kw.get("n", 1))

    async def send(self, to: str, body: str, **kw: Any) -> Receipt:
        """Send a message; the receipt means that it is on disk."""
        return receipt(await self.call("messages.send", {"to": to, "body": body, **kw}))

    async def send_batch(
        self, items: Sequence[Mapping[str, Any]], *, batch_size: int = BATCH_SIZE
    ) -> list[Receipt | CallError]:
        """Send many messages; returns for each its receipt or its error, in the same order."""
        results: list[Receipt | CallError] = []
        for chunk in chunks(items, batch_size):
            if isinstance(chunk, AgentdError):
                results.append(chunk)
                continue
            try:
                answer = await self.call("messages.send_batch", {"messages": chunk})
            except AgentdError as error:
                if not results:
                    raise
                return results + rest_of_batch(error, len(items) - len(results))
            results += batch_results(answer)
        return results

    @taking(EventsAsked)
    async def events(self, asked: EventsAsked) -> AsyncGenerator[dict[str, Any], None]:
        """Yield kept events after an id, and with `follow` those that happen from now on, as the blocking client's."""
        if not asked.follow:
            for event in (await self.call("events.list", asked.kept))["events"]:
                yield event
            return
        if asked.seen is None:
            asked.seen = (await self.call("events.list", {"limit": 1}))["last"]
        while True:
            try:
                async with aclosing(self.stream("events.follow", asked.coming, timeout_s=SILENCE_S)) as items:
                    async for event in items:
                        if asked.is_news(event):
                            yield event
            except (Unavailable, DeadlineExceeded):
                await self._await_daemon(asked.patience_s)
            else:
                return

    # the connection

    @property
    def server(self) -> dict[str, Any]:
        """Return what the daemon said of itself; empty before the first call."""
        return next((line.talk.server for line in self._lines if line.talk.server), {})

    async def open(self) -> None:
        """Connect, starting the daemon when it is not running and may be started."""
        self._leave_the_forker()
        self._closed = False
        async with self._opening:
            await self._open(0.0)

    async def close(self) -> None:
        """Close every connection; calls and streams under way end with an error, and the daemon cancels them."""
        self._leave_the_forker()
        self._closed = True
        lines, self._lines, self._retired = [*self._lines, *self._retired], [], []
        for line in lines:
            line.close()

    async def _await_daemon(self, patience_s: float) -> None:
        """Connect to a daemon that comes back within a time; none is started."""
        async with self._opening:
            if await self._connect(patience_s) is None:
                raise self._place.not_running()

    async def _attempt(self, once: Callable[[Line], Awaitable[Any]], repeatable: bool) -> Any:
        """Do it, and again after a broken connection while that cannot do it twice."""
        for _, pause_s in zip(range(MOST_TRIES), pauses(), strict=False):
            line = await self._usable_line()
            try:
                return await once(line)
            except Lost as lost:
                if not (lost.surely_undone or repeatable):
                    break
            except Unavailable:
                if not (repeatable and line.talk.leaving):
                    raise  # what a daemon puts off that is about to end, the next one can answer
            await anyio.sleep(pause_s)
        raise outcome_unknown()

    async def _usable_line(self) -> Line:
        """Return the line on which least is under way, a new one where that is a crowd and there may be another."""
        self._leave_the_forker()
        if (line := self._least_busy()) is not None:
            return line
        async with self._opening:
            if (line := self._least_busy()) is not None:  # made meanwhile
                return line
            self._sort_out()
            return await self._another() if self._lines else await self._open(self._patience_s)

    def _least_busy(self) -> Line | None:
        if self._closed:
            raise closed()
        if not self._lines or not all(line.usable for line in self._lines):
            return None
        best = min(self._lines, key=lambda line: line.load)
        return best if best.load < CROWD or len(self._lines) >= self._most else None

    def _sort_out(self) -> None:
        """Put aside what is of no use for new calls, and close what nothing is under way on."""
        self._retired += [line for line in self._lines if not line.usable]
        self._lines = [line for line in self._lines if line.usable]
        for line in [line for line in self._retired if not line.is_open or not line.talk.under_way]:
            self._retired.remove(line)
            line.close()

    async def _another(self) -> Line:
        """Return one more line, or the best there is when none can be had at the moment."""
        if len(self._lines) < self._most:
            line = await self._connect(0.0)
            if line is not None:
                return line
        return min(self._lines, key=lambda line: line.load)

    async def _open(self, patience_s: float) -> Line:
        line = await self._connect(patience_s)
        if line is None and self._place.may_start:
            await anyio.to_thread.run_sync(self._place.start)
            line = await self._connect(self._patience_s)
        if line is None:
            raise self._place.not_running()
        return line

    async def _connect(self, patience_s: float) -> Line | None:
        deadline_s = anyio.current_time() + patience_s
        for pause_s in pauses():
            raw = await connected(self._place.path, self._timeout_s)
            if raw is not None:
                line = Line(raw, self._place.token)
                self._lines.append(line)
                return line
            left_s = deadline_s - anyio.current_time()
            if left_s <= 0 or self._closed:
                return None
            await anyio.sleep(min(pause_s, left_s))
        return None

    def _leave_the_forker(self) -> None:
        """In a process that was forked, begin without the connections of the other."""
        if self._pid != os.getpid():
            for line in (*self._lines, *self._retired):
                line.forsake()
            self._lines, self._retired = [], []
            self._opening, self._pid = anyio.Lock(), os.getpid()


class AsyncPipeline(Gathered):
    """Calls that go out in one write at the end of the block; their order is kept."""

    def __init__(self, attempt: Attempt, timeout_s: float) -> None:
        super().__init__()
        self._attempt = attempt
        self._timeout_s = timeout_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if kind is None and self._calls:
            with anyio.move_on_after(self._timeout_s):
                await self._attempt(self._exchange, self._may_repeat())
                return
            raise too_late("a pipeline")

    async def _exchange(self, line: Line) -> None:
        """Send all of them, then take every answer."""
        requests = [line.talk.request(call.method, call.params) for call in self._calls]
        try:
            await line.write(b"".join(data for _, data in requests))
            for call, (call_id, _) in zip(self._calls, requests, strict=True):
                call.answered(await line.next_frame(call_id))
        finally:
            for call_id, _ in requests:
                line.withdraw(call_id)


async def _next_item(line: Line, call_id: int, method: str, timeout_s: float | None) -> list[Any]:
    with anyio.move_on_after(timeout_s):
        return await line.next_frame(call_id)
    raise too_late(method)
