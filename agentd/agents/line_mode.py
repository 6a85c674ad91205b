"""Whether an agent's terminal is in line mode, as the kernel says: there a long or a broken line cannot be typed."""

from __future__ import annotations

import os
import termios

import msgspec

from agentd.agents.profile import Profile
from agentd.agents.shimmed import program_behind

MAX_LINE_BYTES = 3000  # the kernel keeps 4,095 bytes of a line, drops the rest, and echoes it all


def in_line_mode(pid: int) -> bool:
    """Tell whether the program's terminal gives it whole lines; False where nothing tells (no /proc)."""
    stdin = f"/proc/{program_behind(pid)}/fd/0"
    try:
        if not os.readlink(stdin).startswith("/dev/pts/"):  # noqa: PTH115  a pipe or a device must not be opened
            return False
        descriptor = os.open(stdin, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # it ended, or there is no /proc
        return False
    try:
        return bool(termios.tcgetattr(descriptor)[3] & termios.ICANON)
    except termios.error:
        return False
    finally:
        os.close(descriptor)


def for_lines(profile: Profile) -> Profile:
    """Return the profile with what may be typed into a terminal in line mode: one short line at a time."""
    size = min(profile.input.max_inline_bytes, MAX_LINE_BYTES)
    narrowed = msgspec.structs.replace(profile.input, multiline=False, max_inline_bytes=size)
    return msgspec.structs.replace(profile, input=narrowed)
