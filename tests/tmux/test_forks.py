"""With control mode off every operation does the same, in a tmux process for each command."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import anyio
import pytest
from servers import Place, became, exists, screen, server_pid, spawn

from agentd.errors import AlreadyExists, InvalidValue
from agentd.tmux.breaker import Breaker
from agentd.tmux.failures import TmuxRefused, TmuxTimeout, TmuxUnavailable
from agentd.tmux.forks import AT_ONCE, Forks
from agentd.tmux.input import MAX_PASTE_BYTES
from agentd.tmux.notation import command, quote
from agentd.tmux.processes import is_alive, start_of
from agentd.tmux.tmux import Output, PaneDead, PaneDied, Tmux

pytestmark = pytest.mark.anyio

HOSTILE = [
    "%begin 1 7 1",
    "%end 1 7 1",
    "%error 1 7 1",
    "%exit",
    "agentd-stranger",
    "agentd-refused",
    "'\\''; \"$x\"",
    "",
]


def forks(place: Place, server: str) -> Forks:
    return Forks(["tmux", "-S", place.socket, "-f", "/dev/null"], server, Breaker())


def commands(tmux: Tmux) -> int:
    return sum(row["commands"] for row in tmux.stats()["connections"] if row["role"].startswith(("calls", "bulk")))


async def test_every_operation_works_without_control_mode(place: Place) -> None:
    async with place.open(control_mode=False) as (tmux, seen):
        before = commands(tmux)
        ref = await spawn(tmux, "cat", GREETING="two\nlines; '#{pid}")
        with pytest.raises(AlreadyExists):
            await spawn(tmux, "cat")
        with pytest.raises(InvalidValue):
            await spawn(tmux, "no-such-program", name="another")
        await tmux.paste(ref, "pasted; 'text'\n")
        await screen(
            tmux, seen, ref, lambda look: look.text.count("pasted") == 2
        )  # the terminal's echo, and the program's
        await tmux.type_text(ref, "typed #{pid} $HOME ;")
        await tmux.keys(ref, "Enter")
        await screen(tmux, seen, ref, lambda look: look.text.count("typed") == 2)
        await tmux.keys(ref, "a", ";")
        look = await screen(tmux, seen, ref, lambda look: look.text.rstrip().endswith("\na;"))
        assert look.text.split("\n")[:4] == ["pasted; 'text'"] * 2 + ["typed #{pid} $HOME ;"] * 2
        await seen.until(lambda: seen.of(Output))  # what happens is heard as before
        assert [pane.ref for pane in await tmux.panes()] == [ref]
        assert [row["name"] for row in await tmux.sessions()] == ["a-1"]
        place.tmux("copy-mode", "-t", ref.pane_id)
        assert (await tmux.look(ref)).in_mode
        await tmux.leave_mode(ref)
        assert not (await tmux.look(ref)).in_mode
        process = start_of(ref.pid)
        await tmux.kill(ref, 1.0)
        assert not is_alive(process)
        assert await tmux.sessions() == []
        with pytest.raises(PaneDead):
            await tmux.look(ref)
        assert commands(tmux) == before
        assert tmux.stats()["forks"]["commands"] > 15


async def test_a_dead_pane_gets_no_paste(place: Place) -> None:
    async with place.open(control_mode=False) as (tmux, seen):
        server = tmux.server
        ref = await spawn(tmux, "true")
        await seen.until(lambda: seen.of(PaneDied))
        for text in ("x", "x" * 9000):
            with pytest.raises(PaneDead):
                await tmux.paste(ref, text)
        with pytest.raises(PaneDead):
            await tmux.keys(ref, "Enter")
        assert (await tmux.look(ref)).exit_status == 0
        assert tmux.server == server
        assert place.tmux("list-buffers").stdout == ""
        assert not list(place.directory.glob("paste-*"))


async def test_what_a_pane_shows_stays_what_it_shows(place: Place) -> None:
    text = "\n".join(HOSTILE)
    (place.directory / "hostile").write_text(text)
    async with place.open(control_mode=False) as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", "cat hostile; printf 'THE END'; exec cat", cwd=str(place.directory))
        look = await screen(tmux, seen, ref, lambda look: "THE END" in look.text)
        assert look.text.startswith(text + "THE END")
        assert (look.cursor_x, look.command) == (7, "cat")


@pytest.mark.parametrize("size", [1, 4096, MAX_PASTE_BYTES])
async def test_a_paste_arrives_whole(place: Place, size: int) -> None:
    text = ("'\"\\ $HOME #{pid} #(x) ;\n\t~{}%" * size)[:size]
    got = place.directory / "got"
    async with place.open(control_mode=False) as (tmux, _):
        ref = await spawn(tmux, "sh", "-c", f"stty raw -echo; touch up; exec cat > {got}", cwd=str(place.directory))
        await exists(place.directory / "up")
        await tmux.paste(ref, text)
        await became(lambda: got.exists() and len(got.read_bytes()) >= size)
        assert got.read_bytes() == text.encode()


async def test_control_mode_is_switched_at_run_time(place: Place) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "cat")
        for on in (False, True, False):
            tmux.use_control_mode(on=on)
            before = (commands(tmux), tmux.stats()["forks"]["commands"])
            await tmux.look(ref)
            after = (commands(tmux), tmux.stats()["forks"]["commands"])
            moved = (after[0] > before[0], after[1] > before[1])
            assert moved == ((True, False) if on else (False, True))
            assert tmux.stats()["control_mode"] is on


async def test_a_stranger_at_the_socket_is_not_touched(place: Place) -> None:
    """F12: our server is gone and another one answers where it was."""
    async with place.open() as (tmux, _):
        ours = tmux.server
        stranger = f"{server_pid(tmux)}:1"
        ways = forks(place, stranger)
        await spawn(tmux, "cat")
        for line in (command("kill-server"), command("kill-session", "-t", "=a-1")):
            with pytest.raises(TmuxUnavailable, match="another tmux server"):
                await ways.ask(line, timeout_s=5)
        assert [row["name"] for row in await tmux.sessions()] == ["a-1"]
        assert (await forks(place, ours).run("display-message", "-p", "hello", timeout_s=5)) == ["hello"]
        with pytest.raises(TmuxRefused, match="can't find"):
            await forks(place, ours).run("kill-session", "-t", "=no-such", timeout_s=5)


async def test_a_server_that_is_gone_is_unavailable_and_none_is_started(place: Place) -> None:
    async with place.open() as (tmux, _):
        server = tmux.server
        await tmux.stop_server()
    with pytest.raises(TmuxUnavailable):
        await forks(place, server).run("display-message", "-p", "hello", timeout_s=5)
    assert place.processes() == []


async def test_processes_that_hang_are_killed_and_never_many(place: Place) -> None:
    async with place.open() as (tmux, _):
        server, ways, failed = tmux.server, forks(place, tmux.server), []

        async def ask() -> None:
            try:
                await ways.run("display-message", "-p", "x", timeout_s=1.0)
            except (TmuxTimeout, TmuxUnavailable) as error:
                failed.append(error)

        most = 0
        os.kill(server_pid(tmux), signal.SIGSTOP)
        try:
            async with anyio.create_task_group() as group:
                for _ in range(40):
                    group.start_soon(ask)
                while len(failed) < 40:
                    most = max(most, len(_clients(place)))
                    await anyio.sleep(0.05)
            assert most == AT_ONCE
            assert len(failed) == 40
            await became(lambda: not _clients(place))
        finally:
            os.kill(server_pid(tmux), signal.SIGCONT)
        assert await ways.run("display-message", "-p", "x", timeout_s=5) == ["x"]
        assert tmux.server == server


def _clients(place: Place) -> list[int]:
    """Return the pids of the processes that run one command each."""
    return [pid for pid in place.processes() if b"source-file" in _words(pid)]


def _words(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


async def test_the_text_of_a_command_is_one_argument_whatever_is_in_it(place: Place) -> None:
    """Quoted twice: once for itself, once as an argument of the guard around it."""
    async with place.open() as (tmux, _):
        ways = forks(place, tmux.server)
        for text in ("a;kill-server", "it's", "x ; y", "\\", '"', "'", "{", "}", "~", "$HOME", "a\\;", "-l"):
            reply = await ways.ask(f"display-message -p -- {quote(text)}", timeout_s=5)
            assert [each.decode() for each in reply.lines] == [text]
