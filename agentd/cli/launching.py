"""Starting the daemon detached, and waiting until it is ready or gone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from agentd.errors import AgentdError, DeadlineExceeded, Unavailable, from_wire
from agentd.paths import Paths, check_socket_path
from agentd.private import open_private, private_dir
from agentd.supervisor import VARIABLES

READY_FD = "AGENTD_READY_FD"
START_TIMEOUT_S = 60.0
POLL_S = 0.02
LAST_WORDS_BYTES = 4096
_NOT_INHERITED = (
    *("TMUX", "TMUX_PANE", "AGENTD_TOKEN_FILE", "AGENTD_SOCKET", READY_FD),
    *("AGENTD_AGENT", "AGENTD_AGENT_ID", "AGENTD_INSTANCE"),  # an agent's marks
    *VARIABLES,  # a supervisor's words to whoever starts us
)

Found = TypeVar("Found")


def run_here(overrides: Sequence[str]) -> int:
    """Be the daemon; what started us may wait for a line on a descriptor that the environment names."""
    from agentd import daemon

    named = os.environ.pop(READY_FD, "")
    ready_fd = int(named) if named.isdigit() else None
    if ready_fd is not None:
        os.set_inheritable(ready_fd, False)  # an agent that held it would keep `agentd up` waiting
    return daemon.main(Paths.find(os.environ), list(overrides), ready_fd)


def launch(overrides: Sequence[str]) -> int | None:
    """Start the daemon and return its pid once it is ready; None when another one has the instance."""
    paths = Paths.find(os.environ)
    private_dir(paths.state_dir)
    check_socket_path(paths.socket)
    out_file = os.path.join(os.path.dirname(paths.log_file), "agentd.out")
    output = open_private(out_file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    before = os.fstat(output).st_size
    try:
        child, line = _start(overrides, output)
        if line == "ready":
            return child.pid
        kind, _, rest = line.partition(" ")
        if kind != "error":
            raise Unavailable(
                f"the daemon ended before it was ready: {_last_words(output, before)}", hint=f"see {out_file}"
            )
    finally:
        os.close(output)
    code, _, sentence = rest.partition(" ")
    if code == "exists":
        return None
    raise _as_told(code, sentence)


def gone(pid: int) -> bool:
    """Tell whether a process has ended; one that nobody has reaped yet has."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # the number belongs to somebody else's process now
        return True
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[:1] == [b"Z"]
    except OSError:  # no /proc here, or it ended just now: the next look says which
        return False


def until(look: Callable[[], Found | None], timeout_s: float, otherwise: str) -> Found:
    """Look again and again until something is found; raises DeadlineExceeded with the sentence."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline_s:
            raise DeadlineExceeded(f"{otherwise} in {timeout_s:g} s", hint="see `agentd doctor`")
        time.sleep(POLL_S)


def _start(overrides: Sequence[str], output: int) -> tuple[subprocess.Popen[bytes], str]:
    read_end, write_end = os.pipe()
    settings = [word for pair in overrides for word in ("--set", pair)]
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "agentd", "up", "--foreground", *settings],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",  # a directory that the user may want to unmount or delete is not held
            env=_environ(write_end),
            pass_fds=(write_end,),
            start_new_session=True,
        )
    finally:
        os.close(write_end)
    try:
        return child, _line(read_end)
    finally:
        os.close(read_end)
        child.returncode = 0  # it outlives us on purpose, and Popen would warn of that


def _environ(write_end: int) -> dict[str, str]:
    environ = {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED}
    environ[READY_FD] = str(write_end)
    if environ.get("AGENTD_DIR"):
        environ["AGENTD_DIR"] = os.path.abspath(environ["AGENTD_DIR"])
    return environ


def _line(descriptor: int) -> str:
    """Return the one line that the daemon writes; empty when it ended without."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    said = b""
    while b"\n" not in said:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            raise DeadlineExceeded(
                f"the daemon was not ready in {START_TIMEOUT_S:g} s; it goes on starting", hint="see `agentd doctor`"
            )
        data = os.read(descriptor, 4096)
        if not data:
            return ""
        said += data
    return said.partition(b"\n")[0].decode(errors="replace")


def _last_words(output: int, start: int) -> str:
    size = os.fstat(output).st_size
    text = os.pread(output, LAST_WORDS_BYTES, max(start, size - LAST_WORDS_BYTES)).decode(errors="replace")
    lines = [line.strip().removeprefix("agentd: ") for line in text.splitlines() if line.strip()]
    return " | ".join(lines[-3:]) or "it said nothing"


def _as_told(code: str, sentence: str) -> AgentdError:
    message, _, hint = sentence.partition("; ")
    return from_wire(code, message, {"hint": hint or None})
