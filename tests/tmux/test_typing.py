"""What is typed into a pane stays text. Each attack is shown to work where nothing guards against it."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import anyio
import pytest
from servers import WAIT_S, Place, Seen, bash, became, exists, rss_bytes, screen, spawn

from agentd.errors import AgentdError, Busy, InvalidValue, OverLimit
from agentd.records import PaneRef
from agentd.tmux.input import MAX_PASTE_BYTES
from agentd.tmux.notation import quote
from agentd.tmux.processes import start_of
from agentd.tmux.tmux import PaneDead, PaneDied, Tmux

pytestmark = pytest.mark.anyio

BREAKOUT = "x\x1b[201~\rtouch S\r"
REASSEMBLED = "x\x1b[20\x1b[201~1~\rtouch S\r"
KEYS = [f"x{key}touch S\r" for key in "\x03\x04\x1a\x1c\x15\x17\x16\x12\x0f\x13\x11"]


def replaced(text: str) -> str:
    """Do what the caller's sanitiser does: one sign for one byte, nothing deleted."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text)


async def unguarded_paste(tmux: Tmux, directory: Path, ref: PaneRef, text: str) -> None:
    """Paste as a careless program would: the bytes as they are, nothing asked first."""
    path = directory / "unguarded"
    path.write_bytes(text.encode())
    connection = tmux._calls.channel()
    await connection.run("load-buffer", "-b", "unguarded", str(path), timeout_s=5)
    await connection.run("paste-buffer", "-p", "-r", "-d", "-b", "unguarded", "-t", ref.pane_id, timeout_s=5)


async def ran_all_before(tmux: Tmux, seen: Seen, ref: PaneRef) -> None:
    """Wait until the shell has run everything typed so far: it takes its input in order."""
    token = secrets.token_hex(4)
    prompts = (await tmux.look(ref)).text.count("READY>")
    with anyio.fail_after(WAIT_S):  # what is typed before the new prompt may be thrown away with the old line
        while (await tmux.look(ref)).text.count("READY>") <= prompts:
            await tmux.keys(ref, "C-c")  # again: one that meets a shell busy drawing is lost
            with anyio.move_on_after(1.0):
                await screen(tmux, seen, ref, lambda look: look.text.count("READY>") > prompts)
    await tmux.type_text(ref, f"echo e''nd-{token}")
    await tmux.keys(ref, "Enter")
    await screen(tmux, seen, ref, lambda look: f"\nend-{token}" in look.text)


@pytest.mark.parametrize("attack", [BREAKOUT, REASSEMBLED], ids=["T01", "T02"])
async def test_t01_t02_a_paste_cannot_break_out_of_its_bracket(place: Place, attack: str) -> None:
    sentinel = place.directory / "S"
    async with place.open() as (tmux, seen):
        ref = await bash(tmux, seen, place.directory)
        with pytest.raises(InvalidValue):
            await tmux.paste(ref, attack)
        await tmux.paste(ref, replaced(attack))
        await screen(tmux, seen, ref, lambda look: "touch S" in look.text)
        await ran_all_before(tmux, seen, ref)
        assert not sentinel.exists()

        await unguarded_paste(tmux, place.directory, ref, BREAKOUT)
        await exists(sentinel)


