"""A line to the terminals of people who are attached, as a notification that their terminal shows: OSC 9."""

from __future__ import annotations

import os
from collections.abc import Sequence


def notify(ttys: Sequence[str], line: str) -> str:
    """Write a line of text to each terminal, behind the back of the program in it; return what was wrong.

    One that takes nothing at the moment is passed over: it must not be waited for.
    """
    if not ttys:
        return "nobody is attached, so there is no terminal to tell"
    failures = [why for tty in ttys if (why := _tell(tty, f"\x1b]9;{line}\x07".encode()))]
    return "; ".join(failures)


def _tell(tty: str, data: bytes) -> str:
    try:
        descriptor = os.open(tty, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if os.isatty(descriptor):
                os.write(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        return f"{tty}: {error.strerror}"
    return ""
