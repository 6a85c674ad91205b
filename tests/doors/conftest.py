"""A raw peer: what a client in any language would write and read."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgpack
import pytest

LIMIT_S = 10.0


def packed(body: list[Any]) -> bytes:
    data = msgpack.packb(body)
    return len(data).to_bytes(4, "big") + data


class RawPeer:
    """One connection, frame by frame."""

    def __init__(self, stream: anyio.abc.SocketStream) -> None:
        self.stream = stream
        self.buffer = b""

    async def send(self, *bodies: list[Any]) -> None:
        await self.stream.send(b"".join(map(packed, bodies)))

    async def read(self) -> list[Any]:
        with anyio.fail_after(LIMIT_S):
            length = int.from_bytes(await self._exactly(4), "big")
            return msgpack.unpackb(await self._exactly(length), strict_map_key=False)

    async def hello(self, **values: Any) -> dict[str, Any]:
        await self.send([0, {"v": [1], "client": "raw", **values}])
        kind, answer = await self.read()
        assert kind == 0
        return answer

    async def call(self, call_id: int, method: str, params: Any = None, options: Any = None) -> list[Any]:
        await self.send([1, call_id, method, params or {}, *([options] if options else [])])
        return await self.read()

    async def is_closed(self) -> bool:
        with anyio.fail_after(LIMIT_S):
            try:
                while True:
                    self.buffer += await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return True

    async def _exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            self.buffer += await self.stream.receive()
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data


@asynccontextmanager
async def raw_peer(path: str, *, hello: bool = True) -> AsyncIterator[RawPeer]:
    async with await anyio.connect_unix(path) as stream:
        peer = RawPeer(stream)
        if hello:
            await peer.hello()
        yield peer


@pytest.fixture
def path(tmp_path) -> str:
    return str(tmp_path / "agentd.sock")


@pytest.fixture
def connect_raw():
    return raw_peer


@pytest.fixture
def frame():
    return packed


@pytest.fixture
def silent(path):
    """A blocking socket that only does what it is told."""
    made = []

    def make() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        made.append(sock)
        sock.settimeout(LIMIT_S)
        sock.connect(path)
        return sock

    yield make
    for sock in made:
        sock.close()
