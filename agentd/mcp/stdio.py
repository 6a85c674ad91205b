"""The loop of `agentd mcp`: one thread that waits for its client, for the daemon, and for room to write."""

from __future__ import annotations

import os
import select
import time

from agentd.errors import EXIT_OK, Unauthenticated
from agentd.mcp.lines import Lines
from agentd.mcp.link import Link
from agentd.mcp.protocol import Protocol
from agentd.place import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_READ_BYTES = 65_536
_MOST_UNREAD_BYTES = 4 * 1024 * 1024  # beyond it nothing more is read of a client that does not read
_GRACE_S = 1.0  # for answers under way when the client has said its last


def serve(environ: Mapping[str, str]) -> int:
    """Serve MCP on stdin and stdout as the agent whose token the environment names, until stdin ends."""
    place = Place.find(None, autostart=False, token=None, environ=environ)
    if not place.token:
        raise Unauthenticated(
            "`agentd mcp` is run by an agent's program, and there is no agent's token here",
            hint="give it AGENTD_TOKEN_FILE and AGENTD_SOCKET as they stand in the agent's pane",
        )
    out = os.dup(1)
    os.dup2(2, 1)  # whatever else prints, nothing but the protocol reaches the client
    return Stdio(0, out, Link(place)).run()


class Stdio:
    """Moves lines between a client and the daemon."""

    def __init__(self, stdin: int, stdout: int, link: Link) -> None:
        self._stdin = stdin
        self._stdout = stdout
        self._link = link
        self._lines = Lines()
        self._protocol = Protocol()
        self._out = bytearray()
        self._ends_at_s: float | None = None  # stdin has ended

    def run(self) -> int:
        """Serve until the client is gone."""
        while not self._done():
            ready = self._poll()
            if ready.get(self._stdout, 0) and not self._write():
                break
            if self._stdin in ready:
                self._read()
            if self._link.fileno in ready:
                self._heard(ready[self._link.fileno or 0])
            self._link.go_on()
            self._gather()
        self._link.close()
        return EXIT_OK

    def _done(self) -> bool:
        if self._ends_at_s is None or self._out:
            return False
        return not self._protocol.waiting or time.monotonic() >= self._ends_at_s

    def _poll(self) -> dict[int, int]:
        poll = select.poll()
        poll.register(self._stdout, select.POLLOUT if self._out else 0)
        if self._ends_at_s is None and len(self._out) < _MOST_UNREAD_BYTES:
            poll.register(self._stdin, select.POLLIN)
        fileno = self._link.fileno
        if fileno is not None:
            poll.register(fileno, select.POLLIN | (select.POLLOUT if self._link.wants_to_write else 0))
        return dict(poll.poll(self._timeout_ms()))

    def _timeout_ms(self) -> int | None:
        waits_s = [self._link.due_in_s()]
        if self._ends_at_s is not None:
            waits_s.append(max(0.0, self._ends_at_s - time.monotonic()))
        known_s = [wait_s for wait_s in waits_s if wait_s is not None]
        return int(min(known_s) * 1000) + 1 if known_s else None

    def _read(self) -> None:
        try:
            data = os.read(self._stdin, _READ_BYTES)
        except OSError:  # it was closed before we began, or its terminal is gone
            data = b""
        if not data:
            self._ends_at_s = time.monotonic() + _GRACE_S
        for line in self._lines.feed(data or b"\n"):
            for question in self._protocol.take(line):
                self._link.ask(question)
            for question in self._protocol.dropped:
                self._link.drop(question)
            self._protocol.dropped.clear()

    def _heard(self, events: int) -> None:
        if events & select.POLLOUT:
            self._link.writable()
        if events & ~select.POLLOUT:
            self._link.readable()

    def _gather(self) -> None:
        """Turn answers into lines, and lines into what is to be written."""
        for question, answer in self._link.answers:
            self._protocol.answered(question, answer)
        self._link.answers.clear()
        for line in self._protocol.to_send:
            self._out += line
        self._protocol.to_send.clear()

    def _write(self) -> bool:
        """Write as much as surely finds room, so that a client that writes before it reads holds nobody up."""
        try:
            written = os.write(self._stdout, self._out[: select.PIPE_BUF]) if self._out else 0
        except OSError:
            return False
        del self._out[:written]
        return bool(written)
