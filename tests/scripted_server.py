"""A server that does on each connection what the next entry of a script says, for what a real door never does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agentd.doors.listening import bind
from agentd.wire.frames import FrameReader, encode


class Script:
    """The server; `calls` are those it was asked."""

    def __init__(self, path: str, *steps) -> None:
        self.listener = bind(path)
        self.listener.setblocking(True)
        self.listener.settimeout(10)
        self.steps = steps
        self.calls: list[list] = []

    def run(self) -> None:
        with self.listener:
            for step in self.steps:
                connection, _ = self.listener.accept()
                connection.settimeout(10)
                with connection:
                    step(self, connection)

    def next_call(self, connection) -> list:
        reader = FrameReader()
        while True:
            for frame in reader.feed(connection.recv(65_536)):
                if frame[0] == 1:
                    self.calls.append(frame)
                    return frame


def break_off(script, connection):
    script.next_call(connection)


def answer_with(result: dict[str, Any]) -> Callable[[Script, Any], None]:
    """Return the step that answers one call, with a PING before it, and waits for the end."""

    def answer(script: Script, connection: Any) -> None:
        call = script.next_call(connection)
        connection.sendall(encode([0, {"v": 1}]) + encode([8, 5]) + encode([2, call[1], result]))
        while connection.recv(65_536):
            pass

    return answer
