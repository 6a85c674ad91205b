"""The blocking client's connections: one, and the few that the threads of a program share.

Part of the thin client: no `socket`, no `threading`, which would cost the hot commands milliseconds.
"""

from __future__ import annotations

import os
import time
from _socket import AF_UNIX, SHUT_RDWR, SOCK_STREAM
from _socket import socket as Socket  # noqa: N812  the public class costs the hot commands 4 ms
from _thread import allocate_lock

from agentd.calling import BACKOFF_S, MOST_TRIES, Lost, all_busy, closed, outcome_unknown, pauses, too_late
from agentd.errors import AgentdError, Denied, Unavailable
from agentd.wire.conversation import Conversation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _thread import LockType
    from collections.abc import Callable
    from typing import Any, TypeVar

    from agentd.place import Place

    T = TypeVar("T")

_READ_BYTES = 65_536
_LAST_WORDS_S = 1.0


class Connection:
    """One connection, of whoever has borrowed it; a process that was forked meanwhile does not touch it."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._socket: Socket | None = None
        self._pid = os.getpid()
        self.talk = Conversation(place.token)

    def connect(self) -> bool:
        """Connect anew; tells whether anybody serves the path."""
        self.close()
        self.talk = Conversation(self._place.token)
        self._pid = os.getpid()
        self._socket = connected(self._place.path, self._timeout_s)
        return self._socket is not None

    @property
    def is_open(self) -> bool:
        """Tell whether a call may go out here, as far as is known."""
        return self._socket is not None and self._is_ours() and not self.talk.leaving

    def is_alive(self) -> bool:
        """Take in what came since the last call; tells whether the connection is still open after that."""
        try:
            while self.is_open and self._socket is not None:
                self._socket.settimeout(0)
                self._took(self._socket.recv(_READ_BYTES))
        except BlockingIOError:
            return self.is_open
        except (OSError, Lost, AgentdError):  # what the daemon says last is no answer to the next call
            return False
        return False

    def write(self, data: bytes, deadline_s: float) -> None:
        """Send all of it; what does not fit at once goes out while we read, so that neither side blocks the other."""
        if self._socket is None or not self._is_ours():
            raise Lost(surely_undone=True)
        data, whole = self.talk.opened(data), False
        try:
            sent = self._sent(data)
            if sent < len(data):
                self._write_while_reading(memoryview(data)[sent:], deadline_s)
            whole = True
        finally:
            if not whole:  # half a frame went out, maybe: nothing else can follow it
                self.close()

    def next(self, call_id: int, method: str, deadline_s: float | None) -> list[Any]:
        """Return the request's next frame."""
        while True:
            frame = self.talk.take(call_id)
            if frame is not None:
                return frame
            self._read(method, deadline_s)

    def withdraw(self, call_id: int) -> None:
        """Tell the daemon that nobody waits any more; a broken connection has told it already."""
        cancel = self.talk.forget(call_id)
        if cancel and self._socket is not None:
            try:
                self.write(cancel, time.monotonic() + _LAST_WORDS_S)
            except (Lost, AgentdError):
                self.close()

    def hang_up(self) -> None:
        """End it under a thread that may be reading or writing, which is told; closing is for that thread."""
        if self._socket is not None and self._is_ours():
            try:
                self._socket.shutdown(SHUT_RDWR)
            except OSError:  # the other side was quicker
                return

    def close(self) -> None:
        """Close it; the daemon cancels what it still waits for."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _is_ours(self) -> bool:
        return self._pid == os.getpid()

    def _sent(self, data: bytes) -> int:
        if self._socket is None:
            raise Lost(surely_undone=True)
        try:
            self._socket.settimeout(0)
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            raise Lost(surely_undone=True) from None

    def _write_while_reading(self, rest: memoryview, deadline_s: float) -> None:
        import select

        poll = select.poll()
        while rest:
            if self._socket is None:
                raise Lost(surely_undone=False)
            poll.register(self._socket.fileno(), select.POLLIN | select.POLLOUT)
            ready = poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
            if not ready:
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
                raise Lost(surely_undone=False) from None

    def _read(self, method: str, deadline_s: float | None) -> None:
        if self._socket is None or not self._is_ours():
            raise Lost(surely_undone=False)
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
        self._took(data)

    def _took(self, data: bytes) -> None:
        if not data:
            raise Lost(surely_undone=False)
        try:
            self.talk.received(data)
        except AgentdError:
            self.close()
            raise
        if self.talk.to_send:
            answers, self.talk.to_send = self.talk.to_send, b""
            self.write(answers, time.monotonic() + self._timeout_s)


class _Own:
    """What one process has of a client: its connections, and whose turn it is to borrow one."""

    def __init__(self, most: int) -> None:
        self.all: set[Connection] = set()
        self.idle: list[Connection] = []  # the one used last is the next to be used
        self.opening = allocate_lock()  # one thread at a time starts a daemon
        self._most = most
        self._lent = 0
        self._lock = allocate_lock()
        self._turns: list[LockType] = []  # of threads that wait, each released when it is its turn

    def take_turn(self, deadline_s: float) -> bool:
        """Wait until one more may be borrowed, first come first served; tells whether that came in time."""
        with self._lock:
            if self._lent < self._most:
                self._lent += 1
                return True
            turn = allocate_lock()
            turn.acquire()
            self._turns.append(turn)
        came = False
        try:
            came = turn.acquire(timeout=max(0.0, deadline_s - time.monotonic()))
        finally:
            if not came:
                self._leave(turn)
        return came

    def end_turn(self) -> None:
        """Let the next one borrow."""
        with self._lock:
            if self._turns:
                self._turns.pop(0).release()
            else:
                self._lent -= 1

    def _leave(self, turn: LockType) -> None:
        with self._lock:
            waits = turn in self._turns
            if waits:
                self._turns.remove(turn)
        if not waits:  # it came at the last moment
            self.end_turn()


class Connections:
    """At most `most` connections for calls, made when they are needed, each lent to one thread at a time.

    A stream's is beside these: whoever follows for hours keeps nobody from calling.
    """

    def __init__(self, place: Place, timeout_s: float, most: int, patience_s: float) -> None:
        self._place = place
        self._timeout_s = timeout_s
        self._most = most
        self._patience_s = patience_s
        self._by_pid: dict[int, _Own] = {}
        self._closed = False
        self.server: dict[str, Any] = {}  # what the daemon said of itself

    def open(self) -> None:
        """Connect once, starting the daemon when it is not running and may be started."""
        self._closed = False
        connection = self._fresh()
        try:
            self._reach(connection, 0.0)
        finally:
            self.give_back(connection)

    def use(self, work: Callable[[Connection], T], *, repeatable: bool, deadline_s: float, method: str) -> T:
        """Lend a connection to some work; see attempt."""
        own = self._own()
        if not own.take_turn(deadline_s):
            raise all_busy(method, self._most)
        try:
            connection = self.lend()
            try:
                return self.attempt(connection, work, repeatable=repeatable, deadline_s=deadline_s)
            finally:
                self.give_back(connection)
        finally:
            own.end_turn()

    def lend(self) -> Connection:
        """Return the idle connection that was used last and lives, else one that is still to be made."""
        while not self._closed:
            try:
                connection = self._own().idle.pop()
            except IndexError:
                return self._fresh()
            if connection.is_alive():
                return connection
            self._drop(connection)
        raise closed()

    def give_back(self, connection: Connection) -> None:
        """Keep it for others, or close it."""
        own = self._own()
        self.server = connection.talk.server or self.server
        if connection.is_open and len(own.idle) < self._most:
            own.idle.append(connection)
        else:
            self._drop(connection)
        if self._closed:
            self._close_idle()

    def attempt(
        self, connection: Connection, work: Callable[[Connection], T], *, repeatable: bool, deadline_s: float
    ) -> T:
        """Do it on this connection, and again on a new one while that cannot do it twice."""
        for _, pause_s in zip(range(MOST_TRIES), pauses(), strict=False):
            self._make_usable(connection, deadline_s)
            try:
                return work(connection)
            except Lost as lost:
                if not (lost.surely_undone or repeatable):
                    break
            except Unavailable:
                if not (repeatable and connection.talk.leaving):
                    raise  # what a daemon puts off that is about to end, the next one can answer
            connection.close()
            time.sleep(pause_s)
        connection.close()
        raise outcome_unknown()

    def await_daemon(self, patience_s: float) -> None:
        """Connect to a daemon that comes back within a time; none is started."""
        connection = self.lend()
        try:
            if not self._connect(connection, time.monotonic() + patience_s):
                raise self._place.not_running()
        finally:
            self.give_back(connection)

    def close(self) -> None:
        """Close every connection; calls and streams under way in other threads end with an error."""
        self._closed = True
        self._close_idle()
        for connection in self._own().all.copy():
            connection.hang_up()

    def _own(self) -> _Own:
        """Return what this process has; what it had from the one it was forked from it closes, and lets live there."""
        pid = os.getpid()
        own = self._by_pid.get(pid)
        if own is None:
            own = self._by_pid.setdefault(pid, _Own(self._most))
            for other in self._by_pid.keys() - {pid}:
                for connection in self._by_pid.pop(other).all:
                    connection.close()
        return own

    def _fresh(self) -> Connection:
        connection = Connection(self._place, self._timeout_s)
        self._own().all.add(connection)
        return connection

    def _drop(self, connection: Connection) -> None:
        connection.close()
        self._own().all.discard(connection)

    def _close_idle(self) -> None:
        own = self._own()
        while own.idle:
            self._drop(own.idle.pop())

    def _make_usable(self, connection: Connection, deadline_s: float) -> None:
        if not connection.is_open:
            self._reach(connection, min(self._patience_s, deadline_s - time.monotonic()))
        if self._closed:
            raise closed()

    def _reach(self, connection: Connection, patience_s: float) -> None:
        """Connect to a daemon that comes back within a time; then start one, where that may be done."""
        if self._connect(connection, time.monotonic() + patience_s):
            return
        if self._place.may_start:
            with self._own().opening:
                if connection.connect():
                    return
                self._place.start()
            if self._connect(connection, time.monotonic() + self._patience_s):
                return
        raise self._place.not_running()

    def _connect(self, connection: Connection, deadline_s: float) -> bool:
        for pause_s in pauses():
            if self._closed:
                raise closed()
            if connection.connect():
                return True
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            time.sleep(min(pause_s, left_s))
        return False


def connected(path: str, timeout_s: float) -> Socket | None:
    """Return a connected socket, None when nobody serves the path."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        try:
            return connected_at_once(path)
        except BlockingIOError:
            if time.monotonic() >= deadline_s:
                raise too_late("the connection") from None
            time.sleep(BACKOFF_S[0])  # more clients connect at this moment than the system queues


def connected_at_once(path: str) -> Socket | None:
    """The same; raises BlockingIOError where one that blocks would wait, maybe for ever, for a daemon that hangs."""
    found = Socket(AF_UNIX, SOCK_STREAM)
    try:
        found.settimeout(0)
        found.connect(path)
    except (FileNotFoundError, ConnectionRefusedError):
        found.close()
        return None
    except OSError as error:
        found.close()
        if isinstance(error, BlockingIOError):
            raise
        if isinstance(error, PermissionError):
            raise Denied(f"you may not connect to {path}", hint="connect as the user who runs it") from None
        raise Unavailable(f"cannot connect to {path}: {error.strerror or error}", hint="`agentd doctor`") from None
    return found
