"""The connections for commands: which one takes what, and what happens while the server does not answer."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import anyio
import pytest
from servers import Place, became, control_shim, screen, server_pid, spawn

from agentd.errors import AgentdError, Busy
from agentd.tmux import connection as connection_module
from agentd.tmux.breaker import Breaker
from agentd.tmux.failures import TmuxTimeout, TmuxUnavailable
from agentd.tmux.meter import Meter
from agentd.tmux.tmux import Restored, SessionsChanged, SpawnOrder, Tmux

pytestmark = pytest.mark.anyio

LONG = ["sh", "-c", "seq 1 20000; echo DONE; exec cat"]


@contextmanager
def frozen(tmux: Tmux) -> Iterator[None]:
    """Stop the server, and let it go on afterwards."""
    pid = server_pid(tmux)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def row(tmux: Tmux, role: str) -> dict:
    (found,) = [row for row in tmux.stats()["connections"] if row["role"] == role]
    return found


def silent(tmux: Tmux) -> bool:
    return tmux.stats()["breaker"]["state"] == "open"


@pytest.mark.parametrize("control", [True, False], ids=["connections", "forks"])
async def test_f10_a_frozen_server_is_noticed_and_then_nobody_waits_for_it(place: Place, control: bool) -> None:
    """Calls fail at once, in one sentence; no process and no waiting call piles up; all is well after CONT."""
    async with place.open(command_timeout_s=0.5, control_mode=control) as (tmux, seen):
        ref = await spawn(tmux, "cat")
        server, outcomes = tmux.server, []

        async def call() -> None:
            try:
                await tmux.look(ref)
            except (TmuxTimeout, TmuxUnavailable) as error:
                outcomes.append(error)

        with frozen(tmux):
            async with anyio.create_task_group() as group:
                for _ in range(50):
                    group.start_soon(call)
            assert len(outcomes) == 50, "each came back, with an error"
            await became(lambda: silent(tmux))
            outcomes.clear()
            with anyio.fail_after(5.0):  # as many as would take minutes if each waited
                for _ in range(500):
                    await call()
                    with pytest.raises(TmuxUnavailable):
                        await tmux.keys(ref, "a")
            assert len(outcomes) == 500
            assert "does not answer since" in outcomes[0].message
            assert outcomes[0].retryable
            assert len(place.processes()) <= 10
            waiting = [row["pending"] for row in [*tmux.stats()["connections"], tmux.stats()["forks"]]]
            assert sum(waiting) <= 10
        await became(lambda: not silent(tmux), timeout_s=5.0)
        assert tmux.stats()["breaker"]["opened"] == 1
        await tmux.type_text(ref, "thawed")
        await screen(tmux, seen, ref, lambda look: "thawed" in look.text)
        assert tmux.server == server
        await became(lambda: tmux._calls.pool.links.hearing)


async def test_f10_an_idle_daemon_notices_a_frozen_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody calls: the health checks find out."""
    monkeypatch.setattr("agentd.tmux.links._SILENT_S", 0.2)
    monkeypatch.setattr("agentd.tmux.links._HEALTH_S", 1.0)
    async with place.open() as (tmux, seen):
        # the look for deaths at the start is over: nobody waits for anything
        await became(lambda: (bulk := row(tmux, "bulk-1"))["commands"] >= 2 and not bulk["pending"])
        with frozen(tmux):
            await became(lambda: silent(tmux))
            with pytest.raises(TmuxUnavailable, match="does not answer since"):
                await tmux.panes()
        monkeypatch.undo()
        await became(lambda: not silent(tmux))
        await seen.until(lambda: seen.of(Restored))
        assert await tmux.panes() == []


async def test_f10_a_start_that_the_frozen_server_makes_later_leaves_no_session(place: Place) -> None:
    """The command is on its way and cannot be called back: what it makes after CONT is ended."""
    async with place.open(command_timeout_s=1.0) as (tmux, seen):
        with frozen(tmux), pytest.raises((TmuxTimeout, TmuxUnavailable)):
            await spawn(tmux, "sleep", "1000", name="half")
        await seen.until(lambda: seen.of(Restored))
        await became(lambda: not tmux._starting._left)
        assert await tmux.sessions() == []
        await spawn(tmux, "sleep", "1000", name="half")
        assert [each["name"] for each in await tmux.sessions()] == ["half"]


def test_the_breaker_opens_after_two_timeouts_and_no_answer_between() -> None:
    now_s = 100.0
    breaker = Breaker(lambda: now_s)
    breaker.timed_out(99.0)
    assert not breaker.open, "the server answered after that command was sent"
    now_s = 101.0
    breaker.timed_out(100.5)
    breaker.answered(now_s)
    breaker.timed_out(101.5)
    assert not breaker.open
    breaker.timed_out(101.2)
    assert breaker.open
    now_s = 111.2
    with pytest.raises(TmuxUnavailable, match=r"\(10 s\)"):
        breaker.check()
    breaker.answered(now_s)
    breaker.check()
    assert breaker.row() == {"state": "closed", "opened": 1, "silent_s": 0.0}


