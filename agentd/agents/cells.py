"""How wide a text is on a terminal."""

from __future__ import annotations

import unicodedata


def cell_width(text: str) -> int:
    """Return how many columns a text takes."""
    return len(text) if text.isascii() else sum(_cells(char) for char in text)


def within(text: str, columns: int) -> int:
    """Return how many of its characters fit into so many columns."""
    if text.isascii():
        return min(len(text), columns)
    used = 0
    for at, char in enumerate(text):
        used += _cells(char)
        if used > columns:
            return at
    return len(text)


def _cells(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
