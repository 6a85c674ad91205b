"""The asynchronous client: the blocking one's methods, with await. Any number of tasks may share one connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import SocketStream

from agentd.calling import (
    BACKOFF_S,
    BATCH_SIZE,
    DEFAULT_CREDIT,
    DEFAULT_TIMEOUT_S,
    HEARTBEAT_S,
    PATIENCE_S,
    SILENCE_S,
    CallError,
    arguments,
    as_method,
    batch_results,
    chunks,
    may_repeat,
    method_named,
    outcome_unknown,
    pauses,
    receipt,
    rest_of_batch,
    rest_of_wait,
    spawned,
    too_late,
)
from agentd.errors import AgentdError, DeadlineExceeded, Denied, Unavailable
from agentd.place import Place
from agentd.records import Receipt
from agentd.wire.conversation import Conversation, outcome
from agentd.wire.frames import CREDIT, ITEM, encode

if TYPE_CHECKING:
    from agentd.typed import AsyncCalls
else:
    AsyncCalls = object

__all__ = ["AsyncClient", "connect"]

_LAST_WORDS_S = 1.0


@asynccontextmanager
async def connect(
    socket: str | None = None,
    *,
    autostart: bool = True,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[AsyncClient]:
    """Give a client connected to the daemon, which is started when it is not running."""
    client = AsyncClient(Place.find(socket, autostart=autostart, token=token, environ=environ), timeout_s)
    try:
        await client.open()
        yield client
    finally:
        await client.close()


class _Lost(Exception):
    """Raised when the connection broke; `surely_undone` when the daemon cannot have seen the whole call."""

    def __init__(self, *, surely_undone: bool) -> None:
        super().__init__()
        self.surely_undone = surely_undone


class _Line:
    """One connection. Whichever task waits for an answer reads for all of them; the others sleep until it has read."""

    def __init__(self, stream: SocketStream, token: str | None) -> None:
        self.talk = Conversation(token)
        self.broken: AgentdError | None = None  # what the daemon said when it ended the connection
        self._stream = stream
        self._writing = anyio.Lock()
        self._reading = False
        self._news = anyio.Event()
        self._open = True

    @property
    def usable(self) -> bool:
        """Tell whether a new call may go out here."""
        return self._open and not self.talk.leaving

    async def write(self, data: bytes) -> None:
        """Send all of it; what was asked for first goes out first."""
        async with self._writing:
            if not self._open:
                raise _Lost(surely_undone=True)
            sent = False
            try:
                await self._stream.send(data)
                sent = True
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                raise _Lost(surely_undone=True) from None
            finally:
                if not sent:  # cancelled, too: half a frame may be out, and nothing can follow it
                    self._open = False

    async def next_frame(self, call_id: int) -> list[Any]:
        """Return the call's next frame."""
        while True:
            frame = self.talk.take(call_id)
            if frame is not None:
                return frame
            if self.broken is not None:
                raise self.broken
            if not self._open:
                raise _Lost(surely_undone=False)
            if self._reading:
                await self._news.wait()
            else:
                await self._read()

    async def withdraw(self, call_id: int) -> None:
        """Tell the daemon that nobody waits any more; a broken connection has told it already."""
        cancel = self.talk.forget(call_id)
        if cancel and self._open:
            with anyio.move_on_after(_LAST_WORDS_S, shield=True):
                try:
                    await self.write(cancel)
                except _Lost:
                    return

    async def close(self) -> None:
        """Close it; those who wait are told."""
        self._open = False
        self._tell()
        await self._stream.aclose()

    async def _read(self) -> None:
        self._reading = True
        try:
            self.talk.received(await self._stream.receive())
        except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            self._open = False
        except AgentdError as error:
            self.broken, self._open = error, False
        finally:
            self._reading = False
            self._tell()  # also when cancelled: another one must read on
        if self.talk.to_send and self._open:
            answers, self.talk.to_send = self.talk.to_send, b""
            await self.write(answers)

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()


