"""What a call in flight, a wait and an idle connection take of the door's memory."""

from __future__ import annotations

import socket
import time

from bench._rpc_load import connected, packed
from bench._rpc_process import Server, allow_files, serving
from bench._rpc_servers import AT_ONCE, FOR_EVER, PARAMS, WAITER, door
from bench._rpc_table import Rows

IDLE = 10_000
_IN_FLIGHT = 1000  # of one connection
_LIMITS_KB = {"a call in flight": 8.0, "a mere waiter": 0.5, "an idle connection": 5.0}
_CALLS = {
    "a call in flight": (FOR_EVER, {"target": "worker-1", "until": "idle"}),
    "a mere waiter": (WAITER, {"until": "acked"}),  # of a message of its own
}
_CONNECTIONS = {"a call in flight": 16, "a mere waiter": 64}
_KB = 1024


def measure(seconds: float, rounds: int) -> Rows:  # noqa: ARG001  it takes as long as it takes
    """Use a fresh server for each figure: memory that was used once is not given back."""
    rows = Rows()
    for _ in range(max(1, rounds // 2)):
        for what in _CALLS:
            with serving({"door": door}) as servers:
                _add(rows, what, _call_bytes(servers["door"], what))
        with serving({"door": door}) as servers:
            each, answered = _idle(servers["door"])
            _add(rows, "an idle connection", each)
            rows.add("idle connections that answered", answered, least=IDLE)
    return rows


def _add(rows: Rows, what: str, size_bytes: float) -> None:
    rows.add(f"{what}, KB", size_bytes / _KB, most=_LIMITS_KB[what])


def _call_bytes(server: Server, what: str) -> float:
    """Return the memory of one call that stays in flight: of the later half of them.

    What a call needs while it begins is free again for the next ones; the earlier half has used that up.
    """
    method, params = _CALLS[what]
    half = _CONNECTIONS[what] // 2
    lines = [connected(server.path) for _ in range(2 * half)]
    for number, line in enumerate(lines):
        if number == half:
            _, before = server.spent()
        _in_flight(line, method, params, number * _IN_FLIGHT)
    _, after = server.spent()
    for line in lines:
        line.close()
    return (after - before) / (_IN_FLIGHT * half)


def _in_flight(line: socket.socket, method: str, params: dict, base: int) -> None:
    about = [{**params, "id": f"m{base + n:012}"} if method == WAITER else params for n in range(_IN_FLIGHT)]
    line.sendall(b"".join(packed([1, number, method, given]) for number, given in enumerate(about, 1)))
    line.sendall(packed([8, "ready"]))
    line.recv(65_536)
    time.sleep(0.05)  # their tasks begin after the turn that read them


def _idle(server: Server) -> tuple[float, int]:
    """Return the memory of one idle connection, and how many of them all answer a call at last."""
    count = min(IDLE, allow_files() - 200)
    lines = [connected(server.path) for _ in range(100)]
    _, before = server.spent()
    lines += [connected(server.path) for _ in range(count - len(lines))]
    _, after = server.spent()
    answered = sum(_answers(line) for line in lines)
    for line in lines:
        line.close()
    return (after - before) / (count - 100), answered


def _answers(line: socket.socket) -> bool:
    line.sendall(packed([1, 1, AT_ONCE, PARAMS]))
    return len(line.recv(65_536)) > 0
