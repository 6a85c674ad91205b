"""One client's connection: bytes in, calls, bytes out, within its limits.

The hot path is synchronous: every whole frame of a read is taken, calls that need not wait are answered at once, and
all replies go out in one write. Only a call that works on becomes a task; one that merely waits is a record.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from types import AsyncGeneratorType, CoroutineType
from typing import Any, cast

from agentd.agents.waiters import Wait
from agentd.config import MAX_FRAME_LIMIT_BYTES
from agentd.doors import replies
from agentd.doors.dispatch import DEFAULT_CREDIT, WAITING, CallContext, read_options
from agentd.doors.greeting import greeted
from agentd.doors.identity import check_uid
from agentd.doors.peers import Peer, peer_credentials
from agentd.doors.quick import quick_call
from agentd.doors.running import RunningCall, RunningStream
from agentd.doors.shared import Shared
from agentd.errors import (
    AgentdError,
    Busy,
    Cancelled,
    DeadlineExceeded,
    Unavailable,
)
from agentd.records import Caller
from agentd.wire import CALL, CANCEL, CREDIT, NOTE, PING, PROTOCOL
from agentd.wire.frames import FrameReader, ProtocolError
from agentd.wire.items import Items

FRAMES_PER_TURN = 256
WAITS_PER_TURN = 16  # of a client whose calls wait: their tasks all run in the next turn, before anybody else is served
MANY_WAITS = WAITS_PER_TURN // 2
OUTPUT_MARK_BYTES = 256 * 1024  # above it nothing more is read from the connection
OUTPUT_MARK_S = 10.0  # above it for so long: a slow consumer
HELLO_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
LOOK_S = 30.0  # for the answer of a call whose wait is over
ANNOUNCED_LIMITS = ("max_frame_bytes", "max_in_flight", "max_output_bytes", "wait_s")


class Connection(asyncio.Protocol):
    """The server's side of one connection."""

    __slots__ = (
        "_closing_since_s",
        "_context",
        "_flush_is_due",
        "_frames_per_turn",
        "_in_turn",
        "_loop",
        "_max_in_flight",
        "_max_reply_bytes",
        "_on_end",
        "_out",
        "_out_bytes",
        "_over_since_s",
        "_partial_since_s",
        "_reader",
        "_reading",
        "_running",
        "_shared",
        "_transport",
        "_turn_is_due",
        "caller",
        "peer",
        "since_s",
    )

    def __init__(self, shared: Shared) -> None:
        self.peer = Peer(0, -1)
        self.caller: Caller | None = None
        self.since_s = 0.0
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(shared.config.max_frame_bytes, quick_call)
        self._running: dict[int, RunningCall | Wait] = {}
        self._max_in_flight = shared.config.max_in_flight
        self._on_end: Callable[[Wait], None] | None = self._ended  # one for all waits: each its own would be memory
        self._context = CallContext()
        self._max_reply_bytes = MAX_FRAME_LIMIT_BYTES
        self._out: list[bytes | bytearray] = []
        self._out_bytes = 0
        self._in_turn = False
        self._frames_per_turn = FRAMES_PER_TURN
        self._flush_is_due = False
        self._turn_is_due = False
        self._reading = True
        self._partial_since_s: float | None = None  # when the unfinished frame began
        self._over_since_s: float | None = None  # when output went above the mark
        self._closing_since_s: float | None = None

    # what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Check who connected before anything is read."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=OUTPUT_MARK_BYTES)
        self.since_s = self._loop.time()
        shared = self._shared
        shared.joined(self)
        self.peer = peer_credentials(transport.get_extra_info("socket"))
        try:
            check_uid(self.peer)
            if len(shared.connections) > shared.most_connections:
                raise Busy("agentd has as many connections as it may", hint="close some, or try again later")
        except AgentdError as error:
            self._refuse(error)
            return
        shared.unauthenticated[self] = None

    def data_received(self, data: bytes) -> None:
        """Take what is whole of it, and of what came before."""
        if self._closing_since_s is not None:
            return
        running, reader = self._running, self._reader
        before, most, fault = len(running), self._frames_per_turn, None
        if before + most > self._max_in_flight:
            most = self._max_in_flight - before
        try:
            frames = reader.feed(data, most)
        except ProtocolError as error:
            frames, fault = error.frames, error.with_traceback(None)  # which would keep this frame, and the bytes
        self._in_turn = True
        for frame in frames:
            if frame[0] == CALL and self.caller is not None:
                self._call(frame, self.caller)
            else:
                self._take(frame)
            if self._closing_since_s is not None:
                break
        self._in_turn = False
        self._frames_per_turn = FRAMES_PER_TURN if len(running) - before < MANY_WAITS else WAITS_PER_TURN
        if fault is not None:
            self._break_off(fault)
        if self._out:
            self._flush()
        if running or reader.pending or not self._reading:
            self._settle(began=bool(frames))
        else:
            self._partial_since_s = None

    def pause_writing(self) -> None:
        """Read no more of a client that does not read."""
        self._over_since_s = self._loop.time()
        self._settle()

    def resume_writing(self) -> None:
        """Go on, with held streams too."""
        self._over_since_s = None
        for call in self._running.values():
            if isinstance(call, RunningStream):
                call.wake()
        self._turn_soon()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  why does not matter
        """Cancel what the client waited for; what was committed stays."""
        self._closing_since_s = self._closing_since_s or self._loop.time()
        self._shared.left(self)
        self.cancel_all(Cancelled("the client is gone"))
        self._on_end = None  # it holds us

    # what the door calls

    def sweep(self, now_s: float) -> None:
        """Close the connection, or end a call, when its time is over."""
        config = self._shared.config
        if self._closing_since_s is not None:
            if now_s - self._closing_since_s > CLOSE_TIMEOUT_S:
                self._transport.abort()
        elif self._over_since_s is not None and now_s - self._over_since_s > OUTPUT_MARK_S:
            self._cut_slow_consumer()
        elif self._partial_since_s is not None and now_s - self._partial_since_s > config.frame_timeout_s:
            self._time_out(f"half a frame for more than {config.frame_timeout_s:g} s")
        elif self.caller is None and now_s - self.since_s > HELLO_TIMEOUT_S:
            self._time_out(f"no HELLO within {HELLO_TIMEOUT_S:g} s")
        elif not self._reading and self._peer_is_gone():
            self._transport.abort()
        for call in self._running.values():
            if isinstance(call, RunningCall):
                call.sweep(now_s)

    def say_goaway(self, reason: str) -> None:
        """Tell the client that the daemon stops, and end its streams."""
        self._send(replies.note("goaway", {"reason": reason}))
        self.cancel_all(Unavailable(reason, hint="connect again"), streams_only=True)

    def cancel_all(self, why: AgentdError, *, streams_only: bool = False) -> None:
        """Cancel the calls in flight."""
        for call in list(self._running.values()):
            if not streams_only or isinstance(call, RunningStream):
                _cancel(call, why)

    def close(self, error: AgentdError | None = None) -> None:
        """Close after what is written has gone out, with a last word when there is one."""
        if self._closing_since_s is not None:
            return
        if error is not None:
            self._out.append(replies.error(0, error))
        self._flush()
        self._closing_since_s = self._loop.time()
        self._transport.close()
        self.cancel_all(Cancelled("the connection is closed"))

    def abort(self) -> None:
        """Close at once; what is unsent is dropped."""
        self.cancel_all(Cancelled("the connection is closed"))
        self._transport.abort()

    # reading

    def _turn(self) -> None:
        self._turn_is_due = False
        self.data_received(b"")

    def _settle(self, *, began: bool = False) -> None:
        """Decide whether to read on, and since when the client owes the rest of a frame."""
        if self._closing_since_s is not None:
            return
        held = self._over_since_s is not None or len(self._running) >= self._max_in_flight
        more = self._reader.more
        if more and not held:
            self._turn_soon()
        self._read(on=not (held or more))
        if not self._reader.pending or not self._reading:
            self._partial_since_s = None
        elif began or self._partial_since_s is None:
            self._partial_since_s = self._loop.time()

    def _turn_soon(self) -> None:
        if not self._turn_is_due:
            self._turn_is_due = True
            self._loop.call_soon(self._turn)

    def _read(self, *, on: bool) -> None:
        if on and not self._reading:
            self._transport.resume_reading()
        elif self._reading and not on:
            self._transport.pause_reading()
        self._reading = on

    def _take(self, frame: list[Any]) -> None:
        kind = frame[0]
        if self.caller is None:
            self._greet(frame)
        elif kind == CREDIT:
            if isinstance(call := self._running.get(frame[1]), RunningStream):
                call.add_credit(frame[2])
        elif kind == CANCEL:
            if frame[1] in self._running:
                _cancel(self._running[frame[1]], Cancelled("the call was cancelled by its caller"))
        elif kind == PING:
            self._out.append(replies.pong(frame[1]))
        elif kind != NOTE:
            self._break_off(ProtocolError(f"a client does not send frames of kind {kind} here"))

    # HELLO

    def _greet(self, frame: list[Any]) -> None:
        shared = self._shared
        try:
            self.caller, max_reply_bytes = greeted(frame, self.peer, shared.identify, shared.log)
        except AgentdError as error:
            self._refuse(error)
            return
        self._max_reply_bytes = max_reply_bytes
        self._context = CallContext(peer_pid=self.peer.pid)
        shared.unauthenticated.pop(self, None)
        limits = {name: getattr(shared.config, name) for name in ANNOUNCED_LIMITS}
        self._out.append(replies.hello({**shared.hello, "v": PROTOCOL, "limits": limits}))

    def _refuse(self, error: AgentdError) -> None:
        """Close a connection that gets no identity, and leave a line for the audit."""
        self._shared.counters.denied += 1
        self._shared.log.warning(
            "rpc.refused", code=error.code, reason=error.message, pid=self.peer.pid, uid=self.peer.uid
        )
        self._shared.closed(self, error.code, error.message)
        self.close(error)

    # calls

    def _call(self, frame: list[Any], caller: Caller) -> None:
        call_id, method = frame[1], frame[2]
        if not call_id or call_id in self._running:
            self._break_off(ProtocolError(f"call id {call_id} is in use"))
            return
        shared = self._shared
        try:
            if shared.draining:
                raise Unavailable("agentd is stopping", hint="connect again")
            context, params, credit = self._context, frame[3], DEFAULT_CREDIT
            if len(frame) > 4:
                context, params, credit = read_options(frame[4], params, self.peer.pid)
            value = shared.dispatch.call(caller, method, params, context)
            if type(value) in WAITING:
                most_s = shared.most_times.of(method, params)
                self._start(call_id, method, value, most_s, context.deadline_s, credit)
                return
            reply = replies.result(call_id, value, self._max_reply_bytes)
        except Exception as error:  # noqa: BLE001  one call's end: told to its caller, and logged if ours
            reply = self._as_refusal(call_id, method, error)
        shared.counters.calls += 1
        self._out.append(reply)

    def _start(
        self, call_id: int, method: str, waiting: Any, most_s: float, given_s: float | None, credit: int
    ) -> None:
        try:
            self._shared.start(self.caller)
        except Busy:
            if isinstance(waiting, CoroutineType):
                waiting.close()  # it has not begun
            raise
        deadline_s = most_s if given_s is None else min(given_s, most_s)
        told = given_s is not None or self._shared.most_times.is_long(most_s)
        call = (
            RunningStream(
                call_id, method, waiting, deadline_s, self._finish, credit, self._send_items, self._is_writable
            )
            if isinstance(waiting, AsyncGeneratorType)
            else RunningCall(call_id, method, waiting, deadline_s, self._finish, told=told)
        )
        self._running[call_id] = call
        self._shared.workers.start(call)

    def _finish(self, call: RunningCall, value: Any, fault: Exception | None) -> None:
        """Answer a call that has ended; one that only waits from here on is kept."""
        if isinstance(value, Wait):
            self._hold(value, call)
            return
        try:
            if fault is not None:
                raise fault
            reply = replies.result(call.call_id, value, self._max_reply_bytes)
        except Exception as error:  # noqa: BLE001  as above
            reply = self._as_refusal(call.call_id, call.method, error)
        self._forget(call.call_id)
        self._reply(reply)

    def _hold(self, wait: Wait, call: RunningCall) -> None:
        """Keep of a call only what it waits for, until that comes."""
        wait.call_id = call.call_id
        self._running[call.call_id] = wait
        if call.why is not None:  # since its task was done
            wait.end(call.why)
        if wait.outcome is not False:
            self._go_on(wait)
            return
        wait.on_end = self._on_end
        self._shared.deadlines.add(wait, call.deadline_s, call.until_s)

    def _ended(self, wait: Wait) -> None:
        self._shared.deadlines.ended()
        self._go_on(wait)

    def _go_on(self, wait: Wait) -> None:
        """Answer a call whose wait has ended."""
        if isinstance(wait.outcome, AgentdError):
            self._forget(wait.call_id)
            self._reply(self._as_refusal(wait.call_id, wait.method, wait.outcome))
            return
        call = RunningCall(wait.call_id, wait.method, wait.look(over=True), LOOK_S, self._finish, told=False)
        self._running[wait.call_id] = call
        self._shared.workers.start(call)

    def _forget(self, call_id: int) -> None:
        del self._running[call_id]
        self._shared.ended()

    def _reply(self, reply: bytes) -> None:
        self._shared.counters.calls += 1
        self._send(reply)
        if not self._reading:
            self._turn_soon()

    def _send_items(self, items: Items, call_id: int, first_seq: int, at_once: bool) -> None:
        """Send items of a stream; raises OverLimit, and sends none of them."""
        if items.largest_bytes > self._max_reply_bytes:
            raise replies.too_large(items.largest_bytes, self._max_reply_bytes)
        frames = items.frames(call_id, first_seq)
        if not at_once or self._out:
            self._send(frames)
        elif self._closing_since_s is None:
            self._write(frames)

    def _is_writable(self) -> bool:
        return self._over_since_s is None

    def _as_refusal(self, call_id: int, method: str, error: Exception) -> bytes:
        self._shared.counters.errors += 1
        return replies.error(call_id, self._shared.dispatch.as_error(self.caller, method, error))

    # writing

    def _send(self, frame: bytes | bytearray) -> None:
        """Send with whatever else this turn of the loop brings; a lot goes out at once."""
        if self._closing_since_s is not None:
            return
        self._out.append(frame)
        self._out_bytes += len(frame)
        if self._out_bytes > OUTPUT_MARK_BYTES:
            self._flush()
        elif not (self._in_turn or self._flush_is_due):
            self._flush_is_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        if not self._out or self._closing_since_s is not None:
            return
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._out_bytes = 0
        self._write(data)

    def _write(self, data: bytes | bytearray) -> None:
        self._transport.write(data)
        if self._over_since_s is None:  # asyncio called pause_writing within write, had it gone above the mark
            return
        if self._transport.get_write_buffer_size() > self._shared.config.max_output_bytes:
            self._cut_slow_consumer()

    # endings

    def _break_off(self, error: ProtocolError) -> None:
        self._shared.counters.protocol_errors += 1
        self._shared.log.warning("rpc.protocol_error", reason=error.message, pid=self.peer.pid)
        self._shared.closed(self, "protocol_error", error.message)
        self.close(error)

    def _time_out(self, what: str) -> None:
        self._shared.counters.timeouts += 1
        self._shared.log.warning("rpc.timed_out", reason=what, pid=self.peer.pid)
        self._shared.closed(self, "timed_out", what)
        self.close(DeadlineExceeded(what, hint="connect again"))

    def _cut_slow_consumer(self) -> None:
        """Drop the connection with what is unsent: the peer could not read a word about it anyway."""
        size_bytes = self._transport.get_write_buffer_size()
        self._shared.counters.slow_consumers += 1
        self._shared.log.warning("rpc.slow_consumer", unread_bytes=size_bytes, pid=self.peer.pid)
        self._shared.closed(self, "slow_consumer", f"{size_bytes} bytes were not read")
        self._closing_since_s = self._loop.time()
        self._transport.abort()

    def _peer_is_gone(self) -> bool:
        """Look by hand: asyncio sees no end of file while reading is paused."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        return any(events & (select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))


def _cancel(call: RunningCall | Wait, why: AgentdError) -> None:
    if isinstance(call, Wait):
        call.end(why)
    else:
        call.cancel(why)
