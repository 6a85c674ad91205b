"""What a program says of itself within its output: status records (OSC 7501), and notices (bell, OSC 9, OSC 777).

ESC ] 7501 ; state=STATE [:kind=KIND] [:msg=BASE64] [:KEY=VALUE ...] ST        ST: ESC \\ or BEL
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, NamedTuple

from agentd.agents.profile import Means
from agentd.agents.reports import Report
from agentd.agents.text import sanitise

SOURCE: Final = "osc 7501"
MAX_BYTES: Final = 8192  # of one record; a longer one is none
MAX_CHARS: Final = 500  # of a text that is shown

_MARK = b"\\033]7501"  # as tmux writes it
_MARK_BYTES: Final = len(_MARK)
_STARTS = re.compile(rb"\\033(?:\](?:7(?:5(?:01?)?)?)?)?\Z")  # the beginning of a mark, cut off
_COMMAND = re.compile(rb"\x1b\]([^\x07\x1b]*)(?:\x07|\x1b\\)|\x07")
_UNFINISHED = re.compile(rb"\x1b(?:\][^\x07\x1b]*\x1b?)?\Z")

_STATES: Final[dict[str, Means]] = {
    "idle": "ready",
    "working": "working",
    "done": "done",
    "error": "error",
    "clear": "ended",
}
_KINDS: Final[dict[str, Means]] = {"permission": "permission", "question": "question", "auth": "login"}


class Notice(NamedTuple):
    """What a program wants a person to notice."""

    kind: str  # bell, osc 9, osc 777
    text: str


class ProgramStatus:
    """Finds records in output that comes in pieces; keeps no more than the beginning of one."""

    def __init__(self, *, notices: bool) -> None:
        self._notices = notices
        self._held = b""

    def wants(self, escaped: bytes) -> bool:
        """Tell whether output, as tmux sends it, has to be fed; cheap, for this is asked of all output there is."""
        return (
            bool(self._held)
            or self._notices
            or _MARK in escaped
            or _STARTS.search(escaped, len(escaped) - 9) is not None
        )

    def feed(self, data: bytes) -> list[Report | Notice]:
        """Take in the next piece of output; return what became whole with it, in order."""
        data = self._held + data
        found = [self._read(match) for match in _COMMAND.finditer(data)]
        rest = _UNFINISHED.search(data)
        self._held = _cut(rest[0]) if rest else b""
        return [each for each in found if each is not None]

    def _read(self, match: re.Match[bytes]) -> Report | Notice | None:
        if match[1] is None:
            return Notice("bell", "") if self._notices else None
        number, _, text = match[1].partition(b";")
        if len(text) > MAX_BYTES:
            return None
        if number == b"7501":
            return report_of(text.decode("utf-8", "replace"))
        return _notice(number, text.decode("utf-8", "replace")) if self._notices else None


def _cut(held: bytes) -> bytes:
    """Return the beginning of a command, no longer than is enough to tell that it is too long."""
    room = MAX_BYTES + 16
    return held if len(held) <= room else held[:room] + (b"\x1b" if held.endswith(b"\x1b") else b"")


def report_of(record: str) -> Report | None:
    """Return what a record says, or None for one that says nothing of a state; texts are sanitised and cut."""
    fields = dict(_pair(field) for field in record.split(":"))
    state = fields.get("state", "")
    means = _KINDS.get(fields.get("kind", ""), "question") if state == "blocked" else _STATES.get(state)
    if means is None or (means == "ended" and "id" in fields):  # one of several sessions within the program
        return None
    return Report(means, SOURCE, message=_text(fields.get("msg", "")) or _text(fields.get("title", "")))


def _pair(field: str) -> tuple[str, str]:
    key, _, value = field.partition("=")
    return key, value


def _text(coded: str) -> str:
    try:
        data = base64.b64decode(coded.encode("ascii") + b"=" * (-len(coded) % 4), validate=True)
    except (binascii.Error, ValueError):
        return ""
    return line_of(data.decode("utf-8", "replace"))


def line_of(text: str) -> str:
    """Return a program's text as one line that can be shown."""
    line = " ".join(sanitise(text).split())
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"


def _notice(number: bytes, text: str) -> Notice | None:
    if number == b"9" and not re.match(r"\d+(;|$)", text):  # 9;4;... tells progress
        return Notice("osc 9", line_of(text))
    if number == b"777" and text.startswith("notify;"):
        return Notice("osc 777", line_of(text.removeprefix("notify;").replace(";", ": ", 1)))
    return None
