"""The thin blocking client. It imports neither the daemon nor any heavy library, not even `socket`."""

from __future__ import annotations

import time
from _socket import AF_UNIX, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812  the public class costs the hot commands 4 ms

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
from agentd.errors import AgentdError, DeadlineExceeded, Denied, InternalError, Unavailable
from agentd.place import Place
from agentd.wire.conversation import Conversation, outcome
from agentd.wire.frames import CREDIT, ITEM, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from agentd.records import Receipt
    from agentd.typed import BlockingCalls
else:
    BlockingCalls = object  # what type checkers and editors see; it would cost the thin client a millisecond

__all__ = ["CallError", "Client", "connect"]

_READ_BYTES = 65_536


def connect(
    socket: str | None = None,
    *,
    autostart: bool = True,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    environ: Mapping[str, str] | None = None,
) -> Client:
    """Return a client connected to the daemon, which is started when it is not running.

    Inside an agent's pane the token is that agent's and nothing is started. Raises Unavailable when there is no daemon.
    """
    place = Place.find(socket, autostart=autostart, token=token, environ=environ)
    client = Client(place, timeout_s)
    client.open()
    return client


class _Lost(Exception):
    """Raised when the connection broke; `surely_undone` when the daemon cannot have seen the whole call."""

    def __init__(self, *, surely_undone: bool) -> None:
        super().__init__()
        self.surely_undone = surely_undone