async def test_a_long_capture_delays_no_short_command(place: Place) -> None:
    """By order of completion: the captures were sent first, over the other connection, and do not hold it up."""
    async with place.open(history_limit=100_000) as (tmux, seen):
        ref = await spawn(tmux, *LONG)
        await screen(tmux, seen, ref, lambda look: "DONE" in look.text)
        done: list[str] = []

        async def long() -> None:
            look = await tmux.look(ref, lines=100_000)
            done.append("long")
            assert look.text.startswith("1\n2\n")

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(long)
            await became(lambda: row(tmux, "bulk-1")["pending"] == 20)
            assert row(tmux, "calls-1")["pending"] == 0
            await tmux.keys(ref, "a")
            done.append("short")
        assert "short" in done[:10], done


@pytest.mark.parametrize(("count", "bulk"), [(1, 0), (2, 1), (20, 5)])
async def test_any_number_of_connections_works(place: Place, count: int, bulk: int) -> None:
    async with place.open(connections=count) as (tmux, seen):
        roles = [row["role"] for row in tmux.stats()["connections"]]
        assert len([role for role in roles if role.startswith("bulk-")]) == bulk
        assert len(roles) == count + 2
        orders = [SpawnOrder(f"a-{number}", ["cat"], {}, "/", 80, 24) for number in range(30)]
        refs = await tmux.spawn_many(orders)
        async with anyio.create_task_group() as group:
            for ref in refs:
                group.start_soon(tmux.type_text, ref, "hello")
        for ref in refs:
            await screen(tmux, seen, ref, lambda look: "hello" in look.text)
        used = [row for row in tmux.stats()["connections"] if row["role"].startswith("calls") and row["commands"] > 2]
        assert len(used) == count - bulk, "each takes its part"
        assert len(seen.of(SessionsChanged)) <= 30, "each change is told once, not by every one"


async def test_a_lost_connection_fails_over_to_the_others(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        os.kill(row(tmux, "calls-1")["pid"], signal.SIGKILL)
        await became(lambda: row(tmux, "calls-1")["pid"] == 0)
        await tmux.type_text(ref, "meanwhile")  # over what is left, or in a process of its own
        await screen(tmux, seen, ref, lambda look: "meanwhile" in look.text)
        await became(lambda: row(tmux, "calls-1")["reconnects"] == 1)


async def test_without_any_connection_commands_run_in_processes(place: Place) -> None:
    """Control mode cannot be had at all: what is asked still works, and deaths are still told."""
    binary, refusing = control_shim(place, "echo no control mode today >&2")
    refusing.touch()
    async with place.open(binary=binary) as (tmux, seen):
        ref = await spawn(tmux, "cat")
        await tmux.type_text(ref, "hello")
        await screen(tmux, seen, ref, lambda look: "hello" in look.text)
        assert tmux.stats()["forks"]["commands"] > 2
        os.kill(ref.pid, signal.SIGKILL)
        await seen.until(lambda: [event.pane_id for event in seen.events if hasattr(event, "pane_id")][-1:])
        await became(lambda: any(type(event).__name__ == "PaneDied" for event in seen.events))
        refusing.unlink()
        await seen.until(lambda: seen.of(Restored))


async def test_what_waits_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_MAX_PENDING", 10)
    async with place.open(command_timeout_s=1.0) as (tmux, _):
        ref = await spawn(tmux, "cat")
        outcomes: list[type] = []

        async def call() -> None:
            try:
                await tmux.look(ref)
            except AgentdError as error:
                outcomes.append(type(error))

        with frozen(tmux):
            async with anyio.create_task_group() as group:
                for _ in range(30):
                    group.start_soon(call)
        assert outcomes.count(Busy) == 20


def test_the_time_of_each_command_leaves_out_the_wait_behind_others() -> None:
    meter = Meter("calls-1", Breaker())
    sent_s = [meter.sent() for _ in range(100)]
    for number, one_s in enumerate(sent_s, 1):
        meter.answered(one_s, sent_s[-1] + number * 0.01, ok=True)
    assert 490 < meter.row()["p50_ms"] < 510
    assert 9 < meter.row()["each_ms"] < 11


async def test_statistics_say_what_was_done(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        for _ in range(20):
            await tmux.look(ref)
        await seen.until(lambda: seen.of(SessionsChanged))
        stats = tmux.stats()
        calls = row(tmux, "calls-1")
        assert stats["server"] == tmux.server
        assert calls["commands"] >= 21
        assert (calls["errors"], calls["timeouts"], calls["reconnects"], calls["pending"]) == (0, 0, 0, 0)
        assert 0 < calls["p50_ms"] <= calls["p99_ms"]
        assert stats["breaker"] == {"state": "closed", "opened": 0, "silent_s": 0.0}
        assert stats["events"] > 0
        assert 0 <= stats["event_lag_ms"] < 1000
        assert (stats["orphans_closed"], stats["control_mode"], stats["forks"]["commands"]) == (0, True, 0)
