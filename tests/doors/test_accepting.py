"""R14: a door without free file descriptors hangs up, waits, and serves again; it leaves some to everything else."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest
from serving import eventually, serving

from agentd.doors.accepting import PAUSE_S, connections_for_files

pytestmark = pytest.mark.anyio


@contextmanager
def at_most(files: int) -> Iterator[None]:
    """Have no descriptor with a larger number opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and files > hard:
        pytest.skip(f"this process may have no more than {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def no_descriptor_free() -> Iterator[None]:
    """Have every descriptor in use."""
    held: list[int] = []
    with at_most(max(map(int, os.listdir("/dev/fd"))) + 20):
        try:
            while True:
                held.append(os.dup(0))
        except OSError:
            yield
        finally:
            for descriptor in held:
                os.close(descriptor)


async def test_who_comes_when_no_descriptor_is_free_is_hung_up_on_once(path: str, connect_raw: Any):
    async with serving(path) as served, connect_raw(path) as other:
        with socket.socket(socket.AF_UNIX) as early, socket.socket(socket.AF_UNIX) as late:
            with no_descriptor_free():
                early.connect(path)
                assert await anyio.to_thread.run_sync(early.recv, 1) == b""
                late.connect(path)  # waits in the queue
                began_s, cpu_s, turns = time.monotonic(), time.process_time(), 0
                while time.monotonic() - began_s < PAUSE_S * 0.5:
                    assert (await other.call(turns := turns + 1, "daemon.status"))[0] == 2
                    await anyio.sleep(0.01)
                assert time.process_time() - cpu_s < PAUSE_S * 0.4
            assert [values["hung_up"] for event, values in served.log.lines if event == "rpc.no_descriptor"] == [1]
            await eventually(lambda: served.door.counters.connections == 2)  # it was kept, and is served now
        async with connect_raw(path) as after:
            assert (await after.call(1, "daemon.status"))[0] == 2


@pytest.mark.parametrize(("files", "most"), [(128, 80), (1024, 768), (12_000, 10_000)])
def test_connections_leave_descriptors_to_the_rest(files: int, most: int):
    with at_most(files):
        allowed = connections_for_files(10_000)
    assert 1 <= allowed <= most
    assert allowed == 10_000 or allowed >= most - 100


def test_a_limit_of_the_configuration_that_is_lower_counts():
    with at_most(1024):
        assert connections_for_files(16) == 16
