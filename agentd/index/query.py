"""What a person types into a search, understood: words, "phrases", prefixes*, OR, and -words to leave out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from agentd.errors import InvalidValue
from agentd.index.words import words_of

MOST_TERMS: Final = 32
LONGEST_QUERY: Final = 1000

_PIECE: Final = re.compile(r'(-?)(?:"([^"]*)"?(\*?)|(\S+))')


class Term(NamedTuple):
    """Words that stand side by side; with `prefix` the last one may go on."""

    words: tuple[str, ...]
    prefix: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What a text must have: one term of each group, and none of those left out."""

    groups: tuple[tuple[Term, ...], ...]
    without: tuple[Term, ...] = ()

    @property
    def wanted(self) -> list[Term]:
        """Return every term that may have led to a hit."""
        return [term for group in self.groups for term in group]


def parse(text: str) -> Query:
    """Return the query that a text means: all its words, `a OR b` either.

    Whatever has no meaning is left out: an open quote ends with the text. Raises InvalidValue when no word is left,
    or too many are.
    """
    if len(text) > LONGEST_QUERY:
        raise _invalid(f"the query is {len(text)} characters long and {LONGEST_QUERY} are allowed", "ask for less")
    groups: list[list[Term]] = []
    without: list[Term] = []
    either = False
    for dash, quoted, star, bare in _PIECE.findall(text):
        if bare == "OR" and not dash:
            either = bool(groups)
            continue
        term = Term(tuple(words_of(quoted or bare)), prefix=bool(star) or (quoted or bare).endswith("*"))
        if not term.words:
            continue
        if dash:
            without.append(term)
        elif either:
            groups[-1].append(term)
        else:
            groups.append([term])
        either = False
    return _checked(groups, without)


def _checked(groups: Sequence[Sequence[Term]], without: Sequence[Term]) -> Query:
    if not groups and without:
        raise _invalid("the query only says what to leave out", "add a word to look for")
    if not groups:
        raise _invalid("the query has no word to look for", "a word has letters or digits")
    terms = sum(map(len, groups)) + len(without)
    if terms > MOST_TERMS:
        raise _invalid(f"the query has {terms} terms and {MOST_TERMS} are allowed", "ask for less")
    return Query(tuple(map(tuple, groups)), tuple(without))


def _invalid(what: str, hint: str) -> InvalidValue:
    return InvalidValue(what, hint=hint, field="query")
