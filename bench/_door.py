"""Sending through the daemon's socket: one client with batches, and many connections with a message each."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier

from agentd.client import Client, connect
from bench._boxes import BODY

TO = "operator"  # an inbox that nothing empties
_PROCESSES = 2  # that the connections are spread over: one would be busier than the daemon
Environ = dict[str, str]


@contextmanager
def daemon() -> Iterator[Environ]:
    """Run a daemon of our own; give what makes a client find it."""
    directory = tempfile.mkdtemp(prefix="agd-bench-", dir="/tmp")
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("AGENTD_", "TMUX"))}
    environ = usual | {"AGENTD_DIR": directory, "AGENTD_MAILBOX__MAX_INBOX_MESSAGES": "10000000"}
    agentd = [sys.executable, "-m", "agentd"]
    subprocess.run([*agentd, "up"], env=environ, check=True, capture_output=True)
    try:
        yield environ
    finally:
        subprocess.run([*agentd, "down", "--agents", "stop"], env=environ, check=True, capture_output=True)
        shutil.rmtree(directory)


def in_batches(environ: Environ, seconds: float, size: int) -> float:
    """Return messages per second of one blocking client."""
    items = [{"to": TO, "body": BODY} for _ in range(size)]
    with connect(environ=environ) as client:
        client.send_batch(items, batch_size=size)
        sent, begin_s = 0, time.perf_counter()
        while time.perf_counter() < begin_s + seconds:
            client.send_batch(items, batch_size=size)
            sent += size
        return sent / (time.perf_counter() - begin_s)


def one_each(environ: Environ, seconds: float, connections: int) -> float:
    """Return messages per second of many blocking clients, each of which waits for its own receipt."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(_PROCESSES)
    jobs = [(environ, seconds, connections // _PROCESSES, ready)] * _PROCESSES
    counts = context.SimpleQueue()
    children = [context.Process(target=_send_from_threads, args=(*job, counts)) for job in jobs]
    for child in children:
        child.start()
    rate = sum(counts.get() for _ in children)
    for child in children:
        child.join()
    return rate


def _send_from_threads(environ: Environ, seconds: float, connections: int, ready: Barrier, counts) -> None:
    clients = [connect(environ=environ) for _ in range(connections)]
    ready.wait()
    sent: list[int] = []
    begin_s = time.perf_counter()
    threads = [
        threading.Thread(target=lambda client=client: sent.append(_send(client, begin_s + seconds)))
        for client in clients
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.put(sum(sent) / (time.perf_counter() - begin_s))
    for client in clients:
        client.close()


def _send(client: Client, end_s: float) -> int:
    sent = 0
    while time.perf_counter() < end_s:
        client.send(TO, BODY)
        sent += 1
    return sent
