"""A program that behaves as badly as real ones do: python trap.py MODE LOG; what it understood is in the log."""

from __future__ import annotations

import json
import os
import select
import sys
import termios
import time
import tty
from collections.abc import Sequence

from agentd.testing.composer import Composer
from agentd.testing.keys import Key, KeyReader, Paste
from agentd.testing.tui import Tui

MODES = {
    "plain": "answers each prompt",
    "asks-on-paste": "a question comes up at a paste, swallows it, and takes Enter for yes",
    "asks-late": "its composer stands there for a moment before a question whose Enter ends it",
    "acts": "runs `!`, obeys `/` and attaches files named behind an @",
    "slow": "works until it is interrupted or one second is over; Enter steers it; C-c ends it while it is idle",
    "puts-back": "the same, and an interrupted prompt stands in the composer again",
    "early-enter": "takes an Enter within a tenth of a second after a paste for a newline",
    "completes": "takes the first Enter for a choice in a menu, which puts a name behind the text",
    "eats-enter": "takes the first Enter after a paste for nothing",
}
ESCAPE, ENTER, CTRL_C, CTRL_U = "\x1b", "\r", "\x03", "\x15"
WORK_S = 1.0
EARLY_S = 0.1
BEFORE_QUESTION_S = 0.2


class Trap:
    """One screen of one block, and no threads: time is looked at between keys."""

    def __init__(self, mode: str, log: str) -> None:
        self.mode = mode
        self.log = log
        self.composer = Composer()
        self.asks = False
        self.eaten = False
        self.busy_until_s = 0.0
        self.last = self.composer
        self.pasted_s = 0.0
        self.born_s = time.monotonic()

    def note(self, **values: str) -> None:
        with open(self.log, "a") as file:
            file.write(json.dumps(values) + "\n")

    def block(self) -> Sequence[str]:
        if self.mode == "asks-late" and time.monotonic() > self.born_s + BEFORE_QUESTION_S:
            self.asks = True
        if self.asks:
            return ("Run it?", "1. Yes, on Enter")
        busy = ("busy",) if time.monotonic() < self.busy_until_s else ()
        return (*busy, f"> {self.composer.shown}")

    def take(self, item: Key | Paste) -> int | None:
        """Act on one key or paste; returns an exit status to end with."""
        if self.asks:
            return self.answer(item)
        if isinstance(item, Paste):
            self.pasted_s = time.monotonic()
            self.eaten = False
            if self.mode == "asks-on-paste":
                self.asks = True
            else:
                self.composer.paste(item.text)
            return None
        return self.press(item.char)

    def answer(self, item: Key | Paste) -> int | None:
        if isinstance(item, Key) and item.char == ENTER:
            self.note(approved="yes")
            if self.mode == "asks-late":
                return 1
            self.asks = False
        return None

    def press(self, char: str) -> int | None:
        busy = time.monotonic() < self.busy_until_s
        if char == CTRL_C and not busy:
            self.note(ended="by C-c")
            return 0
        if char in (CTRL_C, "x") and busy:
            self.busy_until_s = 0.0
            if self.mode == "puts-back":
                self.composer = self.last
        elif char == CTRL_U:
            self.composer.clear()
        elif char == ENTER:
            self.enter(busy=busy)
        else:
            self.composer.type(char)
        return None

    def enter(self, *, busy: bool) -> None:
        if self.mode == "early-enter" and time.monotonic() < self.pasted_s + EARLY_S:
            self.composer.type(" ")
            return
        if self.mode == "eats-enter" and not self.eaten:
            self.eaten = True
            return
        if self.mode == "completes" and not self.eaten:
            self.eaten = True
            self.composer.type("notes.txt")
            return
        entered, self.composer = self.composer, Composer()
        text = entered.text
        if busy:
            self.note(steered=text)
        elif self.mode == "acts" and text.startswith(("!", "/")):
            self.note(obeyed=text)
        elif text.strip():
            attached = [word[1:] for word in text.split() if word.startswith("@")]
            self.note(prompt=text, **({"attached": " ".join(attached)} if self.mode == "acts" and attached else {}))
            self.last = entered
            if self.mode in ("slow", "puts-back"):
                self.busy_until_s = time.monotonic() + WORK_S


def run(trap: Trap) -> int:
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setraw(fd, termios.TCSANOW)
    tui, keys = Tui(sys.stdout.fileno()), KeyReader()
    tui.write("\x1b[?2004h")
    try:
        while True:
            tui.show(trap.block())
            if not select.select([fd], [], [], 0.02)[0]:
                continue
            data = os.read(fd, 65_536)
            if not data:
                return 0
            for item in keys.feed(data.decode(errors="replace")):
                if (status := trap.take(item)) is not None:
                    return status
    finally:
        termios.tcsetattr(fd, termios.TCSANOW, before)


if __name__ == "__main__":
    sys.exit(run(Trap(sys.argv[1], sys.argv[2])))
