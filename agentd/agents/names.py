"""Names of agents, teams and roles: which are valid, and which are free."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from itertools import count, islice

from agentd.errors import InvalidValue
from agentd.records import NAME_PATTERN, RESERVED_NAMES

MAX_CHARS = 48
_NAME = re.compile(NAME_PATTERN)
_HINT = "a name is like build-2: a lower-case letter, then letters, digits and dashes, 48 at most"


def valid_name(text: str) -> str:
    """Return the name; raises InvalidValue with the one reason why it is none."""
    reason = _why_not(text)
    if reason:
        raise InvalidValue(f"{text[:60]!a} is not a valid name: {reason}", hint=_HINT, field="name")
    return text


def next_free(prefix: str, taken: Container[str]) -> str:
    """Return the first of PREFIX-1, PREFIX-2, ... that is not taken."""
    return next_names(prefix, 1, taken)[0]


def next_names(prefix: str, n: int, taken: Container[str]) -> list[str]:
    """Return the first n of PREFIX-1, PREFIX-2, ... that are not taken; raises InvalidValue when one is too long."""
    return [valid_name(name) for name in islice(_free(prefix, taken), n)]


def _free(prefix: str, taken: Container[str]) -> Iterator[str]:
    return (name for number in count(1) if (name := f"{prefix}-{number}") not in taken)


def _why_not(text: str) -> str:
    if not text:
        return "it is empty"
    if len(text) > MAX_CHARS:
        return f"it has {len(text)} characters"
    if not ("a" <= text[0] <= "z"):
        return "it does not begin with a letter from a to z"
    if not _NAME.fullmatch(text):
        wrong = next(char for char in text if not re.fullmatch(r"[a-z0-9-]", char))
        return f"{wrong!a} may not stand in it"
    if text.endswith("-"):
        return "it ends with a dash"
    if text in RESERVED_NAMES:
        return "it is reserved"
    return ""
