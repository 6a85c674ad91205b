"""Spawning, looking, listing and ending, on a real server."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import pytest
from servers import Place, bash, exists, screen, spawn

from agentd.errors import AlreadyExists, Conflict, InvalidValue
from agentd.tmux.processes import is_alive, start_of
from agentd.tmux.tmux import PaneDead, PaneDied, Renamed, SessionsChanged, WindowsChanged

pytestmark = pytest.mark.anyio


async def test_a_program_runs_with_its_words_directory_and_environment(place: Place) -> None:
    words = ["a b", "it's", "$HOME", "#{pid}", ";", "x;", "", "-n", "%1", "~", "{", "é"]
    script = 'pwd; printf "<%s>" "$@"; printf "\\n%s\\n" "$GREETING"; exec sleep 100'
    cwd = place.directory / "a dir; it's"
    cwd.mkdir()
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", script, "sh", *words, cwd=str(cwd), GREETING="two\nlines; '#{pid}")
        look = await screen(tmux, seen, ref, lambda look: "lines;" in look.text)
        assert look.text.startswith(
            "\n".join([str(cwd), "".join(f"<{word}>" for word in words), "two", "lines; '#{pid}"])
        )
        assert (look.width, look.height, look.dead) == (80, 24, False)


async def test_t17_an_agent_is_not_shown_the_way_to_the_server(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX", "/somewhere/else,1,2")
    monkeypatch.setenv("TMUX_PANE", "%99")
    monkeypatch.setenv("AGENTD_TOKEN_FILE", "/another/agents/token")
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", "env; echo THE END; exec sleep 100")
        look = await screen(tmux, seen, ref, lambda look: "THE END" in look.text)
        whole = await tmux.look(ref, lines=500)
        names = {line.partition("=")[0] for line in whole.text.splitlines()}
        assert "PATH" in names
        assert not names & {"TMUX", "TMUX_PANE", "AGENTD_TOKEN_FILE"}
        assert place.socket not in look.text


@pytest.mark.parametrize(
    ("argv", "cwd"),
    [
        (["no-such-program"], "/"),
        (["/no/such/program"], "/"),
        ([], "/"),
        (["sh"], "/no/such/dir"),
        (["sh"], "relative"),
    ],
)
async def test_what_cannot_run_is_refused_before_tmux_is_asked(place: Place, argv: list[str], cwd: str) -> None:
    async with place.open() as (tmux, _):
        with pytest.raises(InvalidValue):
            await spawn(tmux, *argv, cwd=cwd)
        assert await tmux.sessions() == []


@pytest.mark.parametrize("name", ["", "a b", "#(x)", "_agentd", "a:1", "a.1", "x" * 65, "a\n", "é", "=a", "$1"])
async def test_a_name_that_means_something_to_tmux_is_refused(place: Place, name: str) -> None:
    async with place.open() as (tmux, _):
        with pytest.raises(InvalidValue):
            await spawn(tmux, "sleep", "100", name=name)


async def test_a_taken_name_leaves_the_first_alone(place: Place) -> None:
    async with place.open() as (tmux, _):
        first = await spawn(tmux, "sleep", "100")
        with pytest.raises(AlreadyExists):
            await spawn(tmux, "sleep", "100")
        assert [pane.ref for pane in await tmux.panes()] == [first]


async def test_lists_say_what_is_there(place: Place) -> None:
    async with place.open() as (tmux, seen):
        title = "printf '\\033]2;a|b #{pid}\\007'; exec sleep 100"
        ref = await spawn(tmux, "sh", "-c", title, name="one")
        await spawn(tmux, "sleep", "100", name="two")
        await screen(tmux, seen, ref, lambda look: look.title == "a|b #{pid}" and look.command == "sleep")
        panes = {pane.session_name: pane for pane in await tmux.panes()}
        assert set(panes) == {"one", "two"}
        one = panes["one"]
        assert (one.ref, one.dead, one.command, one.title) == (ref, False, "sleep", "a|b #{pid}")
        assert os.path.realpath(f"/proc/{ref.pid}/fd/0") == one.tty
        sessions = await tmux.sessions()
        assert [(row["name"], row["windows"], row["panes"]) for row in sessions] == [("one", 1, 1), ("two", 1, 1)]
        assert all(row["activity"] > 1_000_000_000 for row in sessions)


async def test_a_look_joins_wrapped_lines_and_reaches_the_scrollback(place: Place) -> None:
    script = "seq 1000 1099; printf '%0200d\\n' 7; printf '\\033[31mred\\033[0m'; exec sleep 100"
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", script)
        look = await screen(tmux, seen, ref, lambda look: "red" in look.text)
        assert "0" * 199 + "7" in look.text.split("\n")
        assert "1000" not in look.text
        assert (look.cursor_x, look.alternate, look.in_mode) == (3, False, False)
        assert "1000\n1001" in (await tmux.look(ref, lines=200)).text
        assert "\x1b[31m" in (await tmux.look(ref, escapes=True)).text


async def test_a_program_that_ends_says_how(place: Place) -> None:
    async with place.open() as (tmux, seen):
        # Not `echo bye; exit 3` at once: what the pty still holds when a session leader exits, the kernel may drop.
        status = await spawn(tmux, "sh", "-c", "echo bye; read x; exit 3", name="status")
        await screen(tmux, seen, status, lambda look: "bye" in look.text)
        await tmux.keys(status, "Enter")
        killed = await spawn(tmux, "sh", "-c", "kill -9 $$", name="killed")
        await seen.until(lambda: {event.pane_id for event in seen.of(PaneDied)} == {status.pane_id, killed.pane_id})
        look = await tmux.look(status)
        assert (look.dead, look.exit_status, look.exit_signal, look.text.strip()) == (True, 3, "", "bye")
        look = await tmux.look(killed)
        assert (look.dead, look.exit_status, look.exit_signal) == (True, None, "9")


async def test_sixty_deaths_at_once_are_all_told_once_with_their_status(place: Place) -> None:
    """Debian's tmux loses some of their signals (utempter)."""
    async with place.open() as (tmux, seen):
        refs = []

        async def one(number: int) -> None:
            refs.append(await spawn(tmux, "sh", "-c", "read x; exit 7", name=f"a-{number}"))

        async with anyio.create_task_group() as group:
            for number in range(60):
                group.start_soon(one, number)
        async with anyio.create_task_group() as group:
            for ref in refs:
                group.start_soon(tmux.keys, ref, "Enter")
        await seen.until(lambda: len(seen.of(PaneDied)) == 60)
        assert sorted(event.pane_id for event in seen.of(PaneDied)) == sorted(ref.pane_id for ref in refs)
        assert {(await tmux.look(ref)).exit_status for ref in refs} == {7}