class AsyncClient(AsyncCalls):
    """A connection to the daemon; see `agentd.client.Client`, whose methods these are."""

    def __init__(self, place: Place, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._line: _Line | None = None
        self._retired: list[_Line] = []  # the daemon said goaway there; calls under way still end on it
        self._opening = anyio.Lock()

    # calls

    async def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None, **kw: Any
    ) -> Any:
        """Make a call and return its answer; `timeout_s` as in the blocking client."""
        values, options, allowed_s = arguments(method, {**(params or {}), **kw}, timeout_s, self._timeout_s)

        server: dict[str, Any] = {}

        async def once(line: _Line) -> Any:
            nonlocal server
            call_id, data = line.talk.request(method, values, options)
            try:
                await line.write(data)
                return outcome(await line.next_frame(call_id))
            finally:
                server = line.talk.server
                await line.withdraw(call_id)

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

        async def begin(line: _Line) -> tuple[_Line, int]:
            call_id, data = line.talk.request(method, {**(params or {}), **kw}, {"credit": credit})
            await line.write(data)
            return line, call_id

        line, call_id = await self._attempt(begin, repeatable=True)
        taken = 0
        try:
            while (frame := await _next_item(line, call_id, method, timeout_s))[0] == ITEM:
                yield frame[3]
                taken += 1
                if taken * 2 >= credit:
                    await line.write(encode([CREDIT, call_id, taken]))
                    taken = 0
            outcome(frame)
        except _Lost:
            raise Unavailable(
                f"the connection broke while {method} ran", hint="follow again from the last id"
            ) from None
        finally:
            await line.withdraw(call_id)

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

    async def events(
        self,
        *,
        follow: bool = False,
        since: int | None = None,
        types: Sequence[str] = (),
        targets: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Yield kept events after an id, and with `follow` those that happen from now on, as the blocking client's."""
        params: dict[str, Any] = {"types": list(types), "targets": list(targets)}
        if not follow:
            for event in (await self.call("events.list", params if since is None else {**params, "since": since}))[
                "events"
            ]:
                yield event
            return
        seen = (await self.call("events.list", {"limit": 1}))["last"] if since is None else since
        while True:
            more = {"since": seen, "heartbeat_s": HEARTBEAT_S}
            try:
                async with aclosing(self.stream("events.follow", {**params, **more}, timeout_s=SILENCE_S)) as items:
                    async for event in items:
                        seen = event["id"]
                        if event["type"] != "heartbeat":
                            yield event
            except (Unavailable, DeadlineExceeded):
                await self._reopen_patiently(patience_s)
            else:
                return

    # the connection

    async def open(self) -> None:
        """Connect, starting the daemon when it is not running and may be started."""
        stream = await _connected(self._place.path, self._timeout_s)
        if stream is None and self._place.may_start:
            await anyio.to_thread.run_sync(self._place.start)
            stream = await self._connected_soon()
        if stream is None:
            raise self._place.not_running()
        self._line = _Line(stream, self._place.token)

    async def close(self) -> None:
        """Close the connection; the daemon cancels what it still waits for."""
        self._retire()
        with anyio.CancelScope(shield=True):
            while self._retired:
                await self._retired.pop().close()

    async def _reopen_patiently(self, patience_s: float) -> None:
        """Connect again to a daemon that comes back within a time; none is started."""
        async with self._opening:
            self._retire()
            deadline_s = anyio.current_time() + patience_s
            for pause_s in pauses():
                stream = await _connected(self._place.path, self._timeout_s)
                if stream is not None:
                    self._line = _Line(stream, self._place.token)
                    return
                if anyio.current_time() >= deadline_s:
                    raise self._place.not_running()
                await anyio.sleep(pause_s)

    async def _attempt(self, once: Callable[[_Line], Awaitable[Any]], repeatable: bool) -> Any:
        """Do it, and once more after a broken connection when that cannot do it twice."""
        try:
            return await once(await self._usable_line())
        except _Lost as lost:
            if not (lost.surely_undone or repeatable):
                raise outcome_unknown() from None
        try:
            return await once(await self._usable_line())
        except _Lost:
            raise outcome_unknown() from None

    async def _usable_line(self) -> _Line:
        async with self._opening:
            if self._line is None or not self._line.usable:
                self._retire()
                stream = await self._connected_soon()
                if stream is None:
                    await self.open()
                else:
                    self._line = _Line(stream, self._place.token)
            if self._line is None:
                raise self._place.not_running()
            return self._line

    def _retire(self) -> None:
        if self._line is not None:
            self._retired.append(self._line)
            self._line = None

    async def _connected_soon(self) -> SocketStream | None:
        for pause_s in BACKOFF_S:
            stream = await _connected(self._place.path, self._timeout_s)
            if stream is not None:
                return stream
            await anyio.sleep(pause_s)
        return None


async def _next_item(line: _Line, call_id: int, method: str, timeout_s: float | None) -> list[Any]:
    with anyio.move_on_after(timeout_s):
        return await line.next_frame(call_id)
    raise too_late(method)


async def _connected(path: str, timeout_s: float) -> SocketStream | None:
    """Return a connected stream, None when nobody serves the path."""
    with anyio.move_on_after(timeout_s):
        while True:
            try:
                return await anyio.connect_unix(path)
            except (FileNotFoundError, ConnectionRefusedError):
                return None
            except BlockingIOError:
                await anyio.sleep(BACKOFF_S[0])  # more clients connect at this moment than the system queues
            except PermissionError:
                raise Denied(f"you may not connect to {path}", hint="connect as the user who runs it") from None
            except OSError as error:
                raise Unavailable(
                    f"cannot connect to {path}: {error.strerror or error}", hint="`agentd doctor`"
                ) from None
    raise too_late("the connection")
