"""A door in a program that has no file descriptor left for a while; says what became of those who came then."""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from conftest import raw_peer
from serving import eventually, serving

from agentd.doors.accepting import PAUSE_S


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Have every descriptor in use."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    held: list[int] = []
    try:
        while True:
            held.append(os.dup(0))
    except OSError:
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)


async def main(path: str) -> None:
    async with serving(path) as served, raw_peer(path) as other:
        with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
            with no_descriptor_free():
                early.connect(path)
                said = await anyio.to_thread.run_sync(early.recv, 1)
                late.connect(path)  # waits in the queue
                began_s, cpu_s, calls = time.monotonic(), time.process_time(), 0
                while time.monotonic() - began_s < PAUSE_S / 2:
                    assert (await other.call(calls := calls + 1, "daemon.status"))[0] == 2
                    await anyio.sleep(0.01)
                share = (time.process_time() - cpu_s) / (PAUSE_S / 2)
            hung_up = [values["hung_up"] for event, values in served.log.lines if event == "rpc.no_descriptor"]
            await eventually(lambda: served.door.counters.connections == 2)  # the late one was kept
        async with raw_peer(path) as after:
            answered = (await after.call(1, "daemon.status"))[0] == 2
    print(json.dumps({"said": said.decode(), "hung_up": hung_up, "share": share, "answered": answered}))


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
