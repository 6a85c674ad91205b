"""What does the RPC door cost beside the least that asyncio can do with the same framing?

    python bench/rpc.py [--quick]

Server and client are processes of their own, the client drives the socket by hand (the same bytes for each server), the
servers take turns within a run so that the machine's mood hits all. Prints calls/s, p50 and p99 of one call at a
time, and the ratio door : bare, median and range over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import select
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial

import anyio
import msgpack
import structlog

from agentd.config import RpcConfig
from agentd.doors.identity import identify
from agentd.doors.rpc import RpcDoor

REQUEST = {"target": "a-name-of-usual-length"}
REPLY = {
    "agents": [
        {
            "id": "01hzy3v7",
            "name": "worker-1",
            "state": "idle",
            "inbox": 0,
            "cwd": "/home/somebody/project",
            "team": "red",
        }
    ]
}
METHOD = "agents.list"


class Nobody:
    """A directory without agents."""

    def by_token(self, _token):
        return None

    def by_process(self, _pids, _tty):
        return None

    def by_environment(self, _pids):
        return None


class Bare(asyncio.Protocol):
    """Length-prefixed msgpack and nothing else: no limits, no table, no types."""

    def __init__(self):
        self.buffer = b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        data, at, out = self.buffer + data if self.buffer else data, 0, []
        while len(data) - at >= 4:
            end = at + 4 + int.from_bytes(data[at : at + 4], "big")
            if end > len(data):
                break
            frame = msgpack.unpackb(data[at + 4 : end])
            body = msgpack.packb([0, {}] if frame[0] == 0 else [2, frame[1], REPLY])
            out.append(len(body).to_bytes(4, "big") + body)
            at = end
        self.buffer = data[at:]
        self.transport.write(b"".join(out))


async def serve_bare(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(Bare, path)
    await server.serve_forever()


async def serve_door(path: str, waits: bool) -> None:
    async def later():
        return REPLY

    def answer(_caller, _method, _params, _context):
        return later() if waits else REPLY

    who = partial(identify, directory=Nobody())
    await RpcDoor(path, RpcConfig(), answer, who, {"pid": os.getpid()}, structlog.get_logger()).serve()


SERVERS: dict[str, Callable] = {
    "bare": serve_bare,
    "door": partial(serve_door, waits=False),
    "door, call waits": partial(serve_door, waits=True),
}


def packed(body: list) -> bytes:
    data = msgpack.packb(body)
    return len(data).to_bytes(4, "big") + data


def connected(path: str) -> socket.socket:
    deadline_s = time.monotonic() + 20
    while True:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
            break
        except OSError:
            sock.close()
            if time.monotonic() > deadline_s:
                raise
            time.sleep(0.02)
    sock.sendall(packed([0, {"v": [1], "client": "bench"}]))
    read_frames(sock, 1)
    return sock


def read_frames(sock: socket.socket, count: int) -> None:
    data = b""
    while True:
        data += sock.recv(1 << 20)
        at = found = 0
        while len(data) - at >= 4 and at + 4 + int.from_bytes(data[at : at + 4], "big") <= len(data):
            at += 4 + int.from_bytes(data[at : at + 4], "big")
            found += 1
        if found >= count:
            return


def latency(path: str, seconds: float) -> tuple[float, list[float]]:
    """One connection, one call at a time."""
    with connected(path) as sock:
        call, took_s, end_s = packed([1, 1, METHOD, REQUEST]), [], time.perf_counter() + seconds
        while (began_s := time.perf_counter()) < end_s:
            sock.sendall(call)
            sock.recv(65_536)
            took_s.append(time.perf_counter() - began_s)
    return len(took_s) / seconds, took_s


def throughput(path: str, seconds: float, connections: int, depth: int) -> float:
    """Calls per second, `depth` in flight on each connection; replies are counted by their size, not decoded."""
    socks = {}
    calls = b"".join(packed([1, n, METHOD, REQUEST]) for n in range(1, depth + 1))
    poll = select.epoll() if hasattr(select, "epoll") else select.poll()
    for _ in range(connections):
        sock = connected(path)
        sock.sendall(calls)
        socks[sock.fileno()] = [sock, 0]
        poll.register(sock.fileno(), select.POLLIN)
    expected = sum(len(packed([2, n, REPLY])) for n in range(1, depth + 1))
    done, end_s = 0, time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        for fd, _ in poll.poll(1):
            entry = socks[fd]
            entry[1] += len(entry[0].recv(1 << 18))
            if entry[1] >= expected:
                entry[1] -= expected
                done += depth
                entry[0].sendall(calls)
    for sock, _ in socks.values():
        sock.close()
    return done / seconds


CASES = {"1 x 1": (1, 1), "10 x 1": (10, 1), "100 x 1": (100, 1), "10 x 128": (10, 128)}


def run(seconds: float, rounds: int) -> None:
    results: dict[tuple[str, str], list[float]] = {}
    times: dict[str, list[float]] = {name: [] for name in SERVERS}
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        paths = {name: f"{directory}/{n}" for n, name in enumerate(SERVERS)}
        context = multiprocessing.get_context("fork")
        servers = [context.Process(target=anyio.run, args=(serve, paths[name])) for name, serve in SERVERS.items()]
        for server in servers:
            server.start()
        try:
            for _ in range(rounds):
                for name, path in paths.items():
                    rate, took_s = latency(path, seconds)
                    results.setdefault(("1 x 1", name), []).append(rate)
                    times[name] += took_s
                for case, (connections, depth) in list(CASES.items())[1:]:
                    for name, path in paths.items():
                        rate = throughput(path, seconds, connections, depth)
                        results.setdefault((case, name), []).append(rate)
        finally:
            for server in servers:
                server.terminate()
                server.join()
    report(results, times)


def report(results: dict[tuple[str, str], list[float]], times: dict[str, list[float]]) -> None:
    print(f"{'connections x depth':20} {'server':18} {'calls/s':>10} {'ratio to bare: median (range)':>32}")
    for case in CASES:
        for name in SERVERS:
            rates = results[case, name]
            ratios = [rate / bare for rate, bare in zip(rates, results[case, "bare"], strict=True)]
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            print(f"{case:20} {name:18} {statistics.median(rates):10,.0f} {spread:>32}")
    print(f"\n{'one call at a time':20} {'':18} {'p50 us':>10} {'p99 us':>10}")
    for name, took_s in times.items():
        cuts = statistics.quantiles(took_s, n=100)
        print(f"{'':20} {name:18} {cuts[49] * 1e6:10.0f} {cuts[98] * 1e6:10.0f}")
    print(f"\npython {sys.version.split()[0]}, {os.cpu_count()} cpus, {sys.platform}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few seconds instead of a minute")
    quick = parser.parse_args().quick
    run(seconds=0.3 if quick else 1.0, rounds=3 if quick else 5)


if __name__ == "__main__":
    main()
