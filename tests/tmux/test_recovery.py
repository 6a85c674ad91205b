"""Lost connections, frozen, killed and replaced servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anyio
import pytest
from fault_rows import LONG
from servers import Place, Seen, became, control_shim, rss_bytes, screen, server_pid, spawn

from agentd.errors import StaleTarget
from agentd.records import PaneRef
from agentd.tmux.breaker import Breaker
from agentd.tmux.connection import ControlConnection
from agentd.tmux.failures import TmuxTimeout, TmuxUnavailable
from agentd.tmux.meter import Meter
from agentd.tmux.processes import is_alive, start_of
from agentd.tmux.tmux import Lost, Output, Restored, ServerGone, Tmux

pytestmark = pytest.mark.anyio


def clients(tmux: Tmux) -> dict[str, int]:
    assert tmux._calls.pool is not None
    return tmux._calls.pool.links.client_pids()


async def works(tmux: Tmux, seen: Seen, ref: PaneRef, word: str) -> None:
    await tmux.type_text(ref, word)
    await screen(tmux, seen, ref, lambda look: word in look.text)


@pytest.mark.parametrize("role", ["events", "hooks", "calls-1", "bulk-1"])
async def test_f13_a_killed_client_is_replaced_within_a_second(place: Place, role: str) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        server, before = tmux.server, clients(tmux)[role]
        os.kill(before, signal.SIGKILL)
        listens = role in ("events", "hooks")
        await seen.until(lambda: bool(seen.of(Lost)) == listens and seen.of(Restored), timeout_s=1.0)
        assert clients(tmux)[role] != before
        await works(tmux, seen, ref, "again")
        await seen.until(lambda: any(b"again" in event.data for event in seen.of(Output)))
        assert tmux.server == server


async def test_a_connection_that_is_still_checked_is_closed_at_the_end(place: Place) -> None:
    """The client lets us in and never says which server it belongs to."""
    let_in = r"printf '%%begin 1 1 0\n%%end 1 1 0\n'; while read line; do :; done"
    binary, silent = control_shim(place, let_in)
    async with place.open(binary=binary) as (tmux, _):
        server, killed = server_pid(tmux), clients(tmux)["calls-1"]
        before = _asked(tmux, "calls-1")
        silent.touch()
        os.kill(killed, signal.SIGKILL)
        await became(lambda: _asked(tmux, "calls-1") > before)
        assert "calls-1" not in clients(tmux)
        assert len(place.processes()) > len(clients(tmux)) + 1, "it is there, and waits"
    assert place.processes() == [server]


def _asked(tmux: Tmux, role: str) -> int:
    return next(row["commands"] for row in tmux.stats()["connections"] if row["role"] == role)


async def test_f13_an_empty_line_or_a_printed_exit_ends_nothing_for_long(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", "printf '%%exit\\n%%end 1 1 1\\n'; exec cat")
        await works(tmux, seen, ref, "one")
        assert not seen.of(Lost)
        connection = tmux._calls.channel()
        connection._transport.write(b"\n")  # detaches a control client
        await seen.until(lambda: seen.of(Restored), timeout_s=1.0)
        await works(tmux, seen, ref, "two")


async def test_f13_floods_while_we_do_not_read_stay_small(place: Place) -> None:
    async with place.open() as (tmux, seen):
        refs = [await spawn(tmux, "yes", name=f"yes-{number}") for number in range(10 if LONG else 4)]
        quiet = await spawn(tmux, "cat", name="quiet")
        await seen.until(lambda: {event.pane_id for event in seen.of(Output)} >= {ref.pane_id for ref in refs})
        before = rss_bytes(server_pid(tmux))
        time.sleep(3.0 if LONG else 1.5)  # the whole loop stands still: that is the fault
        assert rss_bytes(server_pid(tmux)) - before <= 64 * 1024 * 1024
        seen.events.clear()
        await works(tmux, seen, quiet, "still here")
        await seen.until(lambda: {event.pane_id for event in seen.of(Output)} >= {ref.pane_id for ref in refs})
        for ref in refs:
            await tmux.kill(ref, 0.0)


async def test_f09_a_killed_server_is_told_within_a_second_and_replaced(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        old = tmux.server
        os.kill(server_pid(tmux), signal.SIGKILL)
        await seen.until(lambda: seen.of(ServerGone), timeout_s=1.0)
        assert seen.of(ServerGone) == [ServerGone(old)]
        await seen.until(lambda: tmux.server)
        await seen.until(
            lambda: any(isinstance(e, Restored) for e in seen.events[seen.events.index(ServerGone(old)) :])
        )
        assert tmux.server != old
        again = await spawn(tmux, "cat")
        await works(tmux, seen, again, "again")
        for use in (tmux.look(ref), tmux.paste(ref, "x"), tmux.keys(ref, "Enter"), tmux.kill(ref, 0.0)):
            with pytest.raises(StaleTarget):
                await use
        with pytest.raises(StaleTarget):
            tmux.attach_argv(ref)
        assert not (await tmux.look(again)).dead
        assert len(seen.of(ServerGone)) == 1


async def test_t13_f12_an_old_id_never_hits_a_stranger(place: Place) -> None:
    """Ids start again with a new server; and a-1 is a prefix of a-10."""
    async with place.open() as (tmux, seen):
        first = await spawn(tmux, "cat", name="a-1")
        tenth = await spawn(tmux, "cat", name="a-10")
        await tmux.kill(first, 1.0)
        await tmux.kill(first, 1.0)
        assert [pane.ref for pane in await tmux.panes()] == [tenth]

        # positive control: by name, tmux takes a-1 for a-10
        assert place.tmux("kill-session", "-t", "a-1").returncode == 0
        assert await tmux.sessions() == []

        os.kill(server_pid(tmux), signal.SIGKILL)
        await seen.until(lambda: seen.of(Restored))
        stranger = await spawn(tmux, "cat", name="stranger")
        assert stranger.pane_id == first.pane_id
        with pytest.raises(StaleTarget):
            await tmux.kill(first, 0.0)
        await works(tmux, seen, stranger, "untouched")


async def test_f10_a_frozen_server_costs_only_its_own_callers(place: Place) -> None:
    async with place.open(command_timeout_s=0.3) as (tmux, seen):
        ref = await spawn(tmux, "cat")
        pid, server = server_pid(tmux), tmux.server
        os.kill(pid, signal.SIGSTOP)
        try:
            for _ in range(3):
                started_s = anyio.current_time()
                with pytest.raises((TmuxTimeout, TmuxUnavailable)):
                    await tmux.look(ref)
                assert anyio.current_time() - started_s < 1.0
            assert len(place.processes()) <= 8
        finally:
            os.kill(pid, signal.SIGCONT)
        await seen.until(lambda: seen.of(Restored), timeout_s=3.0)
        await works(tmux, seen, ref, "thawed")
        assert tmux.server == server


async def test_f11_a_removed_socket_comes_back(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        Path(place.socket).unlink()
        await works(tmux, seen, ref, "still here")
        await became(lambda: Path(place.socket).exists(), timeout_s=3.0)
        assert place.tmux("has-session", "-t", "=a-1").returncode == 0


async def test_clients_of_a_daemon_that_died_are_ended(place: Place) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "cat")
        orphan = await ControlConnection.open(
            ["tmux", "-S", place.socket],
            "ignore-size",
            on_notification=lambda _: None,
            meter=Meter("orphan", Breaker()),
            log=place.log,
        )
        process = start_of(orphan.pid)
        assert is_alive(process)
    async with place.open() as (tmux, _):
        await became(lambda: not is_alive(process))
        await orphan.close()
        assert [pane.ref for pane in await tmux.panes()] == [ref]


SIBLING = """
import sys, anyio, structlog
from agentd.tmux.breaker import Breaker
from agentd.tmux.connection import ControlConnection
from agentd.tmux.meter import Meter

