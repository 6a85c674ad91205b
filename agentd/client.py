"""The thin blocking client. It imports neither the daemon nor any heavy library, not even `socket`."""

from __future__ import annotations

import time

from agentd.calling import (
    BATCH_SIZE,
    CONNECTIONS,
    DEFAULT_CREDIT,
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
    may_repeat,
    method_named,
    receipt,
    rest_of_batch,
    rest_of_wait,
    spawned,
    stream_broke,
    taking,
)
from agentd.connections import Connections
from agentd.errors import AgentdError, DeadlineExceeded, Unavailable
from agentd.place import Place
from agentd.wire import CREDIT, DEFAULT_TIMEOUT_S, ITEM
from agentd.wire.conversation import outcome
from agentd.wire.frames import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from agentd.connections import Connection
    from agentd.records import Receipt
    from agentd.typed import BlockingCalls
else:
    BlockingCalls = object  # what type checkers and editors see; it would cost the thin client a millisecond

__all__ = ["CallError", "Client", "connect"]


def connect(
    socket: str | None = None,
    *,
    autostart: bool = True,
    token: str | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    connections: int = CONNECTIONS,
    patience_s: float = RETURN_S,
    environ: Mapping[str, str] | None = None,
) -> Client:
    """Return a client connected to the daemon, which is started when it is not running.

    Inside an agent's pane the token is that agent's and nothing is started. Raises Unavailable when there is no daemon.
    `connections`: how many threads may call at one time; one more waits. `patience_s`: how long a call waits for a
    daemon that is away, as it is while it is restarted.
    """
    place = Place.find(socket, autostart=autostart, token=token, environ=environ)
    client = Client(place, timeout_s, connections=connections, patience_s=patience_s)
    client.open()
    return client


class Client(BlockingCalls):
    """The daemon's calls, for any number of threads: a call borrows one of a few connections, a stream has its own.

    Every call of the table is a method: `agents_list()` is `call("agents.list")`, `events_follow()` is a stream. A
    broken connection is opened again, and a call made again, where that cannot do anything twice. A process that was
    forked gets connections of its own.
    """

    def __init__(
        self,
        place: Place,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        *,
        connections: int = CONNECTIONS,
        patience_s: float = RETURN_S,
    ) -> None:
        self._timeout_s = timeout_s
        self._connections = Connections(place, timeout_s, connections, patience_s)

    # calls

    def call(
        self, method: str, params: Mapping[str, Any] | None = None, *, timeout_s: float | None = None, **kw: Any
    ) -> Any:
        """Make a call and return its answer; parameters are the map, the keywords or both.

        `timeout_s` is how long to wait for the answer, and for agents.wait and messages.wait how long they wait.
        """
        values, options, allowed_s = arguments(method, {**(params or {}), **kw}, timeout_s, self._timeout_s)
        deadline_s = time.monotonic() + allowed_s

        def once(connection: Connection) -> Any:
            call_id, data = connection.talk.request(method, values, options)
            try:
                connection.write(data, deadline_s)
                return outcome(connection.next(call_id, method, deadline_s))
            finally:
                connection.withdraw(call_id)

        repeatable = may_repeat(method, values)
        while True:
            asked_s = time.monotonic()
            try:
                return self._connections.use(once, repeatable=repeatable, deadline_s=deadline_s, method=method)
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

        def begin(connection: Connection) -> int:
            call_id, data = connection.talk.request(method, {**(params or {}), **kw}, {"credit": credit})
            connection.write(data, time.monotonic() + self._timeout_s)
            return call_id

        connection = self._connections.lend()
        try:
            deadline_s = time.monotonic() + self._timeout_s
            call_id = self._connections.attempt(connection, begin, repeatable=True, deadline_s=deadline_s)
            try:
                yield from self._items(connection, call_id, method, credit, timeout_s)
            finally:
                connection.withdraw(call_id)
        except Lost:
            raise stream_broke(method) from None
        finally:
            self._connections.give_back(connection)

    def _items(
        self, connection: Connection, call_id: int, method: str, credit: int, timeout_s: float | None
    ) -> Iterator[Any]:
        taken = 0
        while True:
            frame = connection.next(call_id, method, None if timeout_s is None else time.monotonic() + timeout_s)
            if frame[0] != ITEM:
                outcome(frame)
                return
            yield frame[3]
            taken += 1
            if taken * 2 >= credit:
                connection.write(encode([CREDIT, call_id, taken]), time.monotonic() + self._timeout_s)
                taken = 0

    def pipeline(self) -> Pipeline:
        """Return a block whose calls go out together at its end; each one's answer is then its `result()`."""
        return Pipeline(self._connections, self._timeout_s)

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

    @taking(EventsAsked)
    def events(self, asked: EventsAsked) -> Iterator[dict[str, Any]]:
        """Yield kept events after an id, and with `follow` those that happen from now on.

        A follower goes on after the last id it saw when the connection breaks or falls silent, and waits so long for a
        daemon that is away. What is not kept comes as an event of the type `gap`.
        """
        if asked.follow:
            return self._follow_events(asked)
        return iter(self.call("events.list", asked.kept)["events"])

    def _follow_events(self, asked: EventsAsked) -> Iterator[dict[str, Any]]:
        if asked.seen is None:
            asked.seen = self.call("events.list", {"limit": 1})["last"]
        while True:
            try:
                for event in self.stream("events.follow", asked.coming, timeout_s=SILENCE_S):
                    if asked.is_news(event):
                        yield event
            except (Unavailable, DeadlineExceeded):
                self._connections.await_daemon(asked.patience_s)
            else:
                return

    # the connections

    @property
    def server(self) -> dict[str, Any]:
        """Return what the daemon said of itself; empty before the first call."""
        return self._connections.server

    def open(self) -> None:
        """Connect, starting the daemon when it is not running and may be started."""
        self._connections.open()

    def close(self) -> None:
        """Close every connection; calls of other threads end with an error, and the daemon cancels them."""
        self._connections.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Pipeline(Gathered):
    """Calls that go out in one write at the end of the block; their order is kept."""

    def __init__(self, connections: Connections, timeout_s: float) -> None:
        super().__init__()
        self._connections = connections
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None and self._calls:
            deadline_s, repeatable = time.monotonic() + self._timeout_s, self._may_repeat()
            self._connections.use(
                lambda connection: self._exchange(connection, deadline_s),
                repeatable=repeatable,
                deadline_s=deadline_s,
                method="a pipeline",
            )

    def _exchange(self, connection: Connection, deadline_s: float) -> None:
        """Send all of them, then take every answer."""
        requests = [connection.talk.request(call.method, call.params) for call in self._calls]
        try:
            connection.write(b"".join(data for _, data in requests), deadline_s)
            for call, (call_id, _) in zip(self._calls, requests, strict=True):
                call.answered(connection.next(call_id, call.method, deadline_s))
        finally:
            for call_id, _ in requests:
                connection.withdraw(call_id)
