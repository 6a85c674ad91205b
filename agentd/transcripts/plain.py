"""What a program printed, made into lines of plain text. No I/O.

Escape sequences are taken out. What moves within a line is done: a carriage return, a backspace, a part of the line
that is erased or written over. What moves to another line ends the line, for there is no screen here: a program that
draws all over its screen comes out as the pieces it drew, in the order in which it drew them.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

LONGEST_LINE: Final = 4096  # characters; a longer one is cut
_MOST_HELD: Final = 4096  # characters of a string that has begun and not ended; beyond that it is skipped as it comes

_TOKEN: Final = re.compile(
    r"(?P<text>(?:[^\x00-\x1f\x7f-\x9f]+|\x1b\[[0-9;:]{0,256}m)+)"  # with its colours: most sequences are those
    r"|(?P<end>\r?\n)"
    r"|\x1b\[(?P<private>[<-?]?)(?P<numbers>[0-9;:]{0,256})(?P<between>[ -/]{0,8})(?P<final>[@-~])"  # CSI
    r"|\x1b\][^\x07\x18\x1a\x1b]*(?:[\x07\x18\x1a]|(?=\x1b))"  # OSC; an ESC \ behind it goes as a sequence of its own
    r"|\x1b[PX^_][^\x18\x1a\x1b]*(?:[\x18\x1a]|(?=\x1b))"  # DCS, SOS, PM, APC
    r"|\x1b[ -/]{0,8}(?P<escape>[0-OQ-WYZ\\`-~])"
    r"|(?P<control>[\x00-\x1f\x7f-\x9f])"
)
_COLOUR: Final = re.compile(r"\x1b\[[0-9;:]*m")
_UNFINISHED: Final = re.compile(
    r"\x1b(?:\[[<-?]?[0-9;:]{0,256}[ -/]{0,8}|(?P<string>[\]PX^_])[^\x18\x1a\x1b]*|[ -/]{0,8})\Z"
)
_ENDS: Final = {"]": re.compile(r"[\x07\x18\x1a]|(?=\x1b)"), "P": re.compile(r"[\x18\x1a]|(?=\x1b)")}
# Text that would read other than it is, other ends of line, and bytes that are no UTF-8.
_UNSAFE: Final = re.compile("[\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ELSEWHERE: Final = frozenset("ABEFHJLMSTdefr")  # CSI: to another line, or what clears, moves or scrolls lines
_SCREENS: Final = frozenset({"47", "1047", "1049"})  # private modes: another screen
_DOWN: Final = frozenset("DEMc")  # ESC: to another line, or everything anew


class Plain:
    """Takes bytes in any portions and gives lines, the same ones whatever the portions are."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._held = ""  # the beginning of a sequence
        self._inside = ""  # a long string that nobody will see: its kind
        self._line = ""
        self._column = 0
        self.unsettled_bytes = 0  # that came since a line ended

    @property
    def line(self) -> str:
        """Return the line that has not ended."""
        return _safe(self._line)

    @property
    def held_bytes(self) -> int:
        """Return how many bytes at the end begin something that is not whole."""
        return len(self._decoder.getstate()[0]) + _size(self._held)

    def feed(self, data: bytes) -> list[str]:
        """Return the lines that end in the data, without the blanks at their ends."""
        text = self._held + self._decoder.decode(data)
        self._held = ""
        self.unsettled_bytes += len(data)
        lines: list[str] = []
        settled = -1
        at = self._past_the_string(text) if self._inside else 0
        while token := _TOKEN.match(text, at):
            if token[0] == "\x1b" and (unfinished := _UNFINISHED.match(text, at)):
                self._hold(unfinished)
                break
            at = token.end()
            self._take(token, lines)
            if not self._line and not self._column:
                settled = at
        if settled >= 0:
            self.unsettled_bytes = len(self._decoder.getstate()[0]) + _size(text[settled:])
        return [_safe(line) for line in lines]

    def end_line(self) -> list[str]:
        """Return the line that has not ended, if there is any, and begin anew behind it."""
        lines: list[str] = []
        self._break(lines)
        self._decoder.reset()
        self._held = self._inside = ""
        self.unsettled_bytes = 0
        return [_safe(line) for line in lines]

    def _hold(self, unfinished: re.Match[str]) -> None:
        if len(unfinished[0]) <= _MOST_HELD:
            self._held = unfinished[0]
        else:
            self._inside = "]" if unfinished["string"] == "]" else "P"

    def _past_the_string(self, text: str) -> int:
        end = _ENDS[self._inside].search(text)
        if end is None:
            return len(text)
        self._inside = ""
        return end.end()

    def _take(self, token: re.Match[str], lines: list[str]) -> None:
        match token.lastgroup:
            case "text":
                self._write(_COLOUR.sub("", token[0]) if "\x1b" in token[0] else token[0], lines)
            case "end":
                self._end(lines)
            case "final":
                self._sequence(token, lines)
            case "escape":
                if token["escape"] in _DOWN and len(token[0]) == 2:
                    self._break(lines)
            case "control":
                self._control(token[0], lines)

    def _control(self, char: str, lines: list[str]) -> None:
        if char in "\v\f":
            self._end(lines)
        elif char == "\r":
            self._column = 0
        elif char == "\b":
            self._column = max(0, self._column - 1)
        elif char == "\t":
            self._write(char, lines)

    def _sequence(self, token: re.Match[str], lines: list[str]) -> None:
        final = token["final"]
        if token["private"]:
            if final in "hl" and _SCREENS & set(token["numbers"].split(";")):
                self._break(lines)
        elif token["between"]:
            return
        elif final in _ELSEWHERE:
            self._break(lines)
        else:
            self._within_line(final, token["numbers"])

    def _within_line(self, final: str, numbers: str) -> None:
        first = numbers.partition(";")[0]
        number = min(int(first[:5]), LONGEST_LINE) if first.isdigit() else 0
        count, line, column = max(number, 1), self._line, self._column
        match final:
            case "C" | "a":
                self._column = min(column + count, LONGEST_LINE - 1)
            case "D":
                self._column = max(column - count, 0)
            case "G" | "`":
                self._column = count - 1
            case "K":
                self._erase(number)
            case "P":
                self._line = line[:column] + line[column + count :]
            case "X":
                self._line = line[:column] + " " * len(line[column : column + count]) + line[column + count :]
            case "@":
                self._line = (line[:column] + " " * count * (column < len(line)) + line[column:])[:LONGEST_LINE]

    def _erase(self, part: int) -> None:
        line, column = self._line, self._column
        if part == 0:
            self._line = line[:column]
        elif part == 1:
            self._line = " " * min(column + 1, len(line)) + line[column + 1 :]
        elif part == 2:
            self._line = ""

    def _write(self, text: str, lines: list[str]) -> None:
        line, column = self._line, self._column
        if not text:
            return
        if column == len(line):
            self._line = line + text
        else:
            self._line = line[:column].ljust(column) + text + line[column + len(text) :]
        self._column = column + len(text)
        while len(self._line) > LONGEST_LINE:
            lines.append(self._line[:LONGEST_LINE])
            self._line = self._line[LONGEST_LINE:]
            self._column = max(0, self._column - LONGEST_LINE)

    def _end(self, lines: list[str]) -> None:
        lines.append(self._line.rstrip(" "))
        self._line, self._column = "", 0

    def _break(self, lines: list[str]) -> None:
        """End the line by going elsewhere: an empty one then is none."""
        if self._line.strip():
            self._end(lines)
        self._line, self._column = "", 0