async def main(socket):
    connection = await ControlConnection.open(
        ["tmux", "-S", socket], "ignore-size", on_notification=lambda _: None, meter=Meter("sibling", Breaker()),
        log=structlog.get_logger(),
    )
    print(connection.pid, flush=True)
    sys.stdin.readline()
    print(await connection.run("display-message", "-p", "still here", timeout_s=5), flush=True)
    await connection.close()

anyio.run(main, *sys.argv[1:])
"""
# Its parent goes, and nothing tells it so: as it is where there is no setpriv.
ORPHAN = (
    "setsid env AGENTD_CONTROL_OF=$$:1 tmux -S {0} -u -C attach-session -E -t =_agentd <{1} >/dev/null 2>&1 & echo $!"
)
FOREIGN = "env -u AGENTD_CONTROL_OF tmux -S {0} -u -C attach-session -E -t =_agentd <{1} >/dev/null"


async def test_a_living_siblings_client_is_left_alone_and_an_orphan_is_ended(place: Place) -> None:
    fifo = place.directory / "fifo"
    os.mkfifo(fifo)
    keep = os.open(fifo, os.O_RDWR)  # its end would end them
    async with place.open():
        sibling = subprocess.Popen(
            [sys.executable, "-c", SIBLING, place.socket], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        client = start_of(int(await anyio.to_thread.run_sync(sibling.stdout.readline)))
        orphan_pid = subprocess.run(
            ["sh", "-c", ORPHAN.format(place.socket, fifo)], capture_output=True, text=True, check=True
        ).stdout
        orphan = start_of(int(orphan_pid))
        foreign = subprocess.Popen(["sh", "-c", f"{FOREIGN.format(place.socket, fifo)}; :"])
        await became(lambda: len(_control_clients(place)) == 7)
        assert is_alive(orphan)
    try:
        async with place.open() as (tmux, _):
            assert not is_alive(orphan)
            assert tmux.stats()["orphans_closed"] == 1
            assert is_alive(client)
            assert foreign.poll() is None
            said, _ = await anyio.to_thread.run_sync(sibling.communicate, "\n")
            assert "still here" in said
    finally:
        place.tmux("kill-server")
        foreign.wait(10)
        sibling.wait(10)
        os.close(keep)


def _control_clients(place: Place) -> list[str]:
    rows = place.tmux("list-clients", "-F", "#{client_control_mode} #{client_pid}").stdout.splitlines()
    return [row for row in rows if row.startswith("1 ")]


DAEMON = """
import sys, anyio, structlog, time
from agentd.config import TmuxConfig
from agentd.tmux.tmux import Tmux

