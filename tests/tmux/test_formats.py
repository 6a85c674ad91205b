"""Names, directories, titles, screens and a user's own tmux.conf run nothing in our server."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import Place, exists, screen, spawn

from agentd.errors import InvalidValue
from agentd.tmux.notation import escape_format
from agentd.tmux.tmux import PaneDied

pytestmark = pytest.mark.anyio


async def test_t07_a_directory_really_named_like_a_command_runs_nothing(place: Place) -> None:
    sentinel = place.directory / "S"
    hostile = place.directory / f"#(touch ${{PWD}}S) #(touch {sentinel.name}) #{{E:pane_title}} #[fg=red]"
    hostile.mkdir()
    attack = f"#(touch {sentinel})"
    async with place.open() as (tmux, seen):
        with pytest.raises(InvalidValue):
            await spawn(tmux, "cat", name=attack)
        ref = await spawn(tmux, "sh", "-c", "pwd; exec cat", "sh", attack, cwd=str(hostile), WHO=attack)
        look = await screen(tmux, seen, ref, lambda look: "red]" in look.text)
        assert look.text.startswith(str(hostile))
        assert Path(f"/proc/{ref.pid}/cwd").readlink() == hostile
        await tmux.paste(ref, attack)
        await tmux.panes()
        await tmux.sessions()
        await _flush_jobs(place)
        assert not sentinel.exists()
        assert not list(hostile.iterdir())

        # positive control: the same text as a directory or a name, as a careless program would give it
        connection = tmux._calls.channel()
        await connection.ask(f"new-session -d -s careless -c '{attack}' cat", timeout_s=5)
        await exists(sentinel)
        another = place.directory / "S2"  # tmux remembers for a while what a command printed
        await connection.ask(f"new-session -d -s '#(touch {another})' cat", timeout_s=5)
        await exists(another)


async def test_t07_an_escaped_format_is_shown_as_it_is(place: Place) -> None:
    sentinel = place.directory / "S"
    text = f"#(touch {sentinel}) #{{pid}} ## ###{{pid}} #[fg=red] ##[fg=red] #"
    async with place.open() as (tmux, _):
        connection = tmux._calls.channel()
        shown = await connection.run("display-message", "-p", escape_format(text), timeout_s=5)
        assert shown == [text]
        await _flush_jobs(place)
        assert not sentinel.exists()
        await connection.run("display-message", "-p", text, timeout_s=5)
        await exists(sentinel)


async def test_t08_a_title_runs_nothing(place: Place) -> None:
    sentinel = place.directory / "S"
    title = f"#(touch {sentinel})"
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", f"printf '\\033]2;{title}\\007'; exec cat")
        await screen(tmux, seen, ref, lambda look: look.title == title)
        assert [pane.title for pane in await tmux.panes()] == [title]
        await tmux.sessions()
        await _flush_jobs(place)
        assert not sentinel.exists()

        connection = tmux._calls.channel()
        await connection.run("display-message", "-p", "-t", ref.pane_id, "#{E:pane_title}", timeout_s=5)
        await exists(sentinel)


async def test_t12_a_screen_full_of_forged_guards_is_only_a_screen(place: Place) -> None:
    forged = place.directory / "forged"
    lines = [f"%{word} {at} {number} 1" for at in (1, 2) for word in ("end", "error", "begin") for number in range(300)]
    lines += ["%exit", "%output %1 forged", "%sessions-changed", "%end", "last line"]
    forged.write_text("\n".join(lines))
    async with place.open(history_limit=5000) as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", f"cat {forged}; exec sleep 1000")
        await screen(tmux, seen, ref, lambda look: "last line" in look.text)
        look = await tmux.look(ref, lines=5000)
        assert look.text.strip("\n").split("\n") == lines
        events = len(seen.of(PaneDied))

        # Guards with the very numbers of the block: the pane learns the server's time and counts ahead of it.
        connection = tmux._calls.channel()
        loop = f'i=0; while [ $i -lt 9000 ]; do echo "%end $(date +%s) $i 1"; i=$((i+7)); done > {forged}.2'
        script = f"{loop}; cat {forged}.2; echo last line; exec sleep 1000"
        numbers = await spawn(tmux, "sh", "-c", script, name="numbers")
        await screen(tmux, seen, numbers, lambda look: "last line" in look.text)
        expected = [*Path(f"{forged}.2").read_text().splitlines(), "last line"]
        for _ in range(50):
            shown = (await tmux.look(numbers, lines=5000)).text.strip("\n").split("\n")
            assert shown == expected
        assert len(seen.of(PaneDied)) == events
        assert tmux._calls.channel() is connection


async def test_t18_a_users_tmux_conf_is_never_read(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    sentinel = place.directory / "S"
    home = place.directory / "home"
    home.mkdir()
    hook = f"set-hook -g session-created 'run-shell \"touch {sentinel}\"'\n"
    (home / ".tmux.conf").write_text(hook)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home))
    async with place.open() as (tmux, _):
        await spawn(tmux, "sleep", "1000")
        await _flush_jobs(place)
        assert not sentinel.exists()

        place.tmux("source-file", str(home / ".tmux.conf"))
        await spawn(tmux, "sleep", "1000", name="control")
        await exists(sentinel)


async def _flush_jobs(place: Place) -> None:
    """Wait until a job that was started after all others has run."""
    marker = place.directory / "flushed"
    marker.unlink(missing_ok=True)
    place.tmux("run-shell", "-b", f"touch {marker}")
    await exists(marker)
