"""The shim between a pane and its program: nothing may tell that it is there, but the answer to one question."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import signal
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from panes import DEADLINE_S, Tmux, tmux_server
from ptys import Run

from agentd.agents import shim
from agentd.agents.line_mode import in_line_mode
from agentd.agents.shimmed import foreground_command, program_behind, shimmed

RAW = "import os,sys,termios,tty; tty.setraw(0); "
LATE_READER = RAW + (
    "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1]); os.write(1, b'ready')\n"
    "signal.sigwait([signal.SIGUSR1]); os.write(1, b'it reads'); data = b''\n"
    "while b'z' not in data: data += os.read(0, 65536)\n"
    "os.write(1, b'%d bytes.' % len(data))"
)


@pytest.fixture
def run() -> Iterator[Callable[..., Run]]:
    runs: list[Run] = []

    def start(*argv: str, **more: bool) -> Run:
        runs.append(Run(*argv, **more))
        return runs[-1]

    yield start
    for each in runs:
        each.end()


@pytest.fixture(scope="module")
def tmux() -> Iterator[Tmux]:
    with tmux_server() as server:
        yield server


def python(code: str) -> list[str]:
    return [sys.executable, "-uc", code]


def gone(pid: int) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def wait_for(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)


# -- how it ends


@pytest.mark.parametrize("status", [0, 1, 7, 255])
def test_an_exit_status_is_passed_on(run, status):
    assert run("sh", "-c", f"exit {status}").ended() == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGSEGV])
def test_a_death_by_signal_is_passed_on(run, number):
    assert run("sh", "-c", f"kill -{int(number)} $$").ended() == -number


def test_what_was_printed_last_is_not_lost(run):
    each = run(*python("import sys; sys.stdout.write('x' * 300_000 + 'last')"))
    assert each.rest().endswith(b"last")
    assert len(each.seen) == 300_004
    assert each.ended() == 0


def test_a_program_that_cannot_be_run_says_so(run):
    each = run("no-such-program-anywhere")
    assert b"no-such-program-anywhere: No such file" in each.rest()
    assert each.ended() == shim.CANNOT_RUN


def test_a_child_that_keeps_the_terminal_does_not_keep_the_pane(run):
    each = run("sh", "-c", "trap '' HUP; sleep 1000 & echo child=$!.; exit 3")
    each.until(b".")
    assert each.ended() == 3
    os.kill(int(re.findall(rb"child=(\d+)", each.seen)[0]), signal.SIGKILL)


def test_a_stopped_program_goes_on_as_it_would_under_tmux(run):
    each = run("sh", "-c", "kill -STOP $$; echo went on")
    each.until(b"went on")
    assert each.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGQUIT, signal.SIGHUP])
def test_a_signal_to_the_shim_is_one_to_the_program(run, number):
    # Asleep for short times only: Python does not see a signal that comes just before it falls asleep.
    code = f"import signal,sys,time; signal.signal({int(number)}, lambda *_: sys.exit(9)); print('ready')\n"
    each = run(*python(code + "while True: time.sleep(0.05)"))
    each.until(b"ready")
    os.kill(each.process.pid, number)
    assert each.ended() == 9


def test_when_the_pane_goes_so_does_the_program(run):
    each = run("sh", "-c", "echo pid=$$.; sleep 1000; echo on")
    pid = int(re.findall(rb"pid=(\d+)", each.until(b"."))[0])
    os.close(each.master)
    assert each.ended() == -signal.SIGHUP
    wait_for(lambda: gone(pid), "the program to be gone")


def test_a_program_that_does_not_hang_up_loses_its_terminal(run):
    each = run("sh", "-c", "trap '' HUP; echo ready; cat; exit 5")
    each.until(b"ready")
    os.close(each.master)
    assert each.ended() == 5


def test_when_the_shim_is_killed_the_program_is_hung_up(run):
    each = run("sh", "-c", "echo pid=$$.; sleep 1000; echo on")
    pid = int(re.findall(rb"pid=(\d+)", each.until(b"."))[0])
    each.process.kill()
    each.ended()
    wait_for(lambda: gone(pid), "the program to be gone")


# -- what passes


def test_the_program_has_a_terminal_of_its_own_with_the_panes_size_and_modes(run):
    show = "stty size; stty -g; tty; ps -o tpgid=,pgid= -p $$"
    through, bare = run("sh", "-c", show), run("sh", "-c", show, shim=False)
    inner, outer = through.rest().split(b"\r\n"), bare.rest().split(b"\r\n")
    assert inner[0] == b"30 100"
    assert inner[:2] == outer[:2]
    assert inner[2] != outer[2]
    assert len(set(inner[3].split())) == 1  # it is in the foreground


def test_a_new_size_reaches_the_program(run):
    each = run("sh", "-c", "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done")
    each.until(b"ready")
    fcntl.ioctl(each.master, termios.TIOCSWINSZ, b"\x14\x00\x46\x00\x00\x00\x00\x00")
    each.until(b"20 70")


def test_a_key_that_interrupts_interrupts_the_program(run):
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); print('ready'); signal.pause()"
    each = run(*python(code))
    each.until(b"ready")
    each.type(b"\x03")
    assert each.ended() == -signal.SIGINT


def test_every_byte_of_the_output_passes(run):
    every = bytes(range(256)) * 2000
    code = RAW + "os.write(1, b'go'); [os.write(1, bytes(range(256))) for _ in range(2000)]"
    assert run(*python(code)).rest() == b"go" + every


def test_a_flood_nobody_reads_makes_the_program_wait_and_the_shim_stay_small(run, tmp_path):
    written = tmp_path / "written"
    code = RAW + f"f = os.open({str(written)!r}, os.O_CREAT | os.O_WRONLY)\n"
    code += "for n in range(4000): os.write(1, b'%07d.' % n * 128); os.write(f, b'x')"
    each = run(*python(code))
    each.until(b"0000000.")
    sizes: list[int] = []

    def stands() -> bool:
        sizes.append(written.stat().st_size)
        return len(sizes) > 20 and sizes[-1] == sizes[-20]

    wait_for(stands, "the program to wait")
    assert sizes[-1] * 1024 < 1 << 20
    rss_kb = int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{each.process.pid}/status").read_text())[0])
    assert rss_kb < 20_000
    got = each.rest()
    assert got == b"".join(b"%07d." % n * 128 for n in range(4000))


def test_input_nobody_reads_is_kept_within_bounds_and_arrives(run):
    each = run(*python(LATE_READER))
    each.until(b"ready")
    os.set_blocking(each.master, False)
    sent = 0
    while select.select([], [each.master], [], 0.5)[1]:
        with contextlib.suppress(BlockingIOError):
            sent += os.write(each.master, b"y" * 4000)
        assert sent < 1 << 20
    assert sent > shim.ROOM_BYTES
    os.kill(each.process.pid, signal.SIGUSR1)
    each.until(b"it reads")
    os.set_blocking(each.master, True)
    each.type(b"z")
    each.until(b"%d bytes." % (sent + 1))


# -- the question


ASKS = RAW + (
    "query = b'\\x1b]7501;?\\x1b\\\\\\\\'; [os.write(1, query[n:n+1]) for n in range(len(query))]; "
    "os.write(1, b'\\x1b[c'); got = b''\n"
    "while not got.endswith(b'c'): got += os.read(0, 100)\n"
    "os.write(1, repr(got).encode() + b'.')"
)


def test_the_answer_comes_before_that_of_the_terminal(tmux):
    """With a real tmux, which answers the second question itself and at once."""
    code = ASKS.replace("\\\\\\\\", "\\\\")
    name = "asks"
    tmux.run("new-session", "-d", "-s", name, "-x", "100", "-y", "10", *shimmed(python(code + "\nos.read(0, 9)")))
    shown = ""

    def answered() -> bool:
        nonlocal shown
        shown = tmux.run("capture-pane", "-p", "-J", "-t", name)
        return "c'." in shown

    wait_for(answered, "both answers")
    assert shown.startswith(repr(shim.ANSWER)[:-1]), shown
    assert "\\x1b[?" in shown
    tmux.run("kill-session", "-t", name)


def test_a_terminal_in_line_mode_is_not_answered(run):
    """A file that holds the question is shown; the answer would be typed at whoever reads next."""
    each = run("sh", "-c", r"printf '\033]7501;?\033\\'; read line; echo got=$line.")
    each.type(b"typed\r")
    assert b"got=typed." in each.rest()
    assert each.seen.count(b"7501") == 1


# -- what is typed, through a real tmux


RECORDER = RAW + (
    "import pathlib\nout = pathlib.Path(sys.argv[1]); out.touch(); os.write(1, b'ready')\n"
    "while data := os.read(0, 65536):\n    f = open(out, 'ab'); f.write(data); f.close()"
)


@pytest.fixture(scope="module")
def recorder(tmux: Tmux) -> Iterator[tuple[Tmux, Path]]:
    path = tmux.directory / "typed"
    words = shimmed([*python(RECORDER), str(path)])
    tmux.run("new-session", "-d", "-s", "rec", "-x", "100", "-y", "10", *words)
    wait_for(lambda: "ready" in tmux.run("capture-pane", "-p", "-t", "rec"), "the recorder")
    yield tmux, path
    tmux.run("kill-session", "-t", "rec")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(min_size=1, max_size=200), st.binary(min_size=4000, max_size=20_000)))
def test_what_is_typed_arrives_byte_for_byte(recorder, data):
    tmux, path = recorder
    before = path.stat().st_size
    file = tmux.directory / "paste"
    file.write_bytes(data)
    tmux.run("load-buffer", "-b", "t", str(file))
    tmux.run("paste-buffer", "-r", "-d", "-b", "t", "-t", "rec")
    wait_for(lambda: path.stat().st_size >= before + len(data), "what was typed")
    assert path.read_bytes()[before:] == data


# -- what the daemon asks about it


def test_the_program_behind_it_is_found(run):
    each = run("sh", "-c", "echo pid=$$.; cat; exit")
    pid = int(re.findall(rb"pid=(\d+)", each.until(b"."))[0])
    assert program_behind(each.process.pid) == pid
    wait_for(lambda: foreground_command(each.process.pid) == "sh", "its name")
    assert program_behind(pid) == pid  # no shim


def test_line_mode_is_that_of_the_programs_own_terminal(run):
    cooked, raw = run("sh", "-c", "echo ready; read line"), run(*python(RAW + "os.write(1, b'ready'); os.read(0, 1)"))
    cooked.until(b"ready")
    raw.until(b"ready")
    assert in_line_mode(cooked.process.pid)
    assert not in_line_mode(raw.process.pid)
