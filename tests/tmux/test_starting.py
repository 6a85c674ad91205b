"""Starting many at once: each whole or not at all, and never more than the server has room for."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

import anyio
import pytest
from servers import Place, screen, server_pid, spawn

from agentd.errors import AlreadyExists, InvalidValue, OverLimit
from agentd.records import PaneRef
from agentd.tmux.failures import TmuxRefused
from agentd.tmux.processes import is_alive, start_of
from agentd.tmux.tmux import Output, SpawnOrder

pytestmark = pytest.mark.anyio


def orders(count: int, *argv: str) -> list[SpawnOrder]:
    return [SpawnOrder(f"a-{number}", argv or ("cat",), {"N": str(number)}, "/", 80, 24) for number in range(count)]


def options(place: Place, ref: PaneRef) -> str:
    return place.tmux("show-options", "-w", "-v", "-t", ref.window_id, "window-size").stdout.strip()


@pytest.mark.parametrize("parallel", [True, False])
async def test_a_batch_starts_in_order_and_whole(place: Place, parallel: bool) -> None:
    async with place.open(parallel_spawn=parallel) as (tmux, seen):
        refs = await tmux.spawn_many(orders(40))
        assert all(isinstance(ref, PaneRef) for ref in refs)
        panes = {pane.session_name: pane.ref for pane in await tmux.panes()}
        assert panes == {f"a-{number}": ref for number, ref in enumerate(refs)}
        for number in (0, 39):
            assert f"N={number}".encode() in Path(f"/proc/{refs[number].pid}/environ").read_bytes().split(b"\0")
            assert options(place, refs[number]) == "manual"
            seen.events.clear()
            await tmux.type_text(refs[number], "heard")  # its window is linked where we listen
            await seen.until(lambda number=number: any(e.pane_id == refs[number].pane_id for e in seen.of(Output)))


async def test_one_after_the_other_means_one(place: Place) -> None:
    async with place.open() as (tmux, _):
        tmux.use_parallel_spawn(on=False)
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, sum(row["pending"] for row in tmux.stats()["connections"][:-1]))
                await anyio.sleep(0)

        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            await tmux.spawn_many(orders(20))
            one_by_one, most = most, 0
            tmux.use_parallel_spawn(on=True)
            await tmux.spawn_many([SpawnOrder(f"b-{n}", ["cat"], {}, "/", 80, 24) for n in range(20)])
            group.cancel_scope.cancel()
        assert one_by_one <= 2  # the start, and a look for deaths beside it
        assert most > 10


async def test_what_fails_names_its_reason_and_stops_nobody_else(place: Place) -> None:
    async with place.open() as (tmux, _):
        batch = [
            *orders(3),
            SpawnOrder("a-1", ["cat"], {}, "/", 80, 24),
            SpawnOrder("none", ["no-such-program"], {}, "/", 80, 24),
            SpawnOrder("#(x)", ["cat"], {}, "/", 80, 24),
            SpawnOrder("var", ["cat"], {"a b": ""}, "/", 80, 24),
            SpawnOrder("dir", ["cat"], {}, "/no/such/dir", 80, 24),
            SpawnOrder("last", ["cat"], {}, "/", 80, 24),
        ]
        kinds = [type(result) for result in await tmux.spawn_many(batch)]
        assert kinds == [*[PaneRef] * 3, AlreadyExists, *[InvalidValue] * 4, PaneRef]
        assert {row["name"] for row in await tmux.sessions()} == {"a-0", "a-1", "a-2", "last"}


@pytest.mark.parametrize("control", [True, False], ids=["connections", "forks"])
async def test_a_start_that_fails_half_way_leaves_nothing(place: Place, control: bool) -> None:
    """The session is made and its window cannot be linked: somebody gave the hub another name."""
    async with place.open(control_mode=control) as (tmux, _):
        server = tmux.server
        place.tmux("rename-session", "-t", "=_agentd", "elsewhere")
        with pytest.raises(TmuxRefused, match="link-window"):
            await spawn(tmux, "sleep", "1000")
        results = await tmux.spawn_many(orders(20, "sleep", "1000"))
        assert {type(result) for result in results} == {TmuxRefused}
        place.tmux("rename-session", "-t", "=elsewhere", "_agentd")
        assert await tmux.sessions() == []
        ref = await spawn(tmux, "cat")
        assert is_alive(start_of(ref.pid))
        assert tmux.server == server


async def test_a_taken_name_is_not_linked_twice(place: Place) -> None:
    """The rest of a sequence must not run when its first command failed: it would hit the session that was there."""
    async with place.open() as (tmux, _):
        first = await spawn(tmux, "cat")
        for _ in range(3):
            with pytest.raises(AlreadyExists):
                await spawn(tmux, "cat")
        linked = place.tmux("list-windows", "-t", "_agentd", "-F", "#{window_id}").stdout.split()
        assert linked.count(first.window_id) == 1


async def test_a_cancelled_batch_leaves_whole_agents_only(place: Place) -> None:
    async with place.open() as (tmux, _):
        with anyio.move_on_after(0.02):
            await tmux.spawn_many(orders(200, "sleep", "1000"))
        panes = await tmux.panes()
        assert len(panes) < 200
        windows = place.tmux("list-windows", "-t", "_agentd", "-F", "#{window_id}").stdout.split()
        assert {pane.ref.window_id for pane in panes} <= set(windows)


@pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
async def test_f15_more_agents_than_the_server_has_files_for_are_refused(place: Place) -> None:
    async with place.open() as (tmux, _):
        server, pid = tmux.server, server_pid(tmux)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (200, 3 * 10 + 256))
        refs = await tmux.spawn_many(orders(10, "sleep", "1000"))
        assert all(isinstance(ref, PaneRef) for ref in refs)
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (286, 286), "the soft limit follows what is asked for"
        more = [SpawnOrder(f"b-{number}", ["cat"], {}, "/", 80, 24) for number in range(5)]
        for ask in (tmux.spawn_many(more), spawn(tmux, "cat", name="b-1")):
            with pytest.raises(
                OverLimit, match=r"need \d+ open files in one tmux server and it may have 286"
            ) as caught:
                await ask
            assert "ulimit -Hn" in (caught.value.hint or "")
        assert len(await tmux.sessions()) == 10
        assert tmux.server == server


async def test_a_hundred_starts_and_ends_side_by_side_keep_the_server(place: Place) -> None:
    """Starts are one write, ends are awaited steps: in one burst they would crash every tmux."""
    async with place.open(connections=4) as (tmux, seen):
        server = tmux.server

        async def churn(number: int) -> None:
            for turn in range(10):
                ref = await spawn(tmux, "sleep", "1000", name=f"churn-{number}-{turn}")
                await tmux.kill(ref, 0.0)

        async with anyio.create_task_group() as group:
            for number in range(10):
                group.start_soon(churn, number)
        assert tmux.server == server
        assert await tmux.sessions() == []
        ref = await spawn(tmux, "cat")
        await tmux.type_text(ref, "fine")
        await screen(tmux, seen, ref, lambda look: "fine" in look.text)


async def test_agents_get_the_umask_and_directory_that_were_asked_for(place: Place) -> None:
    script = "umask; pwd; exec cat"
    async with place.open() as (tmux, seen):
        order = SpawnOrder("a", ["sh", "-c", script], {}, str(place.directory), 80, 24, umask=0o027)
        (ref,) = await tmux.spawn_many([order])
        look = await screen(tmux, seen, ref, lambda look: str(place.directory) in look.text)
        assert look.text.startswith(f"0027\n{os.path.realpath(place.directory)}")
