"""What a terminal sends, cut into keys and pastes. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass

PASTE_BEGIN = "\x1b[200~"
PASTE_END = "\x1b[201~"
# Possessive: a sequence cut by a read must not match by giving back what may still grow. A malformed one is dropped
# up to where it went wrong, and an Escape before Enter or before a sequence stands for itself.
_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*+[ -/]*+(?:[@-~]|(?=[^ -/@-~]))|O[ -~]|[^\[O\x1b\r]|(?=[\x1b\r]))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Key:
    """One character; a control key is its control character."""

    char: str


@dataclass(frozen=True, slots=True)
class Paste:
    """A text between paste brackets, its lines ended by newlines."""

    text: str


class KeyReader:
    """Turns what was read into keys and pastes; a sequence that is cut by a read waits for its rest."""

    def __init__(self) -> None:
        self._rest = ""
        self._pasting = False

    def feed(self, text: str) -> list[Key | Paste]:
        """Return what is complete."""
        self._rest += text
        found: list[Key | Paste] = []
        while (item := self._next()) is not None:
            found += item
        return found

    def _next(self) -> list[Key | Paste] | None:
        """Take one item off the rest; None when nothing whole is there, an empty list for keys that mean nothing."""
        if self._pasting:
            return self._paste()
        if not self._rest:
            return None
        if self._rest[0] != "\x1b":
            char, self._rest = self._rest[0], self._rest[1:]
            return [Key(char)]
        sequence = _SEQUENCE.match(self._rest)
        if sequence is None:
            return None
        self._rest = self._rest[sequence.end() :]
        self._pasting = sequence[0] == PASTE_BEGIN
        return []

    def _paste(self) -> list[Key | Paste] | None:
        text, end, after = self._rest.partition(PASTE_END)
        if not end:
            return None
        self._rest = after
        self._pasting = False
        return [Paste(text.replace("\r\n", "\n").replace("\r", "\n"))]
