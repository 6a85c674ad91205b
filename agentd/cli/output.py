"""What reaches the terminal: clean text, aligned tables, one JSON value, one sentence for an error."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Spans = Sequence[Sequence[int]]  # from, to

    from agentd.errors import AgentdError

_CONTROL = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_CONTROL[0x7F] = 0x2421
_UNSEEN = (*range(0x80, 0xA0), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
_CONTROL.update((code, 0xFFFD) for code in _UNSEEN)  # C1, and what turns the direction of text
_CELL: dict[int, int | str] = {**_CONTROL, 0x0A: " ", 0x09: " "}

STATE_COLOURS = {"idle": 32, "working": 33, "waiting": 35, "starting": 36, "stopped": 2, "failed": 31, "dead": 31}
_COLUMN_GAP = "  "


def clean(text: str) -> str:
    """Return the text with every control character but newline and tab made visible and harmless."""
    return text.translate(_CONTROL)


def cell(value: object) -> str:
    """Return a value as one clean line."""
    return "" if value is None else str(value).translate(_CELL)


def say(text: str = "") -> None:
    """Print clean text on stdout."""
    print(clean(text))


def note(text: str) -> None:
    """Print a clean line on stderr."""
    print(cell(text), file=sys.stderr, flush=True)


def emit(value: Any) -> None:
    """Print a value as one line of JSON, at once."""
    print(as_json(value), flush=True)


def complain(error: AgentdError) -> None:
    """Print an error's sentence on stderr."""
    note(f"agentd: {error.message}; {error.hint}" if error.hint else f"agentd: {error.message}")


def tell_notices(answer: dict[str, Any]) -> None:
    """Print on stderr what an answer has to say beside what was asked; a daemon of before has nothing."""
    for text in answer.get("notices", ()):
        note(f"agentd: {text}")


def as_json(value: Any) -> str:
    """Return a value made of maps, lists, texts and numbers as JSON without spaces to break lines at."""
    try:
        from _json import encode_basestring_ascii  # what json itself uses; json costs the hot commands 10 ms
    except ImportError:
        from json.encoder import py_encode_basestring_ascii as encode_basestring_ascii

    return _as_json(value, encode_basestring_ascii)


def _as_json(value: Any, quoted: Callable[[str], str]) -> str:
    if isinstance(value, str):
        return quoted(str(value))
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(str(k))}: {_as_json(v, quoted)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_as_json(each, quoted) for each in value) + "]"
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value) if value - value == 0 else "null"  # JSON has neither NaN nor infinity
    raise TypeError(f"{type(value).__name__} is not JSON")


def colours() -> bool:
    """Tell whether stdout is a terminal that wants colours."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], marked: Sequence[Spans] = ()) -> None:
    """Print rows in aligned columns; a column that is empty in every row is left out.

    `marked` gives for each row the places in its last cell that are emphasised where colours are wanted.
    """
    texts = [[cell(value) for value in row] for row in rows]
    shown = [n for n in range(len(heads)) if any(row[n] for row in texts)]
    lines = [[row[n] for n in shown] for row in [list(heads), *texts]]
    widths = [max(width(line[n]) for line in lines) for n in range(len(shown))]
    with_colours, room = colours(), _columns()
    for number, line in enumerate(lines):
        padded = [text + " " * (size - width(text)) for text, size in zip(line, widths, strict=True)]
        text = _cut(_COLUMN_GAP.join(padded).rstrip(), room)
        if with_colours and marked and number:
            text = _emphasised(
                text, sum(map(len, padded[:-1])) + len(_COLUMN_GAP) * len(shown[:-1]), marked[number - 1]
            )
        elif with_colours:
            text = _coloured(text, line, bold=number == 0)
        print(text)


def facts(rows: Sequence[tuple[str, object]]) -> None:
    """Print names and values, one below the other; values that are not there are left out."""
    known = [(name, value) for name, value in rows if value not in (None, "")]
    size = max((len(name) for name, _ in known), default=0)
    for name, value in known:
        lines = clean(str(value)).split("\n")
        print(f"{name:<{size}}  {lines[0]}")
        for line in lines[1:]:
            print(f"{'':<{size}}  {line}")


def width(text: str) -> int:
    """Return how many columns a terminal needs for a clean line."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def duration(seconds: float | None) -> str:
    """Return a duration as people say it: 3s, 5m, 2h, 4d."""
    if seconds is None:
        return ""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}"
    return f"{int(seconds)}s"


def megabytes(size_bytes: int) -> str:
    """Return a size as people say it."""
    return f"{size_bytes / 1e6:.1f}M"


def moment(at_s: float | None) -> str:
    """Return a moment in this place's time."""
    if at_s is None:
        return ""
    import time

    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_s)) + f".{int(at_s % 1 * 1000):03d}"


def _columns() -> int:
    if not sys.stdout.isatty():
        return 0
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except OSError:  # a terminal that does not know its size
        return 0


def _cut(text: str, room: int) -> str:
    if not room or width(text) <= room:
        return text
    while width(text) >= room:
        text = text[:-1]
    return text + "…"


def _emphasised(text: str, start: int, spans: Spans) -> str:
    for begin, end in reversed(spans):  # from behind: what stands before keeps its place
        first, last = start + begin, min(start + end, len(text))
        if first < last:
            text = f"{text[:first]}\x1b[1;33m{text[first:last]}\x1b[0m{text[last:]}"
    return text


def _coloured(text: str, line: Sequence[str], *, bold: bool) -> str:
    if bold:
        return f"\x1b[1m{text}\x1b[0m"
    for word in line:
        if word in STATE_COLOURS:
            before, found, after = text.partition(f"{_COLUMN_GAP}{word}")
            return f"{before}\x1b[{STATE_COLOURS[word]}m{found}\x1b[0m{after}" if found else text
    return text