class Growth:
    """What has to be added to a text that is shown already, as a program goes on printing."""

    def __init__(self) -> None:
        self._plain = Plain()
        self._shown = ""  # of the line that has not ended

    @property
    def held_bytes(self) -> int:
        """Return how many bytes at the end begin something that is not whole."""
        return self._plain.held_bytes

    def feed(self, data: bytes) -> str:
        """Return what is new; a line that was shown and has changed since is shown again."""
        added = [self._whole(line) for line in self._plain.feed(data)]
        if rest := self._plain.line.rstrip(" "):
            added.append(self._added(rest))
            self._shown = rest
        return "".join(added)

    def say(self, sentence: str) -> str:
        """Return a line of our own, behind whatever is shown."""
        added = "".join(self._whole(line) for line in self._plain.end_line())
        if self._shown:
            added, self._shown = added + "\n", ""
        return f"{added}{sentence}\n"

    def _whole(self, line: str) -> str:
        added = self._added(line) + "\n"
        self._shown = ""
        return added

    def _added(self, line: str) -> str:
        return line[len(self._shown) :] if line.startswith(self._shown) else "\n" + line


def text_of(data: bytes) -> str:
    """Return whole output as lines of plain text."""
    plain = Plain()
    lines = [*plain.feed(data), *plain.end_line()]
    return "\n".join(lines)


def _safe(line: str) -> str:
    return line if line.isascii() else _UNSAFE.sub("\ufffd", line)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
