"""Runs a program on a terminal of its own inside its pane, and says that its status records are understood.

    python -I -S shim.py PROGRAM [WORD ...]

Some programs report their status (OSC 7501) only to a terminal that answers when they ask whether it knows of it,
before it answers anything else. No tmux does, so this stands between. Everything else passes unchanged, both ways:
bytes, the window's size, signals, and how the program ended. It is run as a file, alone, and imports little: there is
one for every such agent.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
import termios

QUERY = b"\x1b]7501;?"
ANSWER = b"\x1b]7501;?\x1b\\"
ROOM_BYTES = 65_536  # kept for whoever does not read; then the other side has to wait
LAST_BYTES = 1 << 20  # read after the program's end, of what others still print into its terminal
READ_BYTES = 65_536
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
CANNOT_RUN = 127
STDIN, STDOUT = 0, 1


class Shim:
    """The loop between the pane and the program's own terminal."""

    def __init__(self, program: int, terminal: int, wake: int) -> None:
        self._program = program
        self._terminal = terminal
        self._wake = wake
        self._listening = True  # the program's terminal can be read
        self._pane = True  # the pane is there
        self._to_program = bytearray()
        self._to_pane = bytearray()
        self._tail = b""  # of the output: a query may come in two pieces

    def run(self) -> int:
        """Copy until the program ends; return its wait status."""
        while True:
            readable, writable, _ = select.select(self._sources(), self._sinks(), [])
            if self._wake in readable and (status := self._on_signals()) is not None:
                self._finish()
                return status
            if STDIN in readable:
                self._from_pane()
            if self._terminal in readable:
                self._from_program()
            if self._terminal in writable:
                self._feed_program()
            if STDOUT in writable:
                self._feed_pane()

    def _sources(self) -> list[int]:
        sources = [self._wake]
        if self._pane and len(self._to_program) < ROOM_BYTES:
            sources.append(STDIN)
        if self._listening and len(self._to_pane) < ROOM_BYTES:
            sources.append(self._terminal)
        return sources

    def _sinks(self) -> list[int]:
        sinks = [self._terminal] if self._to_program else []
        return [*sinks, STDOUT] if self._to_pane else sinks

    # -- bytes

    def _from_pane(self) -> None:
        data = _read(STDIN)
        if data is None:
            return
        if not data:
            self._hang_up()
            return
        self._to_program += data
        self._feed_program()

    def _from_program(self) -> None:
        data = _read(self._terminal)
        if data is None:
            return
        if not data:
            self._listening = False
            return
        self._answer(data)
        self._to_pane += data
        self._feed_pane()

    def _answer(self, data: bytes) -> None:
        # Before its next question reaches tmux, which answers that one itself.
        seen = self._tail + data
        self._tail = seen[1 - len(QUERY) :]
        if QUERY in seen and not termios.tcgetattr(self._terminal)[3] & termios.ECHO:
            self._to_program += ANSWER * seen.count(QUERY)
            self._feed_program()

    def _feed_program(self) -> None:
        if self._pane and not _write(self._terminal, self._to_program):
            self._to_program.clear()

    def _feed_pane(self) -> None:
        if self._pane and not _write(STDOUT, self._to_pane):
            self._hang_up()

    def _hang_up(self) -> None:
        """Take the program's terminal away, as its pane was taken from us; the kernel sends it SIGHUP."""
        self._pane = self._listening = False
        self._to_program.clear()
        self._to_pane.clear()
        os.close(self._terminal)

    def _finish(self) -> None:
        """Hand on what the program printed last."""
        left = LAST_BYTES
        while self._listening and left > 0 and (data := _read(self._terminal)):
            left -= len(data)
            self._to_pane += data
        while self._pane and self._to_pane:
            select.select([], [STDOUT], [])
            self._feed_pane()

    # -- signals

    def _on_signals(self) -> int | None:
        """Do as the signals say that came; return the program's wait status once it has ended."""
        status = None
        for number in _read(self._wake) or b"":
            if number == signal.SIGCHLD:
                status = self._reap() if status is None else status
            elif status is not None:
                continue
            elif number == signal.SIGWINCH:
                self._resize()
            elif number == signal.SIGHUP:
                os.killpg(self._program, number)
            else:
                os.kill(self._program, number)
        return status

    def _reap(self) -> int | None:
        pid, status = os.waitpid(self._program, os.WNOHANG | os.WUNTRACED)
        if pid == 0:
            return None
        if os.WIFSTOPPED(status):
            if os.WSTOPSIG(status) not in (signal.SIGTTIN, signal.SIGTTOU):
                os.killpg(pid, signal.SIGCONT)  # as tmux does: there is no shell that could
            return None
        return status

    def _resize(self) -> None:
        if self._pane:
            try:  # noqa: SIM105  contextlib would cost time at every start
                fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, fcntl.ioctl(STDIN, termios.TIOCGWINSZ, bytes(8)))
            except OSError:  # the pane is just going; SIGHUP follows
                pass


