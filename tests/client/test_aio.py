"""The asynchronous client: what is its own; the shared rules are tested with the blocking one."""

from __future__ import annotations

import os
import subprocess
import sys

import anyio
import anyio.lowlevel
import pytest
from serving import LIMIT_S, eventually, serving

from agentd.aio import connect
from agentd.errors import Conflict, DeadlineExceeded, InvalidValue, NotFound, Unavailable, UnknownTarget
from agentd.records import Receipt

pytestmark = pytest.mark.anyio


async def test_calls_receipts_batches(path):
    async with serving(path), connect(path, environ={}) as client:
        assert (await client.daemon_status())["version"] == "test"
        assert await client.send("a", "hello") == Receipt("m1", "a")
        results = await client.send_batch([{"to": "a", "body": "1"}, {"to": "nobody", "body": "2"}], batch_size=1)
        assert [type(result) for result in results] == [Receipt, UnknownTarget]


async def test_errors_reach_the_caller_bare(path):
    with pytest.raises(ExceptionGroup) as caught:  # the door's own task group is around it here
        async with serving(path), connect(path, environ={}) as client:
            await client.teams_get(team="red")
    assert [type(error) for error in caught.value.exceptions] == [NotFound]


async def test_many_tasks_share_a_connection(path):
    async with serving(path) as served, connect(path, environ={}) as client:

        async def some(count):
            for _ in range(count):
                assert (await client.daemon_status())["version"] == "test"

        async def wait_long():
            await client.agents_wait(target="a", until="idle", timeout_s=60)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(wait_long)
            for _ in range(20):
                tasks.start_soon(some, 10)
            await served.answers.until(begun=3)
            await eventually(lambda: served.door.counters.calls == 200)
            tasks.cancel_scope.cancel()
        await served.answers.until(ended=3)
        assert served.door.counters.accepted == 1
        assert (await client.daemon_status())["version"] == "test"


async def test_a_cancelled_reader_hands_over(path):
    async with serving(path) as served, connect(path, environ={}) as client:
        reader, answered = anyio.CancelScope(), anyio.Event()

        async def read_until_cancelled():
            with reader:
                await client.agents_wait(target="a", until="idle", timeout_s=60)

        async def follow():
            items = client.events_follow(types=["2"], credit=1)
            assert (await anext(items))["id"] == 1
            answered.set()
            assert (await anext(items))["id"] == 2
            await items.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_until_cancelled)
            await served.answers.until(begun=1)
            tasks.start_soon(follow)
            with anyio.fail_after(LIMIT_S):
                await answered.wait()
            reader.cancel()
        await eventually(lambda: served.door.counters.in_flight == 0)


async def test_streams_side_by_side(path):
    async with serving(path) as served, connect(path, environ={}) as client:

        async def follow(last):
            assert [event["id"] async for event in client.events_follow(types=[str(last)])] == list(range(1, last + 1))

        async with anyio.create_task_group() as tasks:
            for last in (10, 700, 1500):
                tasks.start_soon(follow, last)
        items = client.stream("events.follow", credit=4)
        assert [(await anext(items))["id"] for _ in range(10)] == list(range(1, 11))
        await items.aclose()
        await eventually(lambda: served.answers.ended == 4)
        with pytest.raises(InvalidValue):
            await anext(client.events(follow=True, since=-1))


async def test_time_runs_out(path):
    async with serving(path) as served, connect(path, environ={}) as client:
        with pytest.raises(DeadlineExceeded):
            await client.agents_capture(target="a", timeout_s=0.05)
        await served.answers.until(ended=served.answers.begun)


async def test_it_connects_again(path):
    async with serving(path) as served, connect(path, environ={}) as client:
        await client.daemon_status()
        next(iter(served.door._shared.connections)).abort()
        await eventually(lambda: served.door.counters.connections == 0)
        assert (await client.daemon_status())["version"] == "test"
        assert served.door.counters.accepted == 2


async def test_no_daemon(path):
    with pytest.raises(Unavailable, match="no daemon is running at"):
        async with connect(path, autostart=False, environ={}):
            pass


async def test_a_wait_longer_than_the_daemon_lets_one_be_is_asked_for_again(path):
    async with (
        serving(path, call_s=0.1, wait_s=0.2, frame_timeout_s=0.2) as served,
        connect(path, environ={}) as client,
    ):
        began = anyio.current_time()
        try:
            await client.agents_wait(target="a", until="idle", timeout_s=0.8)
        except DeadlineExceeded:
            assert 0.8 <= anyio.current_time() - began < 5
            assert served.answers.begun >= 2  # after 0.3 s
        else:
            pytest.fail("nothing came")


