"""Regular expressions of profiles: compiled, and refused when a screen could make them run for ever."""

from __future__ import annotations

import re
from collections.abc import Callable
from re import _constants, _parser  # type: ignore[attr-defined]  # the only way to look into a pattern
from typing import Any

MAX_CHARS = 1000
FEW = 10  # repeats up to this many may stand inside one another
_REPEATS = (_constants.MAX_REPEAT, _constants.MIN_REPEAT)


def compile_pattern(text: str) -> re.Pattern[str]:
    """Return the pattern, with `^` and `$` at every line; raises ValueError saying why it cannot be used."""
    if len(text) > MAX_CHARS:
        raise ValueError(f"the pattern has {len(text)} characters; {MAX_CHARS} are allowed")
    try:
        pattern = re.compile(text, re.MULTILINE)
        why_not = _why_not(_parser.parse(text, re.MULTILINE))
    except (re.error, OverflowError) as error:
        raise ValueError(f"the pattern {text!r} is not valid: {error}") from None
    except RecursionError:
        raise ValueError(f"the pattern {text!r} has too many groups within groups") from None
    if why_not:
        raise ValueError(f"the pattern {text!r} {why_not}")
    return pattern


def _why_not(parsed: Any) -> str:
    if _nests(parsed, inside=False):
        return "has a repeat within a repeat; some screens would take it hours"
    if _holds_a_group_fast(parsed):
        return "has a group before *+, ++ or ?+, which some Pythons match wrongly"
    return ""


def _nests(part: Any, *, inside: bool) -> bool:
    """Tell whether an open repeat stands inside another: what makes matching take exponential time."""
    if isinstance(part, tuple) and len(part) == 2 and part[0] in _REPEATS:
        _, high, repeated = part[1]
        many = int(high) > FEW
        return (many and inside) or _nests(repeated, inside=inside or many)
    if isinstance(part, _parser.SubPattern | tuple | list):
        return any(_nests(child, inside=inside) for child in part)
    return False


def _holds_a_group_fast(part: Any) -> bool:
    """Tell whether a group is repeated possessively: https://github.com/python/cpython/issues/106052, until 3.11.4."""
    if isinstance(part, tuple) and len(part) == 2 and part[0] is _constants.POSSESSIVE_REPEAT:
        kinds = [kind for kind, _ in part[1][2]]
        return len(kinds) != 1 or kinds[0] in (_constants.SUBPATTERN, _constants.BRANCH)
    if isinstance(part, _parser.SubPattern | tuple | list):
        return any(_holds_a_group_fast(child) for child in part)
    return False


def spelled(pattern: re.Pattern[str], wanted: Callable[[str], bool]) -> int:
    """Return how many of the wanted characters every match of the pattern contains as letters of the pattern itself."""
    return _spelled(_parser.parse(pattern.pattern, pattern.flags), wanted)


def _spelled(parts: Any, wanted: Callable[[str], bool]) -> int:
    count = 0
    for kind, values in parts:
        if kind is _constants.LITERAL:
            count += wanted(chr(values))
        elif kind is _constants.SUBPATTERN:  # what may be left out or repeated, or is one of several, is not counted
            count += _spelled(values[-1], wanted)
    return count
