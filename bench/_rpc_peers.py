"""The door beside grpc.aio, a JSON endpoint of uvicorn and Starlette, and Redis, all on Unix sockets."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from bench._queue import Missing
from bench._redis import in_memory
from bench._rpc_load import HELLO, ClosedLoop, calls, closed_loop
from bench._rpc_process import elsewhere, serving
from bench._rpc_servers import AT_ONCE, PARAMS, REPLY, bare, door
from bench._rpc_table import Rows

CONCURRENT = 64
CONNECTIONS = 10
TURN_S = 0.05
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
            _beside_grpc(rows, paths, seconds, submit)
        _turns(rows, paths, max(1, round(rounds * seconds / TURN_S)))
        if "redis" in paths:
            rows.add("  redis SET by redis-benchmark, a second", redis_benchmark(paths["redis"], seconds, 50_000))
    for peer in _PACKAGES.keys() - here:
        rows.lack(f"door / {peer}", "not installed")
    return rows


def _beside_grpc(rows: Rows, paths: dict[str, str], seconds: float, submit: Callable[..., Any]) -> None:
    if "grpc" not in paths:
        return
    for what, connections, caller, least in (
        ("closed loop", 1, grpc_closed_loop, 4),
        (f"{CONCURRENT} at once", CONCURRENT, partial(grpc_concurrent, callers=CONCURRENT), 10),
    ):
        ours = closed_loop(paths["door"], seconds, connections, calls(AT_ONCE, PARAMS)).per_s
        theirs = submit(caller, paths["grpc"], seconds).result()
        _beside(rows, f"grpc.aio, {what}", ours, theirs, least=least)


def _turns(rows: Rows, paths: dict[str, str], turns: int) -> None:
    """Let those that the same client can ask take short turns: what else the machine does then hits all of them."""
    requests = {"http": (http_request(), b""), "redis": (redis_request(), b"")}
    with ExitStack() as stack:
        loads = {}
        for name in paths.keys() - {"grpc"}:
            request, opening = requests.get(name, (calls(AT_ONCE, PARAMS), HELLO))
            load = ClosedLoop(paths[name], CONNECTIONS, request, opening=opening)
            loads[name] = stack.enter_context(closing(load))
        for _ in range(turns):
            per_s = {name: load.run(TURN_S).per_s for name, load in loads.items()}
            for name, what, least in (("http", "uvicorn + Starlette", 5), ("redis", "redis SET", 0.35)):
                if name in per_s:
                    what = f"{what}, {CONNECTIONS} connections"  # noqa: PLW2901  the name of the row
                    _beside(rows, what, per_s["door"], per_s[name], least=least)
                    rows.add(f"bare / {what}", per_s["bare"] / per_s[name])


def _beside(rows: Rows, what: str, ours: float, theirs: float, *, least: float) -> None:
    rows.add(f"door / {what}", ours / theirs, least=least)
    rows.add("  theirs, " + what, theirs)
    rows.add("  ours, " + what, ours)