async def test_kill_ends_the_whole_family(place: Place) -> None:
    script = 'trap "" HUP TERM; sleep 1000 & setsid sleep 1000 & echo $! > pids; echo $$ >> pids; touch up; wait'
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "bash", "-c", script, cwd=str(place.directory))
        await exists(place.directory / "up")
        processes = [start_of(int(pid)) for pid in (place.directory / "pids").read_text().split()]
        assert all(is_alive(process) for process in processes)
        await tmux.kill(ref, 0.2)
        assert not any(is_alive(process) for process in processes)
        assert await tmux.sessions() == []
        with pytest.raises(PaneDead):
            await tmux.look(ref)
        await tmux.kill(ref, 0.2)
        assert tmux.server
        assert seen.of(SessionsChanged)


async def test_kill_also_ends_a_pane_whose_session_a_person_ended(place: Place) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "sleep", "1000")
        place.tmux("kill-session", "-t", ref.session_id)
        process = start_of(ref.pid)
        await tmux.kill(ref, 1.0)
        assert not is_alive(process)
        assert ref.pane_id not in place.tmux("list-panes", "-a", "-F", "#{pane_id}").stdout


async def test_panes_outlive_us_and_are_found_again(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await bash(tmux, seen, place.directory)
        server = tmux.server
    async with place.open() as (tmux, seen):
        assert tmux.server == server
        assert [pane.ref for pane in await tmux.panes()] == [ref]
        await tmux.type_text(ref, "echo $((40 + 2))")
        await tmux.keys(ref, "Enter")
        await screen(tmux, seen, ref, lambda look: "\n42" in look.text)
        await tmux.stop_server()
    assert place.processes() == []


async def test_a_server_of_somebody_else_is_left_alone(place: Place) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "sleep", "1000")
    with pytest.raises(Conflict, match="belongs to test-instance"):
        async with place.open(instance="another"):
            pass
    assert is_alive(start_of(ref.pid))


async def test_a_person_sees_the_agent_and_does_not_resize_it(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sleep", "1000")
        assert tmux.attach_argv(ref) == ["tmux", "-S", place.socket, "attach-session", "-t", ref.session_id]
        place.tmux("rename-session", "-t", ref.session_id, "renamed")
        await seen.until(lambda: Renamed(ref.session_id, "renamed", ref.server) in seen.events)
        shown = place.tmux("show-options", "-w", "-v", "-t", ref.window_id, "window-size").stdout
        assert shown == "manual\n"


async def test_the_configuration_is_private_and_ours(place: Place) -> None:
    async with place.open(history_limit=123) as (tmux, _):
        assert Path(place.conf).stat().st_mode & 0o777 == 0o600
        options = place.tmux("show-options", "-g").stdout + place.tmux("show-options", "-wg").stdout
        options += place.tmux("show-options", "-s").stdout
        for option in ["history-limit 123", "status off", "remain-on-exit on", "set-titles off", "allow-rename off"]:
            assert option in options.splitlines()
        assert tmux.version


async def test_a_failing_listener_breaks_nothing(place: Place) -> None:
    def fail(_event: object) -> None:
        raise RuntimeError("no")

    async with place.open() as (tmux, seen):
        tmux._on_event = fail
        ref = await spawn(tmux, "cat")
        for word in ("one", "two", "three"):  # the echo of each comes back as an event
            await tmux.type_text(ref, word)
            await screen(tmux, seen, ref, lambda look, word=word: word in look.text)


@pytest.mark.parametrize(
    "change",
    [
        ["split-window", "-d", "-t", "outside:", "sleep 1000"],
        ["new-window", "-d", "-t", "outside:", "sleep 1000"],
        ["kill-window", "-t", "outside:1"],
        ["kill-pane", "-t", "outside:1.1"],
    ],
    ids=lambda words: words[0],
)
async def test_a_change_of_windows_or_panes_from_outside_is_told(place: Place, change: list[str]) -> None:
    """Also in a session that we did not make, and of a split, for which tmux has no notification."""
    async with place.open() as (_, seen):
        assert place.tmux("new-session", "-d", "-s", "outside", "sleep 1000").returncode == 0
        assert place.tmux("new-window", "-d", "-t", "outside:1", "sleep 1000").returncode == 0
        assert place.tmux("split-window", "-d", "-t", "outside:1", "sleep 1000").returncode == 0
        await seen.quiet()
        seen.events.clear()
        assert place.tmux(*change).returncode == 0
        await seen.until(lambda: seen.of(WindowsChanged))
