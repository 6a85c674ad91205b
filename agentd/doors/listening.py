"""Being the only daemon of an instance, and putting its socket in place."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from types import TracebackType
from typing import Self

from agentd.errors import AgentdError, InvalidValue
from agentd.paths import Paths, check_socket_path
from agentd.private import open_private, private_dir

_BACKLOG = 1024
_PROBE_TIMEOUT_S = 1.0


class AlreadyRunning(AgentdError):
    """Raised when another daemon serves this instance; `pid` is its process where that is known."""

    code = "exists"

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message, hint="use it, or stop it with `agentd down`")
        self.pid = pid


class InstanceLock:
    """Held by the one daemon of a state directory and of a runtime directory; given back by the kernel on any exit."""

    def __init__(self, paths: Paths) -> None:
        self._files = paths.lock_files
        self._descriptors: list[int] = []

    def acquire(self) -> None:
        """Take both locks or neither; raises AlreadyRunning at once when somebody has one."""
        try:
            for path in self._files:
                private_dir(os.path.dirname(path))  # noqa: PTH120  paths are strings here
                self._descriptors.append(_locked(path))
        except AgentdError:
            self.release()
            raise
        for descriptor in self._descriptors:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)

    def release(self) -> None:
        """Give the locks back; the files stay, since a lock on a deleted file excludes nobody."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.release()


def _locked(path: str) -> int:
    descriptor = open_private(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).strip()
        os.close(descriptor)
        pid = int(holder) if holder.isdigit() else None
        who = f"with pid {pid}" if pid else "just started"
        raise AlreadyRunning(f"an agentd {who} holds {path}", pid) from None
    except OSError as error:
        os.close(descriptor)
        raise InvalidValue(f"cannot lock {path}: {error.strerror}", hint="use a file system that has locks") from None
    return descriptor


def bind(path: str) -> socket.socket:
    """Return a listening socket at the path, mode 0600, which appears there only when it accepts.

    A socket that nobody serves is replaced. Raises AlreadyRunning when somebody answers there and InvalidValue when
    something else than a socket is there; it is left alone.
    """
    check_socket_path(path)
    _check_free(path)
    temporary = f"{path[: path.rindex('/') + 1]}.{os.getpid():x}"  # no longer than `agentd.sock`: the length is checked
    _unlink_if_there(temporary)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        old = os.umask(0o177)
        try:
            listener.bind(temporary)
        finally:
            os.umask(old)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        os.rename(temporary, path)  # noqa: PTH104  replaces a stale socket in one step
    except OSError as error:
        listener.close()
        _unlink_if_there(temporary)
        raise InvalidValue(f"cannot listen at {path}: {error.strerror or error}", hint="check its directory") from None
    return listener


def unbind(path: str) -> None:
    """Remove the socket's path; only the holder of the instance's lock may."""
    _unlink_if_there(path)


def check_place(path: str) -> bool:
    """Tell whether a socket is at the path; raises InvalidValue when something else is, which is left alone."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise InvalidValue(f"{path} is there and is not a socket; it was left alone", hint="move it away")
    return True


def _check_free(path: str) -> None:
    if not check_place(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_TIMEOUT_S)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return
        except OSError as error:
            raise InvalidValue(f"cannot tell who serves {path}: {error.strerror or error}", hint="remove it") from None
    raise AlreadyRunning(f"a program answers at {path}")


def _unlink_if_there(path: str) -> None:
    try:
        os.unlink(path)  # noqa: PTH108
    except FileNotFoundError:
        return
