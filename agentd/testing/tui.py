"""The demo agent's screen: lines that scroll away, and a block at the bottom that is drawn again."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence

DEFAULT_COLUMNS = 80


class Tui:
    """Draws to a terminal in raw mode; every change goes out in one piece."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rows = 1  # of the block as it stands on the screen; the cursor is at its end
        self._block: Sequence[str] = ("",)

    def show(self, block: Sequence[str], lines: Sequence[str] = ()) -> None:
        """Print lines above the block and draw the block; nothing is written when nothing changed."""
        if not lines and block == self._block:
            return
        columns = self._columns()
        up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
        self._block = tuple(block)
        self._rows = sum(rows(line, columns) for line in block)
        self.write("\r" + up + "\x1b[J" + "".join(f"{line}\r\n" for line in lines) + "\r\n".join(block))

    def clear(self) -> None:
        """Empty the screen and what has scrolled out of it; the block is drawn again at the top."""
        self._rows, self._block = 1, ("",)
        self.write("\x1b[H\x1b[2J\x1b[3J")

    def write(self, text: str) -> None:
        """Write text and escape sequences as they are."""
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._fd, data) :]

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self._fd).columns or DEFAULT_COLUMNS
        except OSError:
            return DEFAULT_COLUMNS


def rows(line: str, columns: int) -> int:
    """Return how many rows of the screen a line takes."""
    cells = sum(_cells(char) for char in line)
    return max(1, -(-cells // columns))


def _cells(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
