"""The door beside grpc.aio, a JSON endpoint of uvicorn and Starlette, and Redis, all on Unix sockets."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from bench._queue import Missing
from bench._redis import in_memory
from bench._rpc_load import Answered, calls, closed_loop
from bench._rpc_process import elsewhere, serving
from bench._rpc_servers import AT_ONCE, PARAMS, REPLY, bare, door
from bench._rpc_table import Rows

CONCURRENT = 64
CONNECTIONS = 10
_METHOD = "/bench.Agents/Explain"
_PACKAGES = {"grpc": ("grpc",), "http": ("uvicorn", "starlette", "httptools")}
Put = Callable[..., None]


async def serve_grpc(path: str) -> None:
    """Serve the same answer over grpc.aio, in msgpack."""
    import grpc
    import msgpack

    async def explain(request: bytes, _context: Any) -> bytes:
        msgpack.unpackb(request)
        return msgpack.packb(REPLY)

    server = grpc.aio.server()
    rows = {"Explain": grpc.unary_unary_rpc_method_handler(explain)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Agents", rows),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


async def serve_http(path: str) -> None:
    """Serve the same answer as JSON, with the quicker of uvicorn's parsers."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def explain(request):
        await request.json()
        return JSONResponse(REPLY)

    app = Starlette(routes=[Route("/agents/explain", explain, methods=["POST"])])
    config = uvicorn.Config(
        app, uds=path, http="httptools", loop="asyncio", lifespan="off", log_level="error", access_log=False
    )
    await uvicorn.Server(config).serve()


def http_request() -> bytes:
    """Return the call as a request of HTTP."""
    import json

    body = json.dumps(PARAMS).encode()
    head = f"POST /agents/explain HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


def redis_request() -> bytes:
    """Return a SET of 100 bytes."""
    return b"*3\r\n$3\r\nSET\r\n$8\r\nworker-1\r\n$100\r\n" + b"x" * 100 + b"\r\n"


def grpc_closed_loop(path: str, seconds: float) -> float:
    """Return calls a second of one caller; the blocking client is the quicker one here."""
    import grpc
    import msgpack

    request = msgpack.packb(PARAMS)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        explain = channel.unary_unary(_METHOD)
        explain(request)
        count, begin_s = 0, time.perf_counter()
        while time.perf_counter() < begin_s + seconds:
            explain(request)
            count += 1
        return count / (time.perf_counter() - begin_s)


def grpc_concurrent(path: str, seconds: float, callers: int) -> float:
    """Return calls a second of so many callers on one channel."""
    return asyncio.run(_grpc_concurrent(path, seconds, callers))


async def _grpc_concurrent(path: str, seconds: float, callers: int) -> float:
    import grpc
    import msgpack

    request, counts = msgpack.packb(PARAMS), []
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        explain = channel.unary_unary(_METHOD)
        await explain(request)

        async def call() -> None:
            count = 0
            while time.perf_counter() < end_s:
                await explain(request)
                count += 1
            counts.append(count)

        begin_s = time.perf_counter()
        end_s = begin_s + seconds
        await asyncio.gather(*(call() for _ in range(callers)))
        return sum(counts) / (time.perf_counter() - begin_s)


def redis_benchmark(path: str, seconds: float, per_s: float) -> float:
    """Return SETs a second by Redis's own client, which is not what limits it."""
    program = shutil.which("redis-benchmark")
    if program is None:
        return 0.0
    argv = [program, "-s", path, "-t", "set", "-c", str(CONNECTIONS), "-d", "100", "--csv"]
    done = subprocess.run([*argv, "-n", str(int(per_s * seconds))], capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1].split(",")[1].strip('"'))


def measure(seconds: float, rounds: int) -> Rows:
    """Let the servers take turns; those whose packages are not there are named."""
    rows = Rows()
    here = {peer for peer, names in _PACKAGES.items() if all(importlib.util.find_spec(name) for name in names)}
    served = {"bare": bare, "door": door, "grpc": serve_grpc, "http": serve_http}
    with ExitStack() as stack:
        servers = {name: serve for name, serve in served.items() if name in here | {"bare", "door"}}
        paths = {name: server.path for name, server in stack.enter_context(serving(servers)).items()}
        try:
            paths["redis"] = stack.enter_context(in_memory())
        except Missing as why:
            rows.lack("door / redis", str(why))
        submit = stack.enter_context(elsewhere())
        for _ in range(rounds):
            _round(rows, paths, seconds, submit)
    for peer in _PACKAGES.keys() - here:
        rows.lack(f"door / {peer}", "not installed")
    return rows


def _round(rows: Rows, paths: dict[str, str], seconds: float, submit: Callable[..., Any]) -> None:
    def ours(connections: int, name: str = "door") -> Answered:
        return closed_loop(paths[name], seconds, connections, calls(AT_ONCE, PARAMS))

    if "grpc" in paths:
        alone, theirs = ours(1).per_s, submit(grpc_closed_loop, paths["grpc"], seconds).result()
        _beside(rows, "grpc.aio, closed loop", alone, theirs, least=4)
        many, theirs = ours(CONCURRENT).per_s, submit(grpc_concurrent, paths["grpc"], seconds, CONCURRENT).result()
        _beside(rows, f"grpc.aio, {CONCURRENT} at once", many, theirs, least=10)
    at_ten = ours(CONNECTIONS).per_s
    if "http" in paths:
        theirs = closed_loop(paths["http"], seconds, CONNECTIONS, http_request(), opening=b"").per_s
        _beside(rows, f"uvicorn + Starlette, {CONNECTIONS} connections", at_ten, theirs, least=5)
    if "redis" in paths:
        raw = closed_loop(paths["redis"], seconds, CONNECTIONS, redis_request(), opening=b"").per_s
        own = redis_benchmark(paths["redis"], seconds, raw)
        rows.add("  redis SET by the same client, a second", raw)
        rows.add("  redis SET by redis-benchmark, a second", own)
        _beside(rows, f"redis SET, {CONNECTIONS} connections", at_ten, max(raw, own), least=0.35)


def _beside(rows: Rows, what: str, ours: float, theirs: float, *, least: float) -> None:
    rows.add(f"door / {what}", ours / theirs, least=least)
    rows.add("  theirs, " + what, theirs)
    rows.add("  ours, " + what, ours)
