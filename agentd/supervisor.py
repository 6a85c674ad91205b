"""What a supervisor such as systemd gives a daemon and is told in return: a socket that listens, and how it goes.

Taken out of the environment, so that no agent inherits it: sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
from collections.abc import MutableMapping

import anyio

from agentd.errors import InvalidValue

VARIABLES = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_FIRST_FD = 3


class Supervisor:
    """Whoever started us, as far as the environment tells; without one all of this does nothing."""

    def __init__(self, listener: socket.socket | None, notify_path: str, watchdog_s: float) -> None:
        self.listener = listener
        self._notify_path = notify_path
        self._watchdog_s = watchdog_s

    @classmethod
    def take(cls, environ: MutableMapping[str, str], socket_path: str) -> Supervisor:
        """Take what is meant for this process; raises InvalidValue for a socket that cannot be ours."""
        given = {name: environ.pop(name, "") for name in VARIABLES}
        listener = None
        if given["LISTEN_PID"] == str(os.getpid()) and given["LISTEN_FDS"] not in ("", "0"):
            listener = _listener(given["LISTEN_FDS"], socket_path)
        watched = given["WATCHDOG_USEC"].isdecimal() and given["WATCHDOG_PID"] in ("", str(os.getpid()))
        return cls(listener, given["NOTIFY_SOCKET"], int(given["WATCHDOG_USEC"]) / 1e6 if watched else 0.0)

    def ready(self, status: str) -> None:
        """Say that clients are served."""
        self._tell(f"READY=1\nSTATUS={status}\nMAINPID={os.getpid()}")

    def stopping(self, status: str) -> None:
        """Say that the end has begun."""
        self._tell(f"STOPPING=1\nSTATUS={status}")

    async def watch(self) -> None:
        """Say while the event loop runs that it does, as often as the supervisor wants to hear it."""
        if not self._watchdog_s:
            return
        while True:
            self._tell("WATCHDOG=1")
            await anyio.sleep(self._watchdog_s / 2)

    def _tell(self, text: str) -> None:
        if not self._notify_path:
            return
        address = "\0" + self._notify_path[1:] if self._notify_path.startswith("@") else self._notify_path
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.setblocking(False)
            try:
                sock.sendto(text.encode(), address)
            except OSError:  # a supervisor that does not listen is no reason to stop serving
                return


def _listener(count: str, socket_path: str) -> socket.socket:
    if count != "1":
        raise InvalidValue(f"the supervisor gave {count} sockets", hint="one ListenStream= is enough")
    try:
        found = socket.socket(fileno=_FIRST_FD)
    except OSError as error:
        raise InvalidValue(
            f"the supervisor's descriptor is no socket: {error.strerror}", hint="see LISTEN_FDS"
        ) from None
    found.set_inheritable(False)
    found.setblocking(False)
    listens = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if found.family != socket.AF_UNIX or found.type != socket.SOCK_STREAM or not listens:
        raise InvalidValue("the supervisor's socket is not a listening Unix stream", hint=f"ListenStream={socket_path}")
    if not _is_at(found.getsockname(), socket_path):
        raise InvalidValue(
            f"the supervisor listens at {found.getsockname()!r} and clients look for {socket_path}",
            hint=f"ListenStream={socket_path}",
        )
    return found


def _is_at(name: str | bytes, path: str) -> bool:
    try:
        return os.path.samefile(name, path)  # noqa: PTH121  paths are strings here
    except OSError:
        return False
