"""The connection to the daemon: questions go out as they come, answers come in as they are ready.

It never blocks. A broken connection is made again, and what was under way is asked again: the daemon takes the same use
of a tool, which carries the same name, only once.
"""

from __future__ import annotations

import os
import time

from agentd.calling import outcome_unknown
from agentd.connections import connected
from agentd.errors import AgentdError, InvalidValue
from agentd.wire import CALL, MAX_FRAME_BYTES
from agentd.wire.conversation import Conversation, outcome
from agentd.wire.frames import FrameReader, ProtocolError, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket as Socket  # noqa: N812  as in the client
    from typing import Any

    from agentd.mcp.protocol import Question
    from agentd.place import Place

_READ_BYTES = 65_536
_CONNECT_S = 1.0
PATIENCE_S = 10.0  # how long a question waits for a daemon that is being restarted
PAUSE_S = 0.05  # between tries to connect
MOST_TRIES = 3  # of one question, over broken connections
_METHODS = {"tools/list": "mcp.tools", "tools/call": "mcp.call"}


class Asked:
    """A question on its way."""

    __slots__ = ("call_id", "params", "patient_until_s", "question", "tries")

    def __init__(self, question: Question, params: dict[str, Any]) -> None:
        self.question = question
        self.params = params
        self.tries = 0
        self.call_id: int | None = None  # None: it waits for a connection
        self.patient_until_s = time.monotonic() + PATIENCE_S


class Link:
    """Asks the daemon as one agent; `answers` are the questions that are settled, each with its answer or error."""

    def __init__(self, place: Place) -> None:
        self.answers: list[tuple[Question, Any]] = []
        self._place = place
        self._socket: Socket | None = None
        self._talk = Conversation(place.token)
        self._out = b""
        self._asked: list[Asked] = []
        self._mark = os.urandom(8).hex()
        self._uses = 0
        self._not_before_s = 0.0

    @property
    def fileno(self) -> int | None:
        """Return what to poll, None without a connection."""
        return None if self._socket is None else self._socket.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Tell whether bytes wait for room."""
        return bool(self._out)

    def ask(self, question: Question) -> None:
        """Take a question; its answer stands in `answers` sooner or later."""
        params = question.params
        if question.method == "tools/call":
            self._uses += 1
            params = {**params, "request": f"{self._mark}-{self._uses}"}
        self._asked.append(Asked(question, params))
        self._not_before_s = 0.0
        self.go_on()

    def drop(self, question: Question) -> None:
        """Forget a question that nobody waits for; the daemon stops working on it."""
        for asked in self._asked:
            if asked.question is question:
                self._asked.remove(asked)
                if asked.call_id is not None:
                    self._write(self._talk.forget(asked.call_id))
                return

    def due_in_s(self) -> float | None:
        """Return when `go_on` has something to do without being woken by the connection."""
        if all(asked.call_id is not None for asked in self._asked):
            return None
        return max(0.0, self._not_before_s - time.monotonic()) if self._socket is None else PAUSE_S

    def go_on(self) -> None:
        """Connect if need be, send what waits, and give up what waited too long."""
        now_s = time.monotonic()
        waiting = [asked for asked in self._asked if asked.call_id is None]
        if waiting and self._socket is None and now_s >= self._not_before_s:
            self._connect(now_s)
        if self._socket is not None and not self._talk.leaving:
            for asked in waiting:
                self._send(asked)
        for asked in waiting:
            if asked.call_id is None and now_s > asked.patient_until_s:
                self._settle(asked, self._place.not_running())

    def readable(self) -> None:
        """Take what the daemon sent."""
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        try:
            self._talk.received(data)
        except AgentdError as error:  # the daemon's last word on this connection
            self._refused(error)
            return
        answers, self._talk.to_send = self._talk.to_send, b""
        self._write(answers)
        for asked in [asked for asked in self._asked if asked.call_id is not None]:
            self._look(asked)
        self.go_on()

    def writable(self) -> None:
        """Send more of what waits."""
        self._write(b"")

    def close(self) -> None:
        """Close the connection; the daemon stops what it still did for us."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._out = b""

    def _connect(self, now_s: float) -> None:
        self._not_before_s = now_s + PAUSE_S
        self._talk = Conversation(self._place.token)
        try:
            self._socket = connected(self._place.path, _CONNECT_S)
        except AgentdError as error:
            self._refused(error)
            return
        if self._socket is not None:
            self._socket.setblocking(False)

    def _send(self, asked: Asked) -> None:
        method = _METHODS[asked.question.method]
        try:
            _check_frame(method, asked.params)
        except AgentdError as error:
            self._settle(asked, error)
            return
        asked.call_id, data = self._talk.request(method, asked.params)
        asked.tries += 1
        self._write(self._talk.opened(data))

    def _look(self, asked: Asked) -> None:
        """Settle a question whose answer came; one that the daemon put off by stopping waits for the next daemon."""
        frame = None if asked.call_id is None else self._talk.take(asked.call_id)
        if frame is None:
            return
        try:
            answer = outcome(frame)
        except AgentdError as error:
            if self._talk.leaving and error.code == "unavailable" and asked.tries < MOST_TRIES:
                self._again(asked)
                return
            answer = error
        self._settle(asked, answer)

    def _write(self, data: bytes) -> None:
        self._out += data
        if self._socket is None or not self._out:
            return
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._lost()

    def _lost(self) -> None:
        self.close()
        for asked in [asked for asked in self._asked if asked.call_id is not None]:
            if asked.tries < MOST_TRIES:
                self._again(asked)
            else:
                self._settle(asked, outcome_unknown())
        self.go_on()

    def _again(self, asked: Asked) -> None:
        asked.call_id = None
        asked.patient_until_s = time.monotonic() + PATIENCE_S

    def _refused(self, error: AgentdError) -> None:
        self.close()
        for asked in list(self._asked):
            self._settle(asked, error)

    def _settle(self, asked: Asked, answer: Any) -> None:
        self._asked.remove(asked)
        self.answers.append((asked.question, answer))


def _check_frame(method: str, params: dict[str, Any]) -> None:
    """Raise an error for what the daemon would break the connection off for, and with it all that is under way."""
    try:
        FrameReader(MAX_FRAME_BYTES).feed(encode([CALL, 1, method, params]))
    except ProtocolError as error:
        raise InvalidValue(f"the arguments cannot be sent: {error.message}", hint="send less of it at once") from None
