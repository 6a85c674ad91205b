"""A door with a small table of answers, for the tests of the door and of the clients."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import anyio.from_thread

from agentd.agents.waiters import Wait, Waiters
from agentd.config import RpcConfig
from agentd.doors.access import AccessLog
from agentd.doors.dispatch import CallContext
from agentd.doors.peers import Peer
from agentd.doors.rpc import RpcDoor
from agentd.errors import NotFound
from agentd.records import Caller, Change, Event, Receipt, Role
from agentd.wire.calls import schema

LIMIT_S = 10.0


class Log:
    """Keeps what is logged, as (event, values)."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **values: Any) -> None:
        self.lines.append((event, values))

    error = info = debug = warning

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Arrival(Wait):
    """A wait for any change of a message; one that is there at once is named `ready`, a look that fails `broken`."""

    __slots__ = ("_answers",)
    method = "messages.wait"

    def __init__(self, answers: Answers, key: str, timeout_s: float) -> None:
        super().__init__(answers.waiters, key, timeout_s)
        self._answers = answers

    def wanted(self, what: Change | Event) -> bool:
        return isinstance(what, Change) and what.id == self.key

    async def look(self, *, over: bool) -> Any:
        self._answers.looks += 1
        self._answers.tell()
        if self.key.startswith("slow"):
            await self._answers.may_look.wait()
        if self.key == "broken" and over:
            raise ZeroDivisionError("the test wants it")
        return {"over": over} if over or self.key == "ready" else None


class Answers:
    """What the door's calls are answered with here; `sent` keeps the messages, `begun` and `ended` the waits."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.callers: list[Caller] = []
        self.contexts: list[CallContext] = []
        self.begun = self.ended = self.produced = 0
        self.waiters = Waiters()
        self.looks = 0
        self.may_look = anyio.Event()
        self.changed = anyio.Event()
        self.payload = b"x" * 10
        self.together = 0  # how many items of a stream are there at once; 0: each comes by itself

    def __call__(self, caller: Caller, method: str, params: Any, context: CallContext) -> Any:
        self.callers.append(caller)
        self.contexts.append(context)
        answer = getattr(self, method.replace(".", "_"), None)
        if answer is None:
            raise RuntimeError(f"no answer for {method}")
        return answer(params)

    async def until(self, **wanted: int) -> None:
        """Wait until the counters have these values."""
        with anyio.fail_after(LIMIT_S):
            while any(getattr(self, name) != value for name, value in wanted.items()):
                await self.changed.wait()

    def tell(self) -> None:
        changed, self.changed = self.changed, anyio.Event()
        changed.set()

    def daemon_status(self, _params: Any) -> Any:
        return {"version": "test", "pid": os.getpid()}

    def schema(self, _params: Any) -> Any:
        return schema()

    def teams_get(self, params: Any) -> Any:
        raise NotFound(f"no team {params.team}", hint="`agentd team ls` lists them")

    def messages_send(self, params: Any) -> Any:
        self.sent.append(params)
        return Receipt(f"m{len(self.sent)}", params.to)._asdict()

    def messages_send_batch(self, params: Any) -> Any:
        self.sent += params.messages
        return {"results": [self._accepted(item) for item in params.messages]}

    def _accepted(self, item: dict[str, Any]) -> Any:
        if item["to"] == "nobody":
            return {"error": {"code": "unknown_target", "message": "no agent nobody", "hint": None, "retryable": False}}
        return {"id": f"m-{item['body'][:8]}", "to": item["to"], "state": "accepted"}

    async def agents_spawn(self, _params: Any) -> Any:
        """Say how long the call knows that it has."""
        return {"left_s": self._left_s()}

    async def agents_interrupt(self, _params: Any) -> Any:
        """Say it, too."""
        return {"left_s": self._left_s()}

    def _left_s(self) -> float:
        return anyio.current_effective_deadline() - anyio.current_time()

    async def agents_capture(self, _params: Any) -> Any:
        """Take for ever."""
        self.begun += 1
        self.tell()
        try:
            await anyio.sleep_forever()
        finally:
            self.ended += 1
            self.tell()

    def messages_wait(self, params: Any) -> Any:
        return Arrival(self, params.id, params.timeout_s).begin()

    async def agents_wait(self, params: Any) -> Any:
        self.begun += 1
        self.tell()
        try:
            if params.target == "broken":
                raise ZeroDivisionError("the test wants it")
            if params.target != "ready":
                await anyio.sleep_forever()
            return {"agent": {"name": params.target}}
        finally:
            self.ended += 1
            self.tell()

    async def events_follow(self, params: Any) -> Any:
        number = params.since or 0
        self.begun += 1
        try:
            most = int(params.types[0]) if params.types else 1 << 60
            while number < most:
                begun, number = number, min(most, number + (self.together or 1))
                self.produced += number - begun
                items = [{"id": each, "type": "x", "payload": self.payload} for each in range(begun + 1, number + 1)]
                yield items if self.together else items[0]
        finally:
            self.ended += 1
            self.tell()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait for what no event tells."""
    with anyio.fail_after(LIMIT_S):
        while not condition():
            await anyio.sleep(0.005)


def as_operator(peer: Peer, _token: str | None) -> Caller:
    return Caller(Role.OPERATOR, pid=peer.pid, uid=peer.uid)


class Served:
    """A door that serves, and what stands behind it."""

    def __init__(self, path: str, config: RpcConfig, identify: Any = as_operator) -> None:
        self.path = path
        self.log = Log()
        self.answers = Answers()
        self.connections: list[int] = []
        self.emitted: list[tuple[str, dict[str, Any]]] = []
        self.access_file = f"{path}.access"
        self.access = AccessLog(self.access_file, lambda type_, **data: self.emitted.append((type_, data)), self.log)
        hello = {"server": "test", "pid": os.getpid(), "instance": "i"}
        self.door = RpcDoor(
            path, config, self.answers, identify, hello, self.log, self.connections.append, access=self.access
        )

    def accesses(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        with open(self.access_file) as file:
            return [json.loads(line) for line in file]


@asynccontextmanager
async def serving(path: str, identify: Any = as_operator, **limits: Any) -> AsyncIterator[Served]:
    served = Served(path, RpcConfig(**limits), identify)
    async with anyio.create_task_group() as tasks:
        await tasks.start(served.door.serve)
        try:
            yield served
        finally:
            tasks.cancel_scope.cancel()
            served.access.close()


@contextmanager
def serving_in_thread(path: str, identify: Any = as_operator, **limits: Any) -> Iterator[Served]:
    """The same for blocking clients."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(path, identify, **limits)) as served,
    ):
        yield served


@contextmanager
def in_thread(work: Any) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(LIMIT_S)
        assert not thread.is_alive()