async def test_t03_line_discipline_bytes_never_get_into_a_paste(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await bash(tmux, seen, place.directory)
        await tmux.type_text(ref, "sleep 1000")
        await tmux.keys(ref, "Enter")
        await screen(tmux, seen, ref, lambda look: look.command == "sleep")
        for attack in KEYS:
            with pytest.raises(InvalidValue):
                await tmux.paste(ref, attack)
            await tmux.paste(ref, replaced(attack)[:-1])
        assert (await tmux.look(ref)).command == "sleep"
        await ran_all_before(tmux, seen, ref)
        assert not (place.directory / "S").exists()

        await tmux.type_text(ref, "sleep 1000")
        await tmux.keys(ref, "Enter")
        await screen(tmux, seen, ref, lambda look: look.command == "sleep")
        await unguarded_paste(tmux, place.directory, ref, "\x03touch S\n")
        await exists(place.directory / "S")


async def test_t04_a_pane_without_bracketed_paste_gets_one_line(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", cwd=str(place.directory), PS1="READY> ")
        await screen(tmux, seen, ref, lambda look: "READY>" in look.text)
        with pytest.raises(InvalidValue):
            await tmux.paste(ref, "a\ntouch S\n", bracketed=False)
        with pytest.raises(InvalidValue):
            await tmux.type_text(ref, "a\ntouch S\n")
        await tmux.paste(ref, "touch T", bracketed=False)
        await tmux.keys(ref, "Enter")
        await exists(place.directory / "T")
        assert not (place.directory / "S").exists()

        await unguarded_paste(tmux, place.directory, ref, "a\ntouch S\n")
        await exists(place.directory / "S")


async def test_t05_text_for_an_agent_never_reaches_the_program_after_it(place: Place) -> None:
    """Its program is the pane's root, so a stranger in the pane has another pid."""
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat", cwd=str(place.directory))
        shell = ["bash", "--norc", "--noprofile"]
        place.tmux(
            "respawn-pane",
            "-k",
            "-e",
            "PS1=READY> ",
            "-e",
            f"HOME={place.directory}",
            "-c",
            str(place.directory),
            "-t",
            ref.pane_id,
            *shell,
        )
        with pytest.raises(PaneDead):
            await tmux.paste(ref, "touch S\n")
        with pytest.raises(PaneDead):
            await tmux.type_text(ref, "touch S")
        with pytest.raises(PaneDead):
            await tmux.keys(ref, "Enter")
        with pytest.raises(PaneDead):
            await tmux.look(ref)
        (stranger,) = [pane.ref for pane in await tmux.panes()]
        await screen(tmux, seen, stranger, lambda look: "READY>" in look.text)
        await ran_all_before(tmux, seen, stranger)
        assert not (place.directory / "S").exists()

        await tmux.type_text(stranger, "touch S")
        await tmux.keys(stranger, "Enter")
        await exists(place.directory / "S")


async def test_t06_f14_a_hundred_pastes_into_dying_panes_leave_the_server_alive(place: Place) -> None:
    """On 3.3a one unguarded paste-buffer into a dead pane ends the server; the guard is in the same server step."""
    async with place.open() as (tmux, seen):
        server = tmux.server
        outcomes = set()

        async def one(number: int) -> None:
            ref = await spawn(tmux, "sh", "-c", "read x", name=f"a-{number}")
            if number % 2:
                await tmux.keys(ref, "Enter")  # it is ending now
            else:
                await tmux.keys(ref, "Enter")
                await seen.until(lambda: PaneDied(ref.pane_id, ref.server) in seen.events)
            try:
                await tmux.paste(ref, "x" * (10 if number % 3 else 9000))
                outcomes.add("typed")
            except PaneDead:
                outcomes.add("dead")

        async with anyio.create_task_group() as group:
            for number in range(100):
                group.start_soon(one, number)
        assert "dead" in outcomes
        assert tmux.server == server
        assert len(await tmux.panes()) == 100
        assert place.tmux("list-buffers").stdout == ""


async def test_t06_positive_control_an_unguarded_paste_into_a_dead_pane(place: Place) -> None:
    async with place.open() as (tmux, seen):
        if tuple(int(part) for part in re.findall(r"\d+", tmux.version)[:2]) >= (3, 4):
            pytest.skip("tmux 3.4 and later refuse it by themselves")
        ref = await spawn(tmux, "true")
        await seen.until(lambda: seen.of(PaneDied))
        server = start_of(int(tmux.server.partition(":")[0]))
        with pytest.raises(AgentdError):
            await unguarded_paste(tmux, place.directory, ref, "x")
        await became(lambda: start_of(server.pid).started != server.started)


@pytest.mark.parametrize("text", ["Enter", "C-c", "-R", "-X cancel", "x;", "-", "--", "\\;", "a ; kill-server"])
async def test_t14_t10_key_names_and_dashes_are_typed_as_text(place: Place, text: str) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        await tmux.type_text(ref, text)
        await screen(tmux, seen, ref, lambda look: look.text.strip() == text)
        await tmux.paste(ref, text)
        await screen(tmux, seen, ref, lambda look: look.text.strip() == text * 2)


@pytest.mark.parametrize("name", ["Entr", "", "-R", "ab", "C-", "M-Ente", "Enter\n", "é", " ", "0x1b"])
async def test_t14_only_names_of_keys_are_pressed(place: Place, name: str) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "cat")
        with pytest.raises(InvalidValue):
            await tmux.keys(ref, "a", name)
        assert (await tmux.look(ref)).text.strip() == ""


async def test_keys_reach_the_program(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat", "-v")
        await tmux.keys(ref, "a", ";", "C-x", "Escape", "Up", "F1", "S-Left", "Enter")
        await screen(tmux, seen, ref, lambda look: "\na;^X^[^[[A" in look.text)


async def test_leaving_the_copy_mode_of_a_person(place: Place) -> None:
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "cat")
        place.tmux("copy-mode", "-t", ref.pane_id)
        assert (await tmux.look(ref)).in_mode
        await tmux.leave_mode(ref)
        assert not (await tmux.look(ref)).in_mode


@pytest.mark.parametrize("size", [1, 4096, 4097, MAX_PASTE_BYTES])
async def test_a_paste_arrives_whole_and_leaves_nothing(place: Place, size: int) -> None:
    text = ("é'\"\\ $HOME #{pid} #(x) ;\n\t~{}%" * size).encode()[:size].decode(errors="ignore").ljust(size, "x")[:size]
    got = place.directory / "got"
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "sh", "-c", f"stty raw -echo; touch up; exec cat > {got}", cwd=str(place.directory))
        await exists(place.directory / "up")
        data = text.encode()[:MAX_PASTE_BYTES].decode(errors="ignore")
        await tmux.paste(ref, data)
        await became(lambda: got.exists() and len(got.read_bytes()) >= len(data.encode()))
        assert got.read_bytes() == data.encode()
        assert not list(place.directory.glob("paste-*"))
        assert place.tmux("list-buffers").stdout == ""


