"""Clients that threads and tasks share, beside a real daemon that is killed and comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import anyio
import pytest
from instance import Instance, instance, wait_until

from agentd import aio
from agentd.client import Client
from agentd.errors import Unavailable

THREADS, CONNECTIONS = 50, 8


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    """Give an instance whose daemon runs at the end of each test."""
    with instance() as one:
        one.up()
        yield one


def test_fifty_threads_send_and_read_over_eight_connections(whole: Instance):
    with whole.client(connections=CONNECTIONS) as client:

        def sends_and_reads(number: int) -> None:
            for round_ in range(5):
                body = f"{number}/{round_}"
                assert client.messages_get(id=client.send("operator", body).id)["body"] == body

        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(sends_and_reads, range(THREADS)))
        assert len(client._connections._own().all) <= CONNECTIONS


class Through:
    """Threads that call all the time, and what became of their calls."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.ended = threading.Event()
        self.keyed: dict[str, str] = {}
        self.sent: set[str] = set()
        self.not_known: list[str] = []
        self.lists = 0

    def go_on(self, running: list[Future[None]]) -> None:
        """Wait until some more calls of each kind were answered, or one of the threads has failed."""
        before = self.counts()

        def are_more() -> bool:
            return all(now > then + 20 for now, then in zip(self.counts(), before, strict=True))

        wait_until(lambda: are_more() or any(each.done() for each in running), "calls to be made")

    def counts(self) -> tuple[int, int, int]:
        """Return how many calls of each kind were answered."""
        return len(self.keyed), self.lists, len(self.sent)

    def keyed_sends(self, number: int) -> None:
        """Send with a key: each is accepted, whatever happens."""
        count = 0
        while not self.ended.is_set():
            count += 1
            key = f"{number}-{count}"
            self.keyed[key] = self.client.send("operator", key, key=key).id

    def reads(self, _number: int) -> None:
        """Read: none fails."""
        while not self.ended.is_set():
            self.lists += len(self.client.agents_list()["agents"]) + 1

    def plain_sends(self, number: int) -> None:
        """Send without a key: who breaks off says that it may have happened."""
        count = 0
        while not self.ended.is_set():
            count += 1
            body = f"plain {number}-{count}"
            try:
                self.client.send("operator", body)
            except Unavailable as error:
                if "whether the call was done is not known" not in error.message:
                    raise
                self.not_known.append(body)
            else:
                self.sent.add(body)


def test_a_daemon_that_is_killed_is_survived_by_what_may_be_repeated(whole: Instance):
    with whole.client(connections=CONNECTIONS, patience_s=30.0) as client:
        through = Through(client)
        kinds = (through.keyed_sends, through.reads, through.plain_sends)
        with ThreadPoolExecutor(12) as threads:
            running = [threads.submit(kinds[number % 3], number) for number in range(12)]
            try:
                for _ in range(2):
                    through.go_on(running)
                    whole.kill()
                    whole.up()
            finally:
                through.ended.set()
            for each in running:
                each.result(30)
        bodies = [line["body"] for line in exported(client)]
    assert set(through.keyed) <= set(bodies)
    assert len(bodies) == len(set(bodies)), "a message was accepted twice"
    assert through.sent <= set(bodies)
    assert {body for body in bodies if body.startswith("plain")} <= through.sent | set(through.not_known)


def exported(client: Client) -> Iterator[dict]:
    """Yield every message that these threads sent."""
    cursor = ""
    while cursor is not None:
        page = client.mailbox_export(cursor=cursor)
        yield from (line for line in page["messages"] if "-" in line["body"])
        cursor = page["cursor"]


def test_an_asynchronous_client_survives_it_too(whole: Instance):
    anyio.run(calls_through_a_death, whole)


async def calls_through_a_death(whole: Instance) -> None:
    async with aio.connect(environ=whole.environ, autostart=False, patience_s=30.0) as client:
        made = 0
        done = anyio.Event()

        async def reads() -> None:
            nonlocal made
            while not done.is_set():
                assert "agents" in await client.agents_list()
                made += 1

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(reads)
            with anyio.fail_after(60):
                await anyio.to_thread.run_sync(wait_until, lambda: made > 100, "calls to be made")
                await anyio.to_thread.run_sync(whole.kill)
                await anyio.to_thread.run_sync(whole.up)
                before = made
                await anyio.to_thread.run_sync(wait_until, lambda: made > before + 100, "calls to go on")
            done.set()
