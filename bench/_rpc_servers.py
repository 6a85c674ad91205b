"""The servers that speak our frames: the door with answers from memory, and the least that asyncio can do."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import msgpack
import msgspec
import structlog

from agentd.agents.directory import Directory
from agentd.agents.registry import Entry
from agentd.agents.waiters import Wait, Waiters
from agentd.api import agents, events, views
from agentd.api.agent_rows import PackedAgents
from agentd.api.event_rows import PackedEvents
from agentd.config import RpcConfig
from agentd.doors.identity import identify
from agentd.doors.rpc import RpcDoor
from agentd.events import Events
from agentd.records import Agent, AgentState, Change, Event, PaneRef
from agentd.wire import calls
from bench._rpc_load import packed

AGENTS = 1000
SERVER, SOCKET = "4242:1700000000", "/run/user/1000/agentd/tmux-0.sock"  # where their panes would be
PARAMS = {"target": "a-name-of-usual-length-in-a-team-of-some-agents-in-a-project"}  # a call of 100 bytes
REPLY = {  # an answer of 200 bytes
    "id": "01hzy3v7",
    "name": "worker-1",
    "state": "idle",
    "reason": "the prompt is empty and nothing moved for a second",
    "inbox": 0,
    "cwd": "/home/somebody/projects/a-project",
    "team": "red",
    "role": "worker",
    "screen": "0123456789abcdef",
}
# the calls of the table that the door's answers below stand for
AT_ONCE = "agents.explain"  # from memory
WAITS = "agents.get"  # suspended once, as for a commit
FOR_EVER = "agents.wait"  # a call in flight
WAITER = "messages.wait"  # a wait for a change of a message
LIST = "agents.list"  # the real one, of AGENTS agents
LIST_PACKED = "teams.list"  # the same rows, encoded once
LIST_ROWS = "profiles.list"  # the same rows, kept as maps and encoded for each call
EMIT = "events.list"  # makes `limit` events happen
FOLLOW = "events.follow"  # the real one
EVENT = {"agent": "01hzy3v7", "name": "worker-1", "state": "working", "was": "idle", "reason": "a line was added"}


def some_agents() -> list[Agent]:
    """Return agents as a large instance has them."""
    pane = PaneRef("$3", "@5", "%7", 4711, SERVER)
    return [
        Agent(
            id=f"01hzy{number:04}",
            name=f"worker-{number}",
            profile="claude",
            state=AgentState.IDLE,
            team="red",
            role="worker",
            cwd=f"/home/somebody/projects/project-{number % 20}",
            pane=pane,
            created_ns=1_700_000_000_000_000_000,
            since_ns=1_700_000_000_000_000_000 + number,
        )
        for number in range(AGENTS)
    ]


def _parts() -> Any:
    """Return what the list of agents asks of the daemon's parts; there are no panes behind these agents."""
    return SimpleNamespace(
        directory=Directory(Entry(agent) for agent in some_agents()),
        crew=SimpleNamespace(live=lambda _id: None),
        mailbox=SimpleNamespace(depth=lambda _id: 0, depths=dict, inboxes_version=0),
        tmux=SimpleNamespace(socket_of=lambda _pane: SOCKET, sockets=lambda: {SERVER: SOCKET}),
        events=Events(),
        packed_events=PackedEvents(),
        packed_agents=PackedAgents(),
    )


def _rows() -> dict[str, Any]:
    parts = _parts()
    return {"agents": [views.agent_row(parts, agent) for agent in parts.directory]}


class Answers:
    """Answers calls from memory; each stands for a kind of call."""

    def __init__(self) -> None:
        self._parts = _parts()
        self._waiters = Waiters()
        rows = _rows()
        raw = msgspec.Raw(msgspec.msgpack.encode(rows))
        self._by_method: dict[str, Callable[[Any], Any]] = {
            AT_ONCE: lambda _params: REPLY,
            WAITS: lambda _params: _later(),
            FOR_EVER: lambda _params: asyncio.Event().wait(),
            WAITER: lambda params: _Changed(self._waiters, params.id, params.timeout_s).begin(),
            LIST: partial(agents.list_, self._parts, None),
            LIST_PACKED: lambda _params: raw,
            LIST_ROWS: lambda _params: rows,
            EMIT: self._emit,
            FOLLOW: partial(events.follow, self._parts, None),
        }

    def __call__(self, _caller: object, method: str, params: Any, _context: object) -> Any:
        """Return the answer, or what gives it later."""
        return self._by_method[method](params)

    def _emit(self, params: calls.EventsList) -> dict[str, Any]:
        for _ in range(params.limit):
            self._parts.events.emit("agent.state", **EVENT)
        return {}


class _Changed(Wait):
    """A wait as messages.wait makes it: it looks at the message, which takes a commit's time, and is then a record."""

    __slots__ = ("_caller", "_parts", "_until")
    method = WAITER

    def wanted(self, what: Change | Event) -> bool:
        return isinstance(what, Change) and what.id == self.key

    async def look(self, *, over: bool) -> dict[str, Any] | None:
        await _later()
        return REPLY if over else None


