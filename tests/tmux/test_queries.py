"""Answers from the cache over real servers: dropped by what makes them untrue, and taken up again after a restart."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
import pytest
import structlog
from servers import WAIT_S, Place, spawn

from agentd.cache.answer import Answer
from agentd.cache.cache import Cache
from agentd.config import CacheConfig, TmuxConfig
from agentd.paths import Paths
from agentd.records import PaneRef
from agentd.tmux.events import Lost, Restored, TmuxEvent
from agentd.tmux.fleet import Fleet
from agentd.tmux.queries import Queries, ask, tags_of

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def asking(place: Place) -> AsyncIterator[tuple[Queries, Fleet]]:
    """Give queries over a fleet, as the daemon puts them together."""
    listeners: list = []

    def tell(event: TmuxEvent) -> None:
        for listener in listeners:
            listener(event)

    directory = str(place.directory)
    log = structlog.get_logger()
    async with Fleet.open(TmuxConfig(), Paths(directory, directory, directory, one_dir=True), "t", log, tell) as fleet:
        path = str(place.directory / "cache.db")
        async with Cache.open(CacheConfig(), partial(ask, fleet), tags_of, lambda: "t", path, log) as cache:
            queries = Queries(cache, fleet)
            listeners.append(queries.on_tmux)
            yield queries, fleet


async def screen(queries: Queries, ref: PaneRef) -> Answer:
    return await queries.capture(ref, None, raw=False, caller="", max_age_s=None, fresh=False)


async def until(queries: Queries, ref: PaneRef, text: str) -> Answer:
    """Ask until the screen shows a text: each answer may come from the cache."""
    with anyio.fail_after(WAIT_S):
        while text not in (answer := await screen(queries, ref)).value["text"]:
            await anyio.sleep(0.01)
    return answer


async def quiet(queries: Queries, ref: PaneRef) -> None:
    """Wait until the screen is kept: what its start printed has been told."""
    with anyio.fail_after(WAIT_S):
        while (await screen(queries, ref)).tier != "l1":
            await anyio.sleep(0.05)


async def test_a_screen_is_kept_until_its_program_prints(place: Place) -> None:
    async with asking(place) as (queries, fleet):
        ref, other = await spawn(fleet, "cat"), await spawn(fleet, "cat", name="a-2")
        await until(queries, ref, "")
        for each in (ref, other):
            await quiet(queries, each)
        await fleet.type_text(ref, "hello")
        await until(queries, ref, "hello")
        assert (await screen(queries, other)).tier == "l1", "another pane's screen still stands"
        await quiet(queries, ref)
        await fleet.kill(ref, 0.0)
        await fleet.stop()


async def test_sessions_are_kept_until_one_changes(place: Place) -> None:
    async with asking(place) as (queries, fleet):
        await spawn(fleet, "cat")
        with anyio.fail_after(WAIT_S):
            while (await queries.sessions("")).tier != "l1":
                await anyio.sleep(0.05)
        kept = queries.kept_sessions(None)
        assert kept is not None
        assert [row["name"] for row in kept.value] == ["a-1"]
        assert queries.kept_sessions(0.0) is None, "older than asked for"
        await fleet_socket(place, "rename-session", "-t", "=a-1:", "other")
        with anyio.fail_after(WAIT_S):
            while [row["name"] for row in (await queries.sessions("")).value] != ["other"]:
                await anyio.sleep(0.01)
        queries.changed()
        assert queries.kept_sessions(None) is None, "our own change is seen at once"
        await fleet.stop()


async def test_a_server_that_is_not_heard_shrinks_the_bound(place: Place) -> None:
    async with asking(place) as (queries, fleet):
        ref = await spawn(fleet, "cat")
        await quiet(queries, ref)
        queries.on_tmux(Lost(ref.server))
        queries.on_tmux(Lost("another"))
        assert (await screen(queries, ref)).bound_ms <= CacheConfig().deaf_ttl_s * 1000
        queries.on_tmux(Restored(ref.server))
        assert (await screen(queries, ref)).bound_ms <= CacheConfig().deaf_ttl_s * 1000, "one is still not heard"
        queries.on_tmux(Restored("another"))
        again = await screen(queries, ref)
        assert again.tier == "tmux", "what was missed meanwhile is not known"
        assert (await screen(queries, ref)).bound_ms > CacheConfig().deaf_ttl_s * 1000
        await fleet.stop()


async def test_after_a_restart_only_screens_that_stand_are_served(place: Place) -> None:
    """A daemon that comes back has heard nothing: what printed since is asked for anew."""
    async with asking(place) as (queries, fleet):
        still, busy = await spawn(fleet, "cat"), await spawn(fleet, "cat", name="a-2")
        for ref in (still, busy):
            await quiet(queries, ref)
        await anyio.sleep(2.1)  # tmux tells in whole seconds when a pane printed last
        for ref in (still, busy):
            assert (await fresh(queries, ref)).tier == "tmux"
    await fleet_socket(place, "send-keys", "-t", busy.pane_id, "while nobody heard")
    async with asking(place) as (queries, fleet):
        assert (await screen(queries, still)).tier == "tmux", "nothing is believed before it was looked at"
        await queries.revive()
    async with asking(place) as (queries, fleet):
        await queries.revive()
        assert (await screen(queries, still)).tier == "l3"
        shown = await until(queries, busy, "while nobody heard")
        assert shown.tier == "tmux"
        await fleet.stop()


async def fresh(queries: Queries, ref: PaneRef) -> Answer:
    return await queries.capture(ref, None, raw=False, caller="", max_age_s=None, fresh=True)


async def fleet_socket(place: Place, *words: str) -> None:
    """Change the first server from outside."""
    done = await anyio.to_thread.run_sync(partial(place.tmux, *words, socket=str(place.directory / "tmux-0.sock")))
    assert done.returncode == 0, done.stderr