async def test_bracketed_paste_wraps_the_text_once(place: Place) -> None:
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "sh", "-c", "stty -echo; printf '\\033[?2004hREADY\n'; exec cat -v")
        await screen(tmux, seen, ref, lambda look: "READY" in look.text)
        await tmux.paste(ref, "one\ntwo")
        await tmux.keys(ref, "Enter")
        await screen(tmux, seen, ref, lambda look: look.text.strip() == "READY\n^[[200~one\ntwo^[[201~")


async def test_t16_what_does_not_read_gets_no_more_than_one_paste(place: Place) -> None:
    script = "stty raw -echo; touch up; exec sleep 1000"
    async with place.open() as (tmux, _):
        ref = await spawn(tmux, "sh", "-c", script, cwd=str(place.directory))
        await exists(place.directory / "up")
        before = rss_bytes(int(tmux.server.partition(":")[0]))
        with pytest.raises(OverLimit):
            await tmux.paste(ref, "x" * (MAX_PASTE_BYTES + 1))
        await tmux.paste(ref, "x" * MAX_PASTE_BYTES)
        for _ in range(99):
            with pytest.raises(Busy):
                await tmux.paste(ref, "x" * MAX_PASTE_BYTES)
        grown = rss_bytes(int(tmux.server.partition(":")[0])) - before
        assert grown <= 8 * 1024 * 1024
        assert not list(place.directory.glob("paste-*"))
        await tmux.kill(ref, 0.0)


async def test_t20_text_is_never_in_a_command_line(place: Place) -> None:
    canary = "canary-" + secrets.token_hex(8)
    found, done = [], anyio.Event()

    def scan() -> None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if canary.encode() in path.read_bytes():
                    found.append(path)
            except OSError:  # it ended
                continue

    async def watch() -> None:
        while not done.is_set():
            await anyio.to_thread.run_sync(scan)

    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        async with anyio.create_task_group() as group:
            group.start_soon(watch)
            for number in range(100):
                await tmux.paste(ref, canary if number % 2 else canary * 300)
                await tmux.keys(ref, "Enter")
                await screen(tmux, seen, ref, lambda look: True)
            done.set()
        assert not found
        control = await spawn(tmux, "sleep", "1000", name="control", CANARY=canary)
        place_argv = await spawn(tmux, "sh", "-c", "sleep 1000; :", canary, name="argv")
        with anyio.fail_after(10):  # the scan must see a canary that is in a command line; it is there after an exec
            while not found:
                await anyio.to_thread.run_sync(scan)
        await tmux.kill(control, 0.0)
        await tmux.kill(place_argv, 0.0)


async def test_t09_t10_unguarded_lines_do_run_commands(place: Place) -> None:
    """The positive control of the quoting: the same bytes without quote()."""
    sentinel = place.directory / "S"
    attack = f"x ; run-shell 'touch {sentinel}'"
    async with place.open() as (tmux, seen):
        ref = await spawn(tmux, "cat")
        await tmux.type_text(ref, attack)
        await screen(tmux, seen, ref, lambda look: attack.rsplit(maxsplit=1)[-1] in look.text.replace("\n", ""))
        assert not sentinel.exists()

        connection = tmux._calls.channel()
        await connection.frame([f"display-message -p -- {quote('one')} ; run-shell 'touch {sentinel}'"], timeout_s=5)
        await exists(sentinel)
