"""What is sent to a shell is one command line, exactly; nothing in it acts on the terminal it is typed into."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile import BREAKOUTS, ODD_TEXTS, carelessly, send, settled
from instance import Instance, alive, instance, wait_until

from agentd.agents.text import sanitise

CONTROLS = {
    f"C-{chr(code + 64)}" if code < 0x20 else "DEL": chr(code) for code in [*range(1, 9), *range(0x0B, 0x20), 0x7F]
}
# Bodies that do nothing as text: comments. Typed as keys, each runs `{act}` in these shells; C-c also throws away
# what was typed after it, so whether the rest runs is a matter of moments and it has no control here.
KEYS_THAT_ACT = {
    "C-c ends the line": ("# x\x03{act}\r", []),
    "C-u empties the line": ("# x\x15{act}\r", ["shell", "sh"]),
    "C-w takes a word": ("#\x17{act}\r", ["shell", "sh"]),
    "C-h takes a sign": ("#\x08{act}\r", ["shell"]),
    "DEL takes a sign": ("#\x7f{act}\r", ["shell", "sh"]),
    "CR ends the line": ("# x\r{act}\r", ["shell", "sh"]),
    "C-o runs the line": ("# x\x0f{act}\r", ["shell"]),
    "C-a and C-k empty the line": ("# x\x01\x0b{act}\r", ["shell"]),
}
SHELLS = ("shell", "sh")
numbers = itertools.count()


class Shell:
    """A shell agent and a way to ask what it got."""

    def __init__(self, whole: Instance, profile: str, name: str) -> None:
        self.whole = whole
        self.place = whole.directory
        self.agent: dict[str, Any] = whole.spawn(profile, name=name)
        self.pid = int(self.agent["pid"])

    def run(self, line: str) -> None:
        """Send a command line and wait until it was submitted."""
        settled(self.whole, send(self.whole, self.agent["id"], line))

    def has_run_all(self) -> None:
        """Wait until the shell has run everything it was given so far."""
        mark = self.place / f"mark-{self.agent['name']}"
        self.run(f"echo done > {mark}")
        wait_until(mark.exists, "the shell to come to the mark")
        mark.unlink()

    def sentinel(self, name: str) -> Path:
        return self.place / f"S-{self.agent['name']}-{name}"


@pytest.fixture(scope="module")
def whole() -> Iterator[Instance]:
    with instance() as one:
        one.up()
        yield one


@pytest.fixture(scope="module", params=SHELLS)
def shell(whole: Instance, request: pytest.FixtureRequest) -> Shell:
    return Shell(whole, request.param, f"{request.param}-main")


@pytest.fixture
def pair(shell: Shell) -> tuple[Shell, Shell]:
    """Give a shell that is sent to, and a new one of the kind to paste into carelessly.

    A careless paste can leave a part of itself on the line it broke out of; the next attack would be typed behind it.
    """
    profile = shell.agent["profile"]
    return shell, Shell(shell.whole, profile, f"{profile}-control-{next(numbers)}")


def test_odd_texts_in_quotes_reach_the_command_unchanged(shell: Shell):
    """A body is the command line itself; one of several lines is never typed where each would run (T04)."""
    wanted = {}
    lines = []
    for number, text in enumerate(ODD_TEXTS.values()):
        body = sanitise(text)
        got = shell.place / f"{shell.agent['name']}-{number}"
        lines.append(f"printf %s {shlex.quote(text)} > {got}")
        if "\n" not in body or shell.agent["profile"] == "shell":
            wanted[got] = body
    with shell.whole.client() as client:
        client.send_batch([{"to": shell.agent["id"], "body": line} for line in lines])
    shell.has_run_all()
    got = shell.place.glob(f"{shell.agent['name']}-*")
    assert {path: path.read_text(encoding="utf-8") for path in got} == wanted


WORDS = ["Enter", "C-c", "-R", "--", "-X cancel", "~", "%H", "# c", ";", "{", "echo x\\"]


@pytest.mark.parametrize("body", WORDS)
def test_a_word_that_tmux_knows_is_typed_as_a_word(shell: Shell, body: str):
    """The line shows on the screen as it is; whatever the shell makes of it, it is the same shell afterwards."""
    id_ = send(shell.whole, shell.agent["id"], body)
    settled(shell.whole, id_)
    wait_until(lambda: body in shell.whole.screen(shell.agent), "the line to show")
    if body in ("{", "echo x\\"):  # the shell asks for the rest of such a line: a draft, until somebody ends it
        shell.whole.cli("keys", shell.agent["id"], "C-c")
    shell.has_run_all()
    assert alive(shell.pid)


@pytest.mark.parametrize("attack", BREAKOUTS.values(), ids=BREAKOUTS)
def test_a_paste_cannot_be_left(pair: tuple[Shell, Shell], attack: str):
    """T01, T02: what follows an end of paste would be typed, and run."""
    sent, control = pair
    body = "# " + attack
    done = control.sentinel("breakout")
    careless = body.format(act=f"touch {done}")
    if "20\x1b" in attack:  # what a careless sanitiser makes of it: deleting joins the rest to an end of paste
        careless = careless.replace("\x1b[201~", "", 1)
    carelessly(control.whole, control.agent, careless)
    wait_until(done.exists, "the careless paste to do harm")
    done.unlink()
    sentinel = sent.sentinel("breakout")
    sent.run(body.format(act=f"touch {sentinel}"))
    sent.has_run_all()
    assert not sentinel.exists()


@pytest.mark.parametrize(("attack", "where"), KEYS_THAT_ACT.values(), ids=KEYS_THAT_ACT)
def test_a_control_character_is_no_key(pair: tuple[Shell, Shell], attack: str, where: list[str]):
    """T03: each runs a command when it comes as a key."""
    sent, control = pair
    done = control.sentinel("key")
    if control.agent["profile"] in where:
        carelessly(control.whole, control.agent, attack.format(act=f"touch {done}"), brackets=False)
        wait_until(done.exists, "the careless keys to do harm")
        done.unlink()
    sentinel = sent.sentinel("key")
    sent.run(attack.format(act=f"touch {sentinel}"))
    sent.has_run_all()
    assert not sentinel.exists()


def test_no_control_character_ends_stops_or_interrupts_the_shell(whole: Instance):
    """T03: ^D would end it, ^Z and ^S would stop it; as text they stand in the line."""
    for profile in SHELLS:
        control = Shell(whole, profile, f"{profile}-ends")
        carelessly(whole, control.agent, "\x04", brackets=False)
        wait_until(lambda control=control: not alive(control.pid), "the careless key to end the shell")
        shell = Shell(whole, profile, f"{profile}-stays")
        got = whole.directory / f"{profile}-keys"
        with whole.client() as client:
            bodies = [f"printf '%s\\n' 'a{char}z' >> {got}" for char in CONTROLS.values()]
            client.send_batch([{"to": shell.agent["id"], "body": body} for body in [*CONTROLS.values(), *bodies]])
        shell.has_run_all()
        assert got.read_text(encoding="utf-8") == "a\ufffdz\n" * len(CONTROLS)
        assert alive(shell.pid)


@pytest.mark.parametrize("body", [": a\n{act}\n", "\n{act}\n", ": a\r\n{act}\r\n: b"])
def test_several_lines_are_never_run_one_by_one(whole: Instance, body: str):
    """T04: `sh` takes no brackets, so each line of a paste would run; it gets a pointer to the message."""
    name = f"lines-{next(numbers)}"
    control = Shell(whole, "sh", f"{name}-control")
    done = control.sentinel("lines")
    carelessly(whole, control.agent, body.format(act=f"touch {done}"))
    wait_until(done.exists, "the careless paste to run a line")
    shell = Shell(whole, "sh", f"{name}-sent")
    sentinel = shell.sentinel("lines")
    text = body.format(act=f"touch {sentinel}")
    id_ = send(whole, shell.agent["id"], text)
    settled(whole, id_)
    shell.has_run_all()
    assert not sentinel.exists()
    assert f": agentd message {id_} waits, read it with agentd msg {id_}" in whole.screen(shell.agent)
    assert whole.json("msg", id_)["body"] == text


@pytest.mark.parametrize(("profile", "size"), [("sh", 10_000), ("shell", 10_000), ("shell", 65_536)])
def test_a_long_line_comes_whole_or_by_pointer(whole: Instance, profile: str, size: int):
    """T15: line mode keeps 4,095 bytes, so `sh` gets a pointer; bash edits its line itself. Nothing is cut."""
    shell = Shell(whole, profile, f"{profile}-long-{size}")
    got = whole.directory / f"long-{profile}-{size}"
    text = "0123456789" * (size // 10)
    id_ = send(whole, shell.agent["id"], f"printf %s {text} > {got}")
    settled(whole, id_)
    shell.has_run_all()
    if profile == "shell" and size < 32_000:
        assert got.read_text() == text
    else:
        assert not got.exists()
        fetched = whole.directory / f"{got.name}-fetched"
        shell.run(f"{sys.executable} -m agentd msg {id_} > {fetched}")
        wait_until(lambda: fetched.exists() and text in fetched.read_text(), "the agent to fetch its message")
    assert whole.json("msg", id_)["state"] != "acked"
