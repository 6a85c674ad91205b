"""What an agent's own program runs at its events. Whatever happens, it ends well and soon: a hook must not disturb."""

from __future__ import annotations

import os
import sys
from _signal import (  # type: ignore[import-not-found]  # `signal` costs the hot commands 3 ms; this has no stubs
    ITIMER_REAL,
    SIGALRM,
    setitimer,
    signal,
)

from agentd.client import connect
from agentd.errors import EXIT_OK, AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values

DEADLINE_S = 2.0  # a program waits for its hooks
MAX_PAYLOAD_BYTES = 500_000  # of a longer one only the event's name is reported
READ_BYTES = 65_536


def hook(values: Values) -> int:
    """Report an event, and print what its answer brings."""
    signal(SIGALRM, lambda *_: os._exit(EXIT_OK))
    setitimer(ITIMER_REAL, DEADLINE_S)
    words = [word for word in (values["event"], values["payload"]) if word]
    event = next((word for word in words if not word.startswith("{")), "")
    given = next((word for word in words if word.startswith("{")), None)
    try:
        _report(event, _text(_stdin() if given is None else os.fsencode(given)))
    except (AgentdError, OSError):
        return EXIT_OK  # nobody to report to, or nobody who reads; the daemon's log has what is worth knowing
    finally:
        setitimer(ITIMER_REAL, 0)
    return EXIT_OK


def _report(event: str, payload: str) -> None:
    with connect(autostart=False, timeout_s=DEADLINE_S) as client:
        answer = client.call("agents.report", {"event": event, "payload": payload})
        if answer["output"]:
            _print(answer["output"].encode() + b"\n")
            client.call("messages.confirm", {"ids": answer["leases"]})


def _print(data: bytes) -> None:
    """Write past Python's buffers: once this returns, the program can read it."""
    while data:
        data = data[os.write(1, data) :]


def _stdin() -> bytes:
    """Return what the program gave, read to its end so that its writing does not fail."""
    if sys.stdin is None or sys.stdin.isatty():
        return b""
    kept = b""
    while data := os.read(0, READ_BYTES):
        kept += data if len(kept) <= MAX_PAYLOAD_BYTES else b""
    return kept


def _text(payload: bytes) -> str:
    return payload.decode(errors="ignore") if len(payload) <= MAX_PAYLOAD_BYTES else ""
