"""The access log: what was refused, what only the operator may do, and which peers were cut off.

Lines of JSON in a file of the user's alone. What somebody wants refused all the time costs a line a second: `count`
says how many there were since the last one. Of parameters only those that say who or what was meant are written down.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agentd.doors.peers import Peer
from agentd.errors import AgentdError, Cancelled, Denied, InternalError, RateLimit, Unauthenticated
from agentd.logs import Log
from agentd.private import open_private
from agentd.records import Caller

PERIOD_S: Final = 1.0  # between two lines about the same
FILE_BYTES: Final = 10_000_000  # then it becomes the one file that is kept beside
_MOST_KINDS: Final = 1_000
_MOST_ITEMS: Final = 20
_MOST_CHARS: Final = 200
REFUSALS: Final = (Denied, Unauthenticated, RateLimit)
MEANT: Final = ("target", "targets", "profile", "name", "team", "n", "size", "cwd", "ids", "names", "shard", "agents")

Emit = Callable[..., object]


@dataclass(slots=True)
class _Told:
    """What was written of one kind, and what was not since."""

    at_s: float
    untold: int = 0
    line: dict[str, Any] = field(default_factory=dict)


class AccessLog:
    """Writes lines, and emits `call.refused` and `peer.closed` with them."""

    def __init__(self, path: str, emit: Emit, log: Log, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._emit = emit
        self._log = log
        self._clock_s = clock_s
        self._told: dict[tuple[str, ...], _Told] = {}
        self._failing = False
        self._open()

    @classmethod
    @contextmanager
    def open(cls, path: str, emit: Emit, log: Log) -> Iterator[AccessLog]:
        """Open the file, 0600, and close it at the end."""
        access = cls(path, emit, log)
        try:
            yield access
        finally:
            access.close()

    def close(self) -> None:
        """Write down what was counted and not told, and close the file."""
        for told in self._told.values():
            if told.untold:
                self._write({**told.line, "count": told.untold})
        os.close(self._descriptor)

    def refused(self, caller: Caller, method: str, error: AgentdError) -> None:
        """Take in that a call was refused to a caller; other errors are between the two of them."""
        if isinstance(error, REFUSALS):
            line = {"what": "refused", **_who(caller), "method": method[:_MOST_CHARS], "code": error.code}
            self._tell(("refused", caller.agent_id, error.code), "call.refused", line)

    def done(self, caller: Caller, method: str, params: object, error: BaseException | None) -> None:
        """Take in how a call ended that only the operator may make."""
        code = {} if error is None else {"code": _code(error)}
        self._write({"what": "done", **_who(caller), "method": method, **_meant(params), **code})

    def closed(self, peer: Peer, caller: Caller | None, code: str, reason: str) -> None:
        """Take in that a peer was turned away or cut off."""
        who = _who(caller) if caller else {"by": None, "pid": peer.pid, "uid": peer.uid}
        line = {"what": "closed", **who, "code": code, "reason": reason[:_MOST_CHARS]}
        self._tell(("closed", str(peer.uid), caller.agent_id if caller else "-", code), "peer.closed", line)

    def _tell(self, kind: tuple[str, ...], event: str, line: dict[str, Any]) -> None:
        now_s = self._clock_s()
        told = self._told.get(kind)
        if told is not None and now_s - told.at_s < PERIOD_S:
            told.untold += 1
            told.line = line
            return
        count = 1 + (told.untold if told else 0)
        self._told[kind] = _Told(now_s)
        if len(self._told) > _MOST_KINDS:
            self._told = {kind: told for kind, told in self._told.items() if told.untold or told.at_s == now_s}
        self._write({**line, "count": count})
        self._emit(event, **{name: value for name, value in line.items() if name != "what"}, count=count)

    def _write(self, line: Mapping[str, Any]) -> None:
        data = msgspec.json.encode({"at": time.time(), **line}) + b"\n"
        try:
            if os.fstat(self._descriptor).st_size + len(data) > FILE_BYTES:
                os.close(self._descriptor)
                os.replace(self._path, self._path + ".1")  # noqa: PTH105  paths are strings here
                self._open()
            os.write(self._descriptor, data)
            self._failing = False
        except OSError as error:  # the call itself goes on; the daemon's log says so once
            if not self._failing:
                self._failing = True
                with suppress(OSError):
                    self._log.error("could not write the access log", path=self._path, error=str(error))

    def _open(self) -> None:
        self._descriptor = open_private(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _who(caller: Caller) -> dict[str, Any]:
    return {"by": caller.agent_id or caller.name, "name": caller.name, "pid": caller.pid, "uid": caller.uid}


def _code(error: BaseException) -> str:
    if isinstance(error, AgentdError):
        return error.code
    return InternalError.code if isinstance(error, Exception) else Cancelled.code  # its task was ended


def _meant(params: object) -> dict[str, Any]:
    found = {name: _short(getattr(params, name, None)) for name in MEANT}
    return {name: value for name, value in found.items() if value is not None}


def _short(value: object) -> Any:
    if isinstance(value, str):
        return value[:_MOST_CHARS]
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return [item[:_MOST_CHARS] for item in value[:_MOST_ITEMS]]
    return value if isinstance(value, int) else None
