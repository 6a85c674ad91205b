"""What a screen captured with its colours shows, and which of it is drawn faint. Pure; takes any text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

_SEQUENCE = re.compile(
    r"\x1b\[([0-9:;]*)m"  # colours and the like: the only ones that are read
    r"|\x1b\[[0-?]*[ -/]*[@-~]"  # other control sequences
    r"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\|$)"  # links, titles and other strings
    r"|\x1b[ -/]*[0-~]?"  # character sets, and an escape by itself
    r"|[\x0e\x0f]"  # shifts to line drawing and back
)
_GREY = range(105, 181)  # brightness; darker may be text on white, brighter is text on black
_UNEVEN = 16  # most difference between the parts of a colour that is called grey
_PALETTE_GREYS = range(232, 256)
_BRIGHT_BLACK = 8
_SHIFTS = dict.fromkeys((0x0E, 0x0F))
_COLOURS = frozenset((*map(str, range(30, 38)), "39", *map(str, range(91, 98))))  # of text, and none of them grey


@dataclass(frozen=True, slots=True)
class Shown:
    """A screen's text, and the same text with blanks in place of what is faint."""

    plain: str
    solid: str


@dataclass(frozen=True, slots=True)
class _Pen:
    """How the next characters are drawn, as far as it matters here."""

    dim: bool = False
    grey: bool = False
    reverse: bool = False

    @property
    def faint(self) -> bool:
        return (self.dim or self.grey) and not self.reverse


@dataclass(frozen=True, slots=True)
class _Run:
    text: str
    pen: _Pen


def read(captured: str) -> Shown:
    """Return what a capture shows; faint is what is drawn dim or in a middling grey, and the cursor in front of it."""
    if "\x1b" not in captured:
        text = captured.translate(_SHIFTS)
        return Shown(text, text)
    runs = list(_runs(captured))
    plain = "".join(run.text for run in runs)
    if not any(run.pen.faint for run in runs):
        return Shown(plain, plain)
    return Shown(plain, "".join(_solid(run, after) for run, after in zip(runs, [*runs[1:], None], strict=True)))


def _solid(run: _Run, after: _Run | None) -> str:
    # A program draws its cursor as one reversed character: on a hint, that is the hint's first letter.
    cursor = run.pen.reverse and len(run.text) == 1 and after is not None and after.pen.faint
    return _blank(run.text) if run.pen.faint or cursor else run.text


def _blank(text: str) -> str:
    return "\n".join(" " * len(line) for line in text.split("\n"))


def _runs(captured: str) -> Iterator[_Run]:
    pen, at = _Pen(), 0
    for match in _SEQUENCE.finditer(captured):
        if match.start() > at:
            yield _Run(captured[at : match.start()], pen)
        at = match.end()
        if match[1] is not None:
            pen = _drawn(pen, match[1])
    if at < len(captured):
        yield _Run(captured[at:], pen)


@lru_cache(maxsize=4096)  # a program draws with a few hundred pens at most
def _drawn(pen: _Pen, parameters: str) -> _Pen:
    """Return the pen after one `ESC [ ... m`."""
    words = iter(parameters.split(";"))
    for word in words:
        pen = _step(pen, word, words)
    return pen


def _step(pen: _Pen, word: str, following: Iterator[str]) -> _Pen:
    code, *parts = word.lstrip("0").split(":")
    match code:
        case "38":
            return replace(pen, grey=_is_grey(parts or _colour(following)))
        case "48" | "58":  # of the background and of underlines
            if not parts:
                _colour(following)
            return pen
        case "":
            return _Pen()
        case "2" | "22":
            return replace(pen, dim=code == "2")
        case "7" | "27":
            return replace(pen, reverse=code == "7")
        case "90":
            return replace(pen, grey=True)
        case colour if colour in _COLOURS:
            return replace(pen, grey=False)
    return pen


def _colour(words: Iterator[str]) -> list[str]:
    """Take the words of a colour that is written with semicolons: `5;n` or `2;r;g;b`."""
    kind = next(words, "")
    count = {"5": 1, "2": 3}.get(kind, 0)
    return [kind, *(next(words, "") for _ in range(count))]


def _is_grey(parts: list[str]) -> bool:
    kind, *values = parts
    numbers = [_number(value) for value in values if value]
    if kind == "5" and numbers:
        return numbers[0] == _BRIGHT_BLACK or (
            numbers[0] in _PALETTE_GREYS and 8 + 10 * (numbers[0] - _PALETTE_GREYS.start) in _GREY
        )
    if kind == "2" and len(numbers) >= 3:
        rgb = numbers[-3:]
        return max(rgb) - min(rgb) <= _UNEVEN and max(rgb) in _GREY
    return False


def _number(text: str) -> int:
    return int(text[:4]) if text.isascii() and text[:4].isdigit() else -1
