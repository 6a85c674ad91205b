"""What tmux tells about panes and sessions, as records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agentd.records import PaneRef
from agentd.tmux.connection import HUB

# Numbers first, free text last, each free text but the last behind its length in bytes: nothing a program calls itself
# can shift a field. The command has no length: tmux reads /proc for it, and would a second time for that. Formats never
# use E: or T: here, which would run what a pane's title says.
FACTS_FORMAT = "|" + "|".join(
    (
        "#{pane_dead}",
        "#{pane_dead_status}",
        "#{pane_dead_signal}",
        "#{cursor_x}",
        "#{cursor_y}",
        "#{pane_in_mode}",
        "#{alternate_on}",
        "#{pane_width}",
        "#{pane_height}",
        "#{pane_pid}",
        "#{n:pane_title}",
        "#{pane_title}#{pane_current_command}",
    )
)
PANES_FORMAT = "|".join(
    (
        "#{session_id}",
        "#{window_id}",
        "#{pane_id}",
        "#{pane_pid}",
        "#{pane_dead}",
        "#{pane_dead_status}",
        "#{pane_dead_signal}",
        "#{pane_tty}",
        "#{window_activity}",
        "#{session_name}",  # of ours: it cannot hold a `|`; of others: at worst a wrong title
        "#{n:pane_title}",
        "#{pane_title}#{pane_current_command}",
    )
)
SESSIONS_FORMAT = "#{session_id}|#{session_windows}|#{W:#{P:x}}|#{session_activity}|#{session_name}"  # an x per pane
NOT_HUB = f"#{{!=:#{{session_name}},{HUB}}}"


@dataclass(frozen=True, slots=True)
class Look:
    """What a pane shows and how its program is."""

    text: str  # the screen's lines; wrapped ones joined, blanks at their ends cut
    cursor_x: int
    cursor_y: int
    dead: bool
    exit_status: int | None
    exit_signal: str  # a number; empty when no signal ended it
    in_mode: bool  # a person scrolls in it: keys go to tmux, not to the program
    command: str
    title: str
    alternate: bool
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Who looks at a pane, and the directory its program is in; empty when tmux cannot tell."""

    people: int
    cwd: str


@dataclass(frozen=True, slots=True)
class PaneInfo:
    """One pane of the list of all."""

    session_name: str
    ref: PaneRef
    dead: bool
    exit_status: int | None
    exit_signal: str
    command: str
    title: str
    tty: str
    printed_s: int  # when its program last printed, seconds since 1970


@dataclass(frozen=True, slots=True)
class Facts:
    """What FACTS_FORMAT says, beside the screen."""

    pid: int
    dead: bool
    exit_status: int | None
    exit_signal: str
    cursor: tuple[int, int]
    in_mode: bool
    alternate: bool
    size: tuple[int, int]
    command: str
    title: str

    @property
    def end_unknown(self) -> bool:
        """Tell whether the program ended and tmux has not learned how."""
        return self.dead and self.exit_status is None and not self.exit_signal

    def look(self, text: str) -> Look:
        """Return them together with the screen."""
        return Look(
            text,
            *self.cursor,
            self.dead,
            self.exit_status,
            self.exit_signal,
            self.in_mode,
            self.command,
            self.title,
            self.alternate,
            *self.size,
        )


def facts_of(frame: bytes) -> Facts | None:
    """Return the facts, or None when there is no such pane."""
    fields = frame.split(b"|", 12)[1:]
    if len(fields) < 12 or not fields[0]:
        return None
    title, command = _two_texts(fields[10], fields[11])
    number = [int(field or 0) for field in fields[3:10]]
    return Facts(
        pid=number[6],
        dead=fields[0] == b"1",
        exit_status=_status(fields[1].decode()),
        exit_signal=fields[2].decode(),
        cursor=(number[0], number[1]),
        in_mode=number[2] > 0,
        alternate=number[3] > 0,
        size=(number[4], number[5]),
        command=command,
        title=title,
    )


def pane_of(row: str, server: str) -> PaneInfo:
    """Return the pane of one row in PANES_FORMAT."""
    session_id, window_id, pane_id, pid, dead, status, sign, tty, printed, name, size, texts = row.split("|", 11)
    title, command = _two_texts(size.encode(), texts.encode("utf-8", "surrogateescape"))
    ref = PaneRef(session_id, window_id, pane_id, int(pid), server)
    return PaneInfo(name, ref, dead == "1", _status(status), sign, command, title, tty, int(printed))


def session_of(row: str) -> dict[str, Any]:
    """Return the session of one row in SESSIONS_FORMAT."""
    session_id, windows, panes, activity, name = row.split("|", 4)
    return {"id": session_id, "name": name, "windows": int(windows), "panes": len(panes), "activity": int(activity)}


def _two_texts(size: bytes, both: bytes) -> tuple[str, str]:
    cut = int(size)
    return both[:cut].decode("utf-8", "replace"), both[cut:].decode("utf-8", "replace")


def _status(field: str) -> int | None:
    return int(field) if field else None