async def test_a_crowd_that_waits_and_a_stream_leave_room_for_calls(path):
    """The daemon reads no more of a connection on which 1,024 calls are under way."""
    async with serving(path) as served, connect(path, environ={}) as client:

        async def wait_long():
            await client.agents_wait(target="a", until="idle", timeout_s=60)

        async with anyio.create_task_group() as tasks:
            for _ in range(1100):
                tasks.start_soon(wait_long)
            await served.answers.until(begun=1100)
            assert (await client.call("daemon.status", timeout_s=LIMIT_S))["version"] == "test"
            assert served.door.counters.accepted == 5  # 256 on each, and what is beyond that
            tasks.cancel_scope.cancel()
        await served.answers.until(ended=1100)


@pytest.mark.parametrize(("connections", "made"), [(8, 2), (1, 1)])
async def test_calls_go_beside_a_stream_where_there_may_be_another_connection(path, connections, made):
    async with serving(path) as served, connect(path, environ={}, connections=connections) as client:
        items = client.stream("events.follow", credit=4)
        assert (await anext(items))["id"] == 1
        for _ in range(3):
            assert (await client.daemon_status())["version"] == "test"
        assert served.door.counters.accepted == made
        assert (await anext(items))["id"] == 2
        await items.aclose()


async def test_a_pipeline(path):
    async with serving(path), connect(path, environ={}) as client:
        async with client.pipeline() as together:
            made = [together.call("daemon.status") for _ in range(2000)]
            failing = together.call("teams.get", team="red")
        assert all(call.result()["version"] == "test" for call in made)
        with pytest.raises(NotFound):
            failing.result()


async def test_whoever_is_cancelled_while_writing_breaks_nothing_for_others(path):
    async with serving(path) as served, connect(path, environ={}) as client:
        for turns in range(12):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.daemon_status)
                for _ in range(turns):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        assert (await client.daemon_status())["version"] == "test"
        assert served.door.counters.accepted == 1


async def test_a_closed_client_is_closed(path):
    async with serving(path) as served:
        async with connect(path, environ={}) as client:
            await client.daemon_status()
        with pytest.raises(Conflict, match="this client was closed"):
            await client.daemon_status()
        await eventually(lambda: served.door.counters.connections == 0)


async def test_broken_connections_are_closed_when_another_one_is_made(path):
    before = len(os.listdir("/dev/fd"))
    async with serving(path) as served, connect(path, environ={}) as client:
        for _ in range(3):
            await client.daemon_status()
            next(iter(served.door._shared.connections)).abort()
            await eventually(lambda: served.door.counters.connections == 0)
        await client.daemon_status()
        assert len(client._lines) + len(client._retired) == 1
    assert len(os.listdir("/dev/fd")) == before


FORKS = """
import os, sys
import anyio
from agentd.aio import AsyncClient
from agentd.place import Place

async def main():
    client = AsyncClient(Place.find(sys.argv[1], autostart=False, token=None, environ={}))
    await client.daemon_status()
    items = client.stream("events.follow", credit=4)
    assert (await anext(items))["id"] == 1
    child = os.fork()
    if not child:
        return client, items, child
    assert os.waitpid(child, 0)[1] == 0
    assert [(await anext(items))["id"] for _ in range(10)] == list(range(2, 12))
    await items.aclose()
    await client.daemon_status()
    await client.close()
    return client, items, child

async def go_on(client):
    await client.agents_list()
    await client.close()

client, items, child = anyio.run(main)
if not child:
    anyio.run(go_on, client)
    os._exit(0)
print(os.getpid(), child)
"""


async def test_a_forked_process_has_connections_of_its_own(path):
    async with serving(path) as served:
        served.answers.agents_list = lambda _: {"agents": []}
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        argv = [sys.executable, "-c", FORKS, path]
        done = await anyio.run_process(argv, env=environ, check=False, stderr=subprocess.STDOUT)
        assert done.returncode == 0, done.stdout.decode()
        parent, child = map(int, done.stdout.split())
        assert [caller.pid for caller in served.answers.callers] == [parent, parent, child, parent]