class Client(BlockingCalls):
    """A connection to the daemon, for one thread at a time.

    Every call of the table is a method: `agents_list()` is `call("agents.list")`, `events_follow()` is a stream. A
    broken connection is opened again, and a call made again, where that cannot do anything twice.
    """

    def __init__(self, place: Place, timeout_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._socket: Socket | None = None
        self._talk = Conversation(place.token)

    # calls

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None, **kw: Any
    ) -> Any:
        """Make a call and return its answer; parameters are the map, the keywords or both.

        `timeout_s` is how long to wait for the answer, and for agents.wait and messages.wait how long they wait.
        """
        values, options, allowed_s = arguments(method, {**(params or {}), **kw}, timeout_s, self._timeout_s)
        deadline_s = time.monotonic() + allowed_s

        def once() -> Any:
            call_id, data = self._talk.request(method, values, options)
            self._write(data, deadline_s)
            return outcome(self._answer(call_id, method, deadline_s))

        while True:
            asked_s = time.monotonic()
            try:
                return self._attempt(once, may_repeat(method, values))
            except DeadlineExceeded:
                rest = rest_of_wait(method, values, time.monotonic() - asked_s, self.server)
                if rest is None:
                    raise
                values = rest

    def stream(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        credit: int = DEFAULT_CREDIT,
        timeout_s: float | None = None,
        **kw: Any,
    ) -> Iterator[Any]:
        """Yield a stream's items; `timeout_s` is the longest wait for the next one. Closing it ends the stream."""

        def next_deadline_s() -> float | None:
            return None if timeout_s is None else time.monotonic() + timeout_s

        def begin() -> int:
            call_id, data = self._talk.request(method, {**(params or {}), **kw}, {"credit": credit})
            self._write(data, time.monotonic() + self._timeout_s)
            return call_id

        call_id: int = self._attempt(begin, repeatable=True)
        try:
            taken = 0
            while True:
                frame = self._next(call_id, method, next_deadline_s())
                if frame[0] != ITEM:
                    outcome(frame)
                    return
                yield frame[3]
                taken += 1
                if taken * 2 >= credit:
                    self._write(encode([CREDIT, call_id, taken]), time.monotonic() + self._timeout_s)
                    taken = 0
        except _Lost:
            raise Unavailable(
                f"the connection broke while {method} ran", hint="follow again from the last id"
            ) from None
        finally:
            self._withdraw(call_id)

    def pipeline(self) -> Pipeline:
        """Return a block whose calls go out together at its end; each one's answer is then its `result()`."""
        return Pipeline(self)

    if not TYPE_CHECKING:  # type checkers know each of them

        def __getattr__(self, name: str) -> Callable[..., Any]:
            """Return the method for a call of the table: noun_verb is the call noun.verb."""
            method = method_named(name)
            from agentd import typed

            return as_method(name, typed.BlockingCalls, self.stream if method.endswith(".follow") else self.call)

    # the main ones, with their own shapes

    def spawn(self, profile: str, **kw: Any) -> Any:
        """Start agents; returns the agent's map, or a list when n > 1 (with the errors of those that failed last)."""
        return spawned(self.call("agents.spawn", {"profile": profile, **kw}), kw.get("n", 1))

    def send(self, to: str, body: str, **kw: Any) -> Receipt:
        """Send a message; the receipt means that it is on disk."""
        return receipt(self.call("messages.send", {"to": to, "body": body, **kw}))

    def send_batch(
        self, items: Sequence[Mapping[str, Any]], *, batch_size: int = BATCH_SIZE
    ) -> list[Receipt | CallError]:
        """Send many messages; returns for each its receipt or its error, in the same order.

        Raises only when nothing can have been accepted; else an error stands in the place of each message it hit.
        """
        results: list[Receipt | CallError] = []
        for chunk in chunks(items, batch_size):
            if isinstance(chunk, AgentdError):
                results.append(chunk)
                continue
            try:
                answer = self.call("messages.send_batch", {"messages": chunk})
            except AgentdError as error:
                if not results:
                    raise
                return results + rest_of_batch(error, len(items) - len(results))
            results += batch_results(answer)
        return results

    def events(
        self,
        *,
        follow: bool = False,
        since: int | None = None,
        types: Sequence[str] = (),
        targets: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> Iterator[dict[str, Any]]:
        """Yield kept events after an id, and with `follow` those that happen from now on.

        A follower goes on after the last id it saw when the connection breaks or falls silent, and waits so long for a
        daemon that is away. What is not kept comes as an event of the type `gap`.
        """
        params: dict[str, Any] = {"types": list(types), "targets": list(targets)}
        if follow:
            return self._follow_events(params, since, patience_s)
        return iter(self.call("events.list", params if since is None else {**params, "since": since})["events"])

    def _follow_events(self, params: dict[str, Any], since: int | None, patience_s: float) -> Iterator[dict[str, Any]]:
        seen = self.call("events.list", {"limit": 1})["last"] if since is None else since
        while True:
            try:
                more = {"since": seen, "heartbeat_s": HEARTBEAT_S}
                for event in self.stream("events.follow", {**params, **more}, timeout_s=SILENCE_S):
                    seen = event["id"]
                    if event["type"] != "heartbeat":
                        yield event
            except (Unavailable, DeadlineExceeded):
                self._reopen_patiently(patience_s)
            else:
                return

    # the connection

    @property
    def server(self) -> dict[str, Any]:
        """Return what the daemon said of itself; empty before the first call."""
        return self._talk.server

    def open(self) -> None:
        """Connect, starting the daemon when it is not running and may be started."""
        self._talk = Conversation(self._place.token)
        self._socket = connected(self._place.path, self._timeout_s)
        if self._socket is None and self._place.may_start:
            self._place.start()
            self._socket = self._connected_soon()
        if self._socket is None:
            raise self._place.not_running()

    def close(self) -> None:
        """Close the connection; the daemon cancels what it still waits for."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _connected_soon(self) -> Socket | None:
        for pause_s in BACKOFF_S:
            found = connected(self._place.path, self._timeout_s)
            if found is not None:
                return found
            time.sleep(pause_s)
        return None

    def _reopen(self) -> None:
        """Connect again after a short pause; a daemon that is just being restarted has that long."""
        self.close()
        self._talk = Conversation(self._place.token)
        self._socket = self._connected_soon()
        if self._socket is None:
            self.open()

    def _reopen_patiently(self, patience_s: float) -> None:
        """Connect again to a daemon that comes back within a time; none is started."""
        self.close()
        self._talk = Conversation(self._place.token)
        deadline_s = time.monotonic() + patience_s
        for pause_s in pauses():
            self._socket = connected(self._place.path, self._timeout_s)
            if self._socket is not None:
                return
            if time.monotonic() >= deadline_s:
                raise self._place.not_running()
            time.sleep(pause_s)

    def _attempt(self, once: Callable[[], Any], repeatable: bool) -> Any:
        """Do it, and once more after a broken connection when that cannot do it twice."""
        if self._socket is None or self._talk.leaving:
            self._reopen()
        try:
            return once()
        except _Lost as lost:
            if not (lost.surely_undone or repeatable):
                self.close()
                raise outcome_unknown() from None
        self._reopen()
        try:
            return once()
        except _Lost:
            self.close()
            raise outcome_unknown() from None

    def _exchange(self, calls: list[PipelinedCall]) -> None:
        """Make a pipeline's calls: all of them out, then every answer."""
        deadline_s = time.monotonic() + self._timeout_s

        def once() -> None:
            requests = [self._talk.request(call.method, call.params) for call in calls]
            self._write(b"".join(data for _, data in requests), deadline_s)
            for call, (call_id, _) in zip(calls, requests, strict=True):
                call.answered(self._answer(call_id, call.method, deadline_s))

        self._attempt(once, all(may_repeat(call.method, call.params) for call in calls))

    def _answer(self, call_id: int, method: str, deadline_s: float) -> list[Any]:
        try:
            return self._next(call_id, method, deadline_s)
        except DeadlineExceeded:
            self._withdraw(call_id)
            raise

    def _next(self, call_id: int, method: str, deadline_s: float | None) -> list[Any]:
        while True:
            frame = self._talk.take(call_id)
            if frame is not None:
                return frame
            self._read(method, deadline_s)

    def _read(self, method: str, deadline_s: float | None) -> None:
        if self._socket is None:
            raise _Lost(surely_undone=False)
        left_s = None if deadline_s is None else deadline_s - time.monotonic()
        if left_s is not None and left_s <= 0:
            raise too_late(method)
        try:
            self._socket.settimeout(left_s)
            data = self._socket.recv(_READ_BYTES)
        except TimeoutError:
            raise too_late(method) from None
        except OSError:
            data = b""
        if not data:
            raise _Lost(surely_undone=False)
        self._took(data)

    def _took(self, data: bytes) -> None:
        try:
            self._talk.received(data)
        except AgentdError:
            self.close()
            raise
        if self._talk.to_send:
            answers, self._talk.to_send = self._talk.to_send, b""
            self._write(answers, time.monotonic() + self._timeout_s)

    def _write(self, data: bytes, deadline_s: float) -> None:
        """Send all of it; what does not fit at once goes out while we read, so that neither side blocks the other."""
        if self._socket is None:
            raise _Lost(surely_undone=True)
        try:
            self._socket.settimeout(0)
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            raise _Lost(surely_undone=True) from None
        if sent < len(data):
            self._write_while_reading(memoryview(data)[sent:], deadline_s)

    def _write_while_reading(self, rest: memoryview, deadline_s: float) -> None:
        import select

        poll = select.poll()
        while rest:
            if self._socket is None:
                raise _Lost(surely_undone=False)
            poll.register(self._socket.fileno(), select.POLLIN | select.POLLOUT)
            ready = poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
            if not ready:
                self.close()  # half a frame went out: nothing else can follow it
                raise too_late("the request")
            try:
                if ready[0][1] & ~select.POLLOUT:
                    self._read("the request", deadline_s)
                    self._socket.settimeout(0)
                if ready[0][1] & select.POLLOUT:
                    rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                continue
            except OSError:
                raise _Lost(surely_undone=False) from None

    def _withdraw(self, call_id: int) -> None:
        """Tell the daemon that nobody waits any more; a broken connection has told it already."""
        cancel = self._talk.forget(call_id)
        if cancel and self._socket is not None:
            try:
                self._write(cancel, time.monotonic() + 1.0)
            except (_Lost, DeadlineExceeded):
                self.close()


def connected(path: str, timeout_s: float) -> Socket | None:
    """Return a connected socket, None when nobody serves the path."""
    deadline_s = time.monotonic() + timeout_s
    found = Socket(AF_UNIX, SOCK_STREAM)
    while True:
        try:
            found.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            found.close()
            return None
        except OSError as error:
            if isinstance(error, BlockingIOError) and time.monotonic() < deadline_s:
                time.sleep(BACKOFF_S[0])  # more clients connect at this moment than the system queues
                continue
            found.close()
            if isinstance(error, PermissionError):
                raise Denied(f"you may not connect to {path}", hint="connect as the user who runs it") from None
            raise Unavailable(f"cannot connect to {path}: {error.strerror or error}", hint="`agentd doctor`") from None
        return found


class Pipeline:
    """Calls that go out in one write at the end of the block; their order is kept."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._calls: list[PipelinedCall] = []

    def call(self, method: str, params: Mapping[str, Any] | None = None, **kw: Any) -> PipelinedCall:
        """Add a call; its answer is there after the block."""
        added = PipelinedCall(method, {**(params or {}), **kw})
        self._calls.append(added)
        return added

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._calls:
            self._client._exchange(self._calls)  # noqa: SLF001  the two are one


class PipelinedCall:
    """A call of a pipeline."""

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.method = method
        self.params = params
        self._frame: list[Any] | None = None

    def answered(self, frame: list[Any]) -> None:
        """Keep the answer."""
        self._frame = frame

    def result(self) -> Any:
        """Return the answer, or raise the call's error."""
        if self._frame is None:
            raise InternalError(f"{self.method} has no answer yet", hint="ask after the pipeline's block")
        return outcome(self._frame)
