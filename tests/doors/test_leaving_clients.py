"""R13, the door alone: a client that goes at any moment leaves no task, no call and no stream behind."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Any

import anyio
import pytest
from serving import Served, eventually, serving

pytestmark = pytest.mark.anyio
CLIENTS = 200
SEED = time.time_ns()
WAIT = {"target": "a", "until": "idle"}
CALLS = [
    [1, 1, "agents.wait", WAIT],
    [1, 2, "agents.wait", {**WAIT, "target": "ready"}],
    [1, 3, "agents.wait", {**WAIT, "target": "broken"}],
    [1, 4, "events.follow", {}, {"credit": 5}],
    [1, 5, "events.follow", {}, {"credit": 1_000_000}],
    [1, 6, "events.follow", {}, {"credit": 0}],
    [1, 7, "rpc.batch", [["agents.wait", WAIT], ["daemon.status", {}]]],
    [1, 8, "agents.stop", {"targets": ["a"]}],
    [1, 9, "daemon.status", {}],
    [6, 1],
    [6, 5],
]


def tasks_left(served: Served) -> int:
    """Return how many tasks there are once no worker waits for another job."""
    assert served.door._shared is not None
    served.door._shared.workers.thin()
    return len(asyncio.all_tasks())


@pytest.mark.parametrize("read", [True, False], ids=["having read", "unread"])
async def test_clients_that_go_at_any_moment_leave_nothing(path: str, frame: Any, read: bool):
    chosen = random.Random(SEED)
    async with serving(path) as served:
        served.answers.agents_stop = served.answers.agents_capture  # takes for ever, and is written down
        before = tasks_left(served)
        for _ in range(CLIENTS):
            calls = chosen.sample(CALLS, chosen.randint(1, len(CALLS)))
            words = frame([0, {"v": [1]}]) + b"".join(map(frame, calls))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.send(words if chosen.random() < 0.5 else words[: chosen.randrange(len(words))])
                for _ in range(chosen.randrange(6)):
                    await anyio.lowlevel.checkpoint()
                if read:
                    client.setblocking(False)
                    drain(client)
        await eventually(lambda: served.door.counters.connections == 0)
        await eventually(lambda: served.door.counters.in_flight == 0)
        await eventually(lambda: served.answers.begun == served.answers.ended)
        await eventually(lambda: tasks_left(served) <= before)
        assert served.door.counters.accepted == CLIENTS, SEED


def drain(client: socket.socket) -> None:
    """Read what is there."""
    try:
        while client.recv(65536):
            pass
    except (BlockingIOError, ConnectionResetError):
        return
