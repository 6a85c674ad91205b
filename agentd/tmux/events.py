"""What a tmux server tells us unasked; `server` is its identity, for ids are unique only within one."""

from __future__ import annotations

from dataclasses import dataclass

from agentd.tmux.notation import decode_output


@dataclass(frozen=True, slots=True)
class Output:
    """A pane's program printed something; empty when some of it was skipped because it came too fast."""

    pane_id: str
    escaped: bytes  # as tmux sends it
    server: str

    @property
    def data(self) -> bytes:
        """Return the bytes that were printed; decoded only now, because most listeners do not look."""
        return decode_output(self.escaped)


@dataclass(frozen=True, slots=True)
class PaneDied:
    """A pane's program ended; told once."""

    pane_id: str
    server: str


@dataclass(frozen=True, slots=True)
class Activity:
    """A pane printed within the last second and no Output told of it, or it ended; comes once a second."""

    pane_id: str
    dead: bool
    server: str


@dataclass(frozen=True, slots=True)
class SessionsChanged:
    """A session came or went."""

    server: str


@dataclass(frozen=True, slots=True)
class WindowsChanged:
    """A window came or went."""

    server: str


@dataclass(frozen=True, slots=True)
class LayoutChanged:
    """A window's panes came, went or changed their size, or a program ended; which, is not said."""

    server: str


@dataclass(frozen=True, slots=True)
class Renamed:
    """A session has a new name."""

    session_id: str
    name: str
    server: str


@dataclass(frozen=True, slots=True)
class Lost:
    """We cannot hear the server; events may be missed until Restored. May be told again while that lasts."""

    server: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A connection is back and we hear everything; whoever keeps a picture of the panes looks again."""

    server: str


@dataclass(frozen=True, slots=True)
class ServerGone:
    """The server ended, and all panes with it."""

    server: str


TmuxEvent = (
    Output
    | PaneDied
    | Activity
    | SessionsChanged
    | WindowsChanged
    | LayoutChanged
    | Renamed
    | Lost
    | Restored
    | ServerGone
)
