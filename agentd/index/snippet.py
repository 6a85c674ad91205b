"""The part of a message that shows why it was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agentd.index.query import Query, Term
from agentd.index.words import Word, placed_words

LENGTH: Final = 100  # characters
LOOKED_AT: Final = 65_536  # characters of a body; a match behind them is found and not shown
_LEAD: Final = 20  # of them before the first match
_CUT: Final = "…"


@dataclass(frozen=True, slots=True)
class Snippet:
    """A piece of a text, and where in it the words that were asked for stand."""

    text: str
    matches: tuple[tuple[int, int], ...]


def snippet_of(text: str, query: Query) -> Snippet:
    """Return the piece around the first match, on one line."""
    matches = _matches(list(placed_words(text[:LOOKED_AT])), query.wanted)
    first = matches[0][0] if matches else 0
    start = 0 if first + _LEAD < LENGTH else first - _LEAD
    end = min(len(text), start + LENGTH)
    before, after = _CUT if start else "", _CUT if end < len(text) else ""
    line = "".join(" " if char.isspace() else char for char in text[start:end])
    moved = len(before) - start
    inside = tuple((begin + moved, min(stop, end) + moved) for begin, stop in matches if begin < end)
    return Snippet(before + line + after, inside)


def _matches(words: Sequence[Word], terms: Sequence[Term]) -> list[tuple[int, int]]:
    """Return where terms stand, in order, none inside another."""
    found: list[tuple[int, int]] = []
    at = 0
    while at < len(words):
        length = max((_length_at(words, at, term) for term in terms), default=0)
        if length:
            found.append((words[at].start, words[at + length - 1].end))
        at += max(length, 1)
    return found


def _length_at(words: Sequence[Word], at: int, term: Term) -> int:
    """Return how many words a term takes here, 0 when it does not stand here."""
    size = len(term.words)
    here = tuple(word.text for word in words[at : at + size])
    if here == term.words:
        return size
    begins = term.prefix and here[:-1] == term.words[:-1] and len(here) == size
    return size if begins and here[-1].startswith(term.words[-1]) else 0
