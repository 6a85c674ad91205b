"""What counts as a word: the same for what is indexed, what is asked and what is shown, whatever the engine."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final, NamedTuple

LONGEST: Final = 64  # characters of a word that are looked at; what is longer is an encoded blob

# Scripts that put no space between words: each character is a word of its own, and several of them a phrase.
_UNSPACED: Final = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD: Final = re.compile(f"[{_UNSPACED}]|(?:[^\\W_{_UNSPACED}]|[\u0300-\u036f])+")
_ASCII_WORD: Final = re.compile("[a-z0-9]+")


class Word(NamedTuple):
    """A word and where it stands in its text."""

    text: str  # folded: no capitals, no accents, letters and digits only
    start: int
    end: int


def words_of(text: str) -> list[str]:
    """Return the folded words of a text in order."""
    if text.isascii():  # the same, ten times as fast
        return [word[:LONGEST] for word in _ASCII_WORD.findall(text.lower())]
    return [word.text for word in placed_words(text)]


def placed_words(text: str) -> Iterator[Word]:
    """Yield the words of a text with their places."""
    for found in _WORD.finditer(text):
        word = _folded(found[0])
        if word:
            yield Word(word, *found.span())


def _folded(word: str) -> str:
    if word.isascii():
        return word.lower()[:LONGEST]
    plain = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", word).casefold())
    return "".join(filter(str.isalnum, plain))[:LONGEST]
