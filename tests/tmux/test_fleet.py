"""Several servers behind one interface: each dies alone, none is confused with another, all are found again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections import Counter
from pathlib import Path

import anyio
import pytest
from servers import Place, Seen, became, screen, spawn

from agentd.errors import Conflict, StaleTarget
from agentd.records import PaneRef
from agentd.tmux.failures import PaneDead, TmuxUnavailable
from agentd.tmux.fleet import Fleet
from agentd.tmux.processes import is_alive, start_of
from agentd.tmux.tmux import Output, PaneDied, Restored, ServerGone

pytestmark = pytest.mark.anyio

TOLD_S = 1.0
SLACK_S = 2.0  # for a machine that does other things, too


def pid_of(server: str) -> int:
    return int(server.partition(":")[0])


async def spawn_many(fleet: Fleet, count: int, *argv: str) -> list[PaneRef]:
    """Start so many at once."""
    refs: list[PaneRef] = []

    async def one(number: int) -> None:
        refs.append(await spawn(fleet, *argv, name=f"a-{number}"))

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(one, number)
    return refs


async def works(fleet: Fleet, seen: Seen, ref: PaneRef, word: str) -> None:
    await fleet.type_text(ref, word)
    await screen(fleet, seen, ref, lambda look: word in look.text)


def stranger(place: Place, index: int) -> int:
    """Start a server that is not ours at the place of one of ours; return the pid of what runs in it."""
    tmux = ["tmux", "-S", place.paths.tmux_socket(index), "-f", "/dev/null"]
    words = ["new-session", "-d", "-P", "-F", "#{pane_pid}", "-s", "a-1", "sleep", "1000"]
    return int(subprocess.run([*tmux, *words], capture_output=True, text=True, timeout=10, check=True).stdout)


def clients(place: Place, index: int) -> int:
    """Return how many clients a server has."""
    return len(place.tmux("list-clients", socket=place.paths.tmux_socket(index)).stdout.splitlines())


async def test_there_is_one_server_until_it_is_full(place: Place) -> None:
    async with place.fleet(agents_per_server=2) as (fleet, _):
        assert [row["index"] for row in fleet.servers()] == [0]
        assert Path(place.paths.tmux_socket(0)).is_socket()
        refs = [await spawn(fleet, "cat", name=f"a-{number}") for number in range(5)]
        assert [row["agents"] for row in fleet.servers()] == [2, 2, 1]
        await fleet.kill(refs[0], 0.0)
        again = await spawn(fleet, "cat", name="again")
        assert again.server == refs[0].server, "the room of an agent that ended is not used"
        assert [row["agents"] for row in fleet.servers()] == [2, 2, 1]


async def test_agents_started_at_once_start_each_server_once(place: Place) -> None:
    async with place.fleet(agents_per_server=3) as (fleet, _):
        refs = await spawn_many(fleet, 12, "cat")
        shares = Counter(ref.server for ref in refs)
        assert sorted(shares.values()) == [3, 3, 3, 3]
        assert {row["server"] for row in fleet.servers()} == set(shares)
        assert len({clients(place, index) for index in range(4)}) == 1, "somebody connected twice"
        assert len(await fleet.panes()) == 12
        rows = await fleet.sessions()
        assert Counter(row["server"] for row in rows) == {0: 3, 1: 3, 2: 3, 3: 3}
        await fleet.stop()
        await became(lambda: not any(is_alive(start_of(pid_of(server))) for server in shares))
        with pytest.raises(TmuxUnavailable, match="stopped on request"):
            await spawn(fleet, "cat", name="late")


async def test_equal_ids_on_two_servers_are_never_confused(place: Place) -> None:
    async with place.fleet("2") as (fleet, seen):
        one = await spawn(fleet, "cat", name="one")
        two = await spawn(fleet, "cat", name="two")
        assert one.server != two.server
        assert (one.session_id, one.window_id, one.pane_id) == (two.session_id, two.window_id, two.pane_id)
        await works(fleet, seen, one, "only-one")
        await fleet.paste(two, "only-two")
        await screen(fleet, seen, two, lambda look: "only-two" in look.text)
        assert "only-two" not in (await fleet.look(one)).text
        assert "only-one" not in (await fleet.look(two)).text
        heard = {ref.server: b"".join(e.data for e in seen.of(Output) if e.server == ref.server) for ref in (one, two)}
        assert b"only-one" in heard[one.server]
        assert b"only-one" not in heard[two.server]
        assert fleet.attach_argv(one) != fleet.attach_argv(two)
        assert {fleet.socket_of(one), fleet.socket_of(two)} == {place.paths.tmux_socket(index) for index in (0, 1)}
        seen.events.clear()
        await fleet.keys(one, "Enter", "C-d")
        await seen.until(lambda: seen.of(PaneDied))
        assert seen.of(PaneDied) == [PaneDied(one.pane_id, one.server)]
        with pytest.raises(PaneDead):
            await fleet.paste(one, "into the dead")
        await fleet.kill(one, 1.0)
        assert [pane.ref for pane in await fleet.panes()] == [two]
        await works(fleet, seen, two, "still-here")


async def test_f09_the_death_of_one_of_three_takes_its_share_only(place: Place) -> None:
    async with place.fleet("3") as (fleet, seen):
        refs = await spawn_many(fleet, 9, "cat")
        gone = refs[0].server
        theirs = [ref for ref in refs if ref.server == gone]
        others = [ref for ref in refs if ref.server != gone]
        assert len(theirs) == 3
        os.kill(pid_of(gone), signal.SIGKILL)
        await seen.until(lambda: seen.of(ServerGone), timeout_s=TOLD_S + SLACK_S)
        assert seen.of(ServerGone) == [ServerGone(gone)]
        for ref in theirs:
            with pytest.raises(StaleTarget):
                await fleet.type_text(ref, "x")
        assert fleet.socket_of(theirs[0]) is None
        found = {pane.ref: pane for pane in await fleet.panes()}
        assert set(found) == set(others)
        for ref in others:
            assert not (await fleet.look(ref)).dead
        await works(fleet, seen, others[0], "alive")
        await seen.until(
            lambda: any(event.server not in (gone, *(o.server for o in others)) for event in seen.of(Restored))
        )
        again = await spawn(fleet, "cat", name="again")
        assert again.server not in {ref.server for ref in refs}, "the least loaded server is the one started again"
        await works(fleet, seen, again, "again")
        assert len(seen.of(ServerGone)) == 1


async def test_a_new_fleet_adopts_whatever_lives_there(place: Place) -> None:
    async with place.fleet("3") as (fleet, _):
        refs = await spawn_many(fleet, 6, "cat")
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(place.paths.tmux_socket(9))
    dead.close()
    foreign = stranger(place, 5)
    async with place.fleet("1") as (fleet, seen):
        assert {pane.ref for pane in await fleet.panes()} == set(refs)
        assert [row["agents"] for row in fleet.servers()] == [2, 2, 2]
        assert not Path(place.paths.tmux_socket(9)).exists()
        new = await spawn(fleet, "cat", name="new")
        assert fleet.socket_of(new) == place.paths.tmux_socket(0), "the setting bounds where new agents go"
        for ref in refs:
            await works(fleet, seen, ref, f"word-{ref.pid}")
        for ref in refs:
            await fleet.kill(ref, 0.0)
        assert [pane.ref for pane in await fleet.panes()] == [new]
    assert is_alive(start_of(foreign)), "a stranger's server was touched"


async def test_a_server_that_cannot_be_started_fails_its_own_agents_only(place: Place) -> None:
    """The next ones go elsewhere, and what it was is one sentence."""
    async with place.fleet("3") as (fleet, seen):
        first = await spawn(fleet, "cat", name="first")
        Path(f"{place.paths.tmux_conf(1)}.new").symlink_to("/dev/null")
        with pytest.raises(TmuxUnavailable, match=r"tmux server 1 could not be started: .*symlink"):
            await spawn(fleet, "cat", name="unlucky")
        refs = [await spawn(fleet, "cat", name=f"lucky-{number}") for number in range(2)]
        assert {ref.server for ref in refs} == {first.server}
        assert [row["index"] for row in fleet.servers()] == [0]
        await works(fleet, seen, first, "untouched")


async def test_a_strangers_place_is_passed_over(place: Place) -> None:
    """F12: what is at the place of a server of ours and is not ours is left alone, and so is a file."""
    async with place.fleet("4") as (fleet, _):
        await spawn(fleet, "cat", name="first")
        foreign = stranger(place, 1)
        Path(place.paths.tmux_socket(2)).write_text("mine")
        for why in ("belongs to", "is not a socket"):
            with pytest.raises(TmuxUnavailable, match=why):
                await spawn(fleet, "cat", name="unlucky")
        refs = await spawn_many(fleet, 4, "cat")
        assert {fleet.socket_of(ref) for ref in refs} == {place.paths.tmux_socket(index) for index in (0, 3)}
        assert is_alive(start_of(foreign))
        assert place.tmux("has-session", "-t", "=a-1", socket=place.paths.tmux_socket(1)).returncode == 0
        assert Path(place.paths.tmux_socket(2)).read_text() == "mine"
        Path(place.paths.tmux_socket(2)).unlink()


async def test_f12_a_stranger_at_a_dead_servers_place(place: Place) -> None:
    """Ids of the dead one would name the stranger's panes: no operation reaches them."""
    async with place.fleet("2") as (fleet, seen):
        first = await spawn(fleet, "cat", name="first")
        second = await spawn(fleet, "cat", name="second")
        path = place.paths.tmux_socket(1)
        Path(path).unlink()  # no await until ours is dead: the fleet would have it make its socket again
        foreign = stranger(place, 1)
        os.kill(pid_of(second.server), signal.SIGKILL)
        await seen.until(lambda: seen.of(ServerGone))
        for use in (fleet.look(second), fleet.keys(second, "C-c"), fleet.kill(second, 0.0)):
            with pytest.raises(StaleTarget):
                await use
        refs = [await spawn(fleet, "cat", name=f"more-{number}") for number in range(3)]
        assert {ref.server for ref in refs} == {first.server}
        assert is_alive(start_of(foreign))
        assert place.tmux("has-session", "-t", "=a-1", socket=path).returncode == 0


async def test_the_first_place_must_be_ours(place: Place) -> None:
    foreign = stranger(place, 0)
    with pytest.raises(Conflict):
        async with place.fleet():
            pytest.fail("it was taken for ours")
    assert is_alive(start_of(foreign))