LOG = structlog.get_logger()

async def main(socket, conf):
    async with Tmux.open(TmuxConfig(), socket, conf, "test-instance", LOG, lambda event: None) as tmux:
        for number in range(5):
            await tmux.spawn(f"yes-{number}", ["yes"], {}, "/", 80, 24)
        for _ in range(200):
            tmux._calls.channel().post("list-panes", "-a")
        print("ready", flush=True)
        time.sleep(60)  # stands still, with replies and output unread

anyio.run(main, *sys.argv[1:])
"""


async def test_a_daemon_killed_with_unread_replies_leaves_no_wedge(place: Place) -> None:
    daemon = subprocess.Popen(
        [sys.executable, "-c", DAEMON, place.socket, place.conf], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with daemon:
        assert daemon.stdout is not None
        await anyio.to_thread.run_sync(daemon.stdout.readline)
        daemon.kill()
    started_s = anyio.current_time()
    async with place.open() as (tmux, seen):
        assert anyio.current_time() - started_s < 2.0
        ref = await spawn(tmux, "cat")
        await works(tmux, seen, ref, "adopted")
        assert len(await tmux.panes()) == 6
        await tmux.stop_server()
    assert place.processes() == []


async def test_opening_and_closing_while_sessions_come_and_go_keeps_the_server(place: Place) -> None:
    """The gate: without it 3.3a dies within a few attaches."""
    async with place.open() as (tmux, seen):
        server = tmux.server
        stop = anyio.Event()

        async def churn(number: int) -> None:
            while not stop.is_set():
                ref = await spawn(tmux, "sleep", "1000", name=f"churn-{number}")
                await tmux.kill(ref, 0.0)

        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(churn, number)
            for times in range(1, 21 if LONG else 11):
                os.kill(clients(tmux)["events"], signal.SIGKILL)
                await seen.until(lambda times=times: len(seen.of(Restored)) >= times)
            stop.set()
        assert tmux.server == server
        assert await tmux.sessions() == []


FAKE = """#!/bin/sh
printf '%%begin 1 1 0\\n%%end 1 1 0\\n'
read line
{answer}
read line
"""


async def _fake(place: Place, answer: str) -> ControlConnection:
    """Return a connection to a program that speaks like tmux, up to a point."""
    program = place.directory / "fake"
    program.write_text(FAKE.format(answer=answer))
    program.chmod(0o700)
    return await ControlConnection.open(
        [str(program)], "", on_notification=lambda _: None, meter=Meter("fake", Breaker()), log=place.log
    )


async def test_t11_an_omitted_reply_is_found_out(place: Place) -> None:
    connection = await _fake(place, "")
    with pytest.raises(TmuxTimeout, match="has-session"):
        await connection.run("has-session", timeout_s=0.1)
    with pytest.raises(TmuxUnavailable):
        await connection.run("has-session", timeout_s=0.1)
    await connection.close()


@pytest.mark.parametrize("answer", ["echo %end 1 2 1", "echo hello", "echo %begin 1 9 1; echo %begin; echo; exec true"])
async def test_t11_a_reply_that_is_none_is_found_out(place: Place, answer: str) -> None:
    connection = await _fake(place, answer)
    with pytest.raises(TmuxUnavailable):
        await connection.run("has-session", timeout_s=5.0)
    await connection.close()


async def test_a_server_that_refuses_us_says_why(place: Place) -> None:
    with pytest.raises(TmuxUnavailable, match="no-such-tmux"):
        async with place.open(binary="no-such-tmux"):
            pass
