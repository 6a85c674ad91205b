"""A line that was typed, cut into words as a shell does: spaces, quotes and backslashes, nothing else."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACES = " \t\r\n"
_BEHIND_A_BACKSLASH = '"\\'  # what one means something before, between double quotes


def split(line: str) -> tuple[list[str], str | None, str]:
    """Return the finished words, the word that is being typed (None behind a space), and the quote that is open.

    A backslash at the very end counts as an open quote.
    """
    words: list[str] = []
    word: str | None = None
    quote = ""
    chars = iter(line)
    for char in chars:
        if not quote and char in _SPACES:
            if word is not None:
                words.append(word)
            word = None
            continue
        before, word = word or "", word or ""
        if char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif char == "\\" and quote != "'":
            escaped = _escaped(chars, quote)
            if escaped is None:
                return words, before, char
            word += escaped
        else:
            word += char
    return words, word, quote


def _escaped(chars: Iterator[str], quote: str) -> str | None:
    """Return what a backslash and the next character stand for; None when nothing follows."""
    following = next(chars, None)
    if following is None or not quote or following in _BEHIND_A_BACKSLASH:
        return following
    return "\\" + following
