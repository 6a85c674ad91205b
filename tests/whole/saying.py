"""A program that asks whether its terminal knows status records, and then says what it does; it always looks idle.

`python saying.py`; each line it is given may hold: work SECONDS, ask, fail, ring, die.
"""

from __future__ import annotations

import base64
import os
import signal
import sys
import time
import tty


def put(text: str) -> None:
    os.write(1, text.encode())


def say(state: str, message: str = "") -> None:
    told = f":msg={base64.b64encode(message.encode()).decode()}" if message else ""
    put(f"\x1b]7501;state={state}{told}\x1b\\")


def key() -> str:
    return os.read(0, 1).decode(errors="replace")


def understood() -> bool:
    """Ask, and ask the terminal for something that it surely answers."""
    put("\x1b]7501;?\x1b\\\x1b[c")
    got = ""
    while not got.endswith("c"):
        got += key()
    return "7501;?" in got


def act(line: str) -> None:
    words = line.split()
    if "work" in words:
        say("working")
        time.sleep(float(words[words.index("work") + 1]))
    if "ask" in words:
        say("blocked:kind=permission", "Bash: rm -rf \x1b[2J/")
        while key() != "y":
            pass
        say("working")
    if "ring" in words:
        put("\x1b]9;look \x1b\\\x1b]9;here \x9b31m\x07")
    if "die" in words:
        os.kill(os.getpid(), signal.SIGKILL)
    say("error", "overloaded") if "fail" in words else say("done")


def main() -> None:
    tty.setraw(0)
    put("understood\r\n" if understood() else "alone\r\n")
    put("say> ")
    say("idle")
    line = ""
    while True:
        char = key()
        if not char:
            return
        if char != "\r":
            line += char
            put(char)
            continue
        put(f"\r\x1b[Kgot {line}\r\nsay> ")
        act(line)
        line = ""


if __name__ == "__main__":
    sys.exit(main())