def _read(fd: int) -> bytes | None:
    """Return what there is; None when there is nothing now, nothing at the end."""
    try:
        return os.read(fd, READ_BYTES)
    except BlockingIOError:
        return None
    except OSError:  # the other side is gone
        return b""


def _write(fd: int, data: bytearray) -> bool:
    """Write as much as is taken, and remove it; tell whether anybody is there."""
    try:
        while data:
            del data[: os.write(fd, data)]
    except BlockingIOError:
        return True
    except OSError:
        return False
    return True


def start(words: list[str]) -> tuple[int, int, int]:
    """Start the program; return its pid, its terminal, and where signals are told."""
    wake, woken = os.pipe()
    for fd in (wake, woken):
        os.set_blocking(fd, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    handled = (*FORWARDED, signal.SIGHUP, signal.SIGWINCH, signal.SIGCHLD)
    for number in handled:
        signal.signal(number, lambda _number, _frame: None)
    terminal, inner = os.openpty()
    termios.tcsetattr(inner, termios.TCSANOW, termios.tcgetattr(STDIN))
    fcntl.ioctl(inner, termios.TIOCSWINSZ, fcntl.ioctl(STDIN, termios.TIOCGWINSZ, bytes(8)))
    program = os.fork()
    if program == 0:
        _become(words, inner, (*handled, signal.SIGPIPE, signal.SIGXFSZ))
    os.close(inner)
    for fd in (STDIN, STDOUT, terminal):
        os.set_blocking(fd, False)
    return program, terminal, wake


def _become(words: list[str], inner: int, handled: tuple[int, ...]) -> None:
    signal.set_wakeup_fd(-1)
    for number in handled:
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(inner, termios.TIOCSCTTY, 0)
    for fd in range(3):
        os.dup2(inner, fd)
    try:
        os.execvp(words[0], words)  # noqa: S606  that is what it is for
    except OSError as error:
        os.write(2, f"agentd: {words[0]}: {error.strerror}\r\n".encode())
    os._exit(CANNOT_RUN)


def make_raw(fd: int) -> None:
    """Let every byte through as it is."""
    mode = termios.tcgetattr(fd)
    mode[0] = 0
    mode[1] &= ~termios.OPOST
    mode[2] = mode[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    mode[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    mode[6][termios.VMIN], mode[6][termios.VTIME] = 1, 0
    termios.tcsetattr(fd, termios.TCSANOW, mode)


def end_like(status: int) -> None:
    """End as the program did."""
    if os.WIFSIGNALED(status):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.WEXITSTATUS(status))


def main(words: list[str]) -> None:
    """Run a program, and end as it does."""
    if not os.isatty(STDIN) or not os.isatty(STDOUT):
        os.execvp(words[0], words)  # noqa: S606  that is what it is for
    before = termios.tcgetattr(STDIN)
    program, terminal, wake = start(words)
    make_raw(STDIN)
    status = Shim(program, terminal, wake).run()
    try:  # noqa: SIM105  as above
        termios.tcsetattr(STDIN, termios.TCSANOW, before)
    except termios.error:  # the pane is gone
        pass
    end_like(status)


if __name__ == "__main__":
    main(sys.argv[1:])