async def _later() -> dict[str, Any]:
    committed = asyncio.Event()
    asyncio.get_running_loop().call_soon(committed.set)
    await committed.wait()
    return REPLY


class _Nobody:
    """A directory without agents."""

    def by_token(self, _token):
        return None

    def by_process(self, _pids, _tty):
        return None

    def by_environment(self, _pids):
        return None


async def door(path: str) -> None:
    """Serve as the daemon does."""
    config = RpcConfig(max_connections=60_000, max_in_flight_total=1_000_000)
    who = partial(identify, directory=_Nobody())
    hello = {"server": "bench", "pid": os.getpid(), "instance": ""}
    await RpcDoor(path, config, Answers(), who, hello, structlog.get_logger()).serve()


class Bare(asyncio.Protocol):
    """Length-prefixed msgpack and nothing else: no limits, no table, no types, no rights, no counters."""

    def __init__(self, reply: Any = REPLY) -> None:
        self.reply = reply
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data, at, out = self.buffer + data if self.buffer else data, 0, []
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            frame = msgpack.unpackb(data[at + 4 : end])
            body = msgpack.packb([0, {}] if frame[0] == 0 else [2, frame[1], self.reply])
            out.append(len(body).to_bytes(4, "big") + body)
            at = end
        self.buffer = data[at:]
        self.transport.write(b"".join(out))


class Taking(asyncio.Protocol, ABC):
    """Takes frame by frame, and answers HELLO."""

    def __init__(self) -> None:
        self.buffer = b""

    def connection_made(self, transport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        data, at = self.buffer + data if self.buffer else data, 0
        while len(data) - at >= 4 and (end := at + 4 + int.from_bytes(data[at : at + 4], "big")) <= len(data):
            frame = msgpack.unpackb(data[at + 4 : end])
            at = end
            if frame[0] == 0:
                self.transport.write(packed([0, {}]))
            else:
                self.take(frame)
        self.buffer = data[at:]

    @abstractmethod
    def take(self, frame: list[Any]) -> None:
        """Do what the call asks."""


class BareTasks(Taking):
    """The least for calls that wait: a task each and nothing else, no deadline, no way to cancel one."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.tasks: set[asyncio.Task] = set()
        self.out: list[bytes] = []

    def take(self, frame: list[Any]) -> None:
        task = self.loop.create_task(self.later(frame[1]))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def later(self, call_id: int) -> None:
        value = await _later()
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(packed([2, call_id, value]))

    def flush(self) -> None:
        self.transport.write(b"".join(self.out))
        self.out.clear()


async def bare(path: str) -> None:
    """Serve the least."""
    await _serve(path, Bare)


async def bare_tasks(path: str) -> None:
    """Serve the least for calls that wait."""
    await _serve(path, BareTasks)


async def bare_list(path: str) -> None:
    """Serve the list of agents, whose rows are at hand and packed for each call."""
    rows = _rows()
    await _serve(path, partial(Bare, rows))


class Queued(Taking):
    """Events as they are usually passed on: a queue and a task for each subscriber."""

    queues: set[asyncio.Queue] = set()  # noqa: RUF012  of all connections

    def __init__(self) -> None:
        super().__init__()
        self.queue: asyncio.Queue = asyncio.Queue()

    def connection_lost(self, _exc) -> None:
        self.queues.discard(self.queue)

    def take(self, frame: list[Any]) -> None:
        if frame[2] == FOLLOW:
            self.queues.add(self.queue)
            self.task = asyncio.create_task(self.pass_on(frame[1]))
            return
        for number in range(frame[3]["limit"]):
            event = {"id": 1_700_000_000_000_000 + number, "type": "agent.state", "at": 1.7e9, "data": EVENT}
            for queue in self.queues:
                queue.put_nowait(event)
        self.transport.write(packed([2, frame[1], {}]))

    async def pass_on(self, call_id: int) -> None:
        seq = 0
        while True:
            event = await self.queue.get()
            seq += 1
            self.transport.write(packed([4, call_id, seq, event]))


async def queued(path: str) -> None:
    """Serve events the usual way."""
    await _serve(path, Queued)


class Written(Taking):
    """The least that telling of events can be: bytes that are at hand are written to each subscriber."""

    transports: set[asyncio.Transport] = set()  # noqa: RUF012  of all connections

    def connection_lost(self, _exc) -> None:
        self.transports.discard(self.transport)

    def take(self, frame: list[Any]) -> None:
        if frame[2] == FOLLOW:
            self.transports.add(self.transport)
            return
        data = frame[3]["limit"] * packed([4, 1, 1, {"id": 1, "type": "agent.state", "at": 1.7e9, "data": EVENT}])
        for transport in self.transports:
            transport.write(data)
        self.transport.write(packed([2, frame[1], {}]))


async def written(path: str) -> None:
    """Serve events with nothing but writes."""
    await _serve(path, Written)


async def _serve(path: str, protocol: Callable[[], asyncio.Protocol]) -> None:
    server = await asyncio.get_running_loop().create_unix_server(protocol, path)
    await server.serve_forever()
