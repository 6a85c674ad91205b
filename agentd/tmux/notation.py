"""The notation of tmux's control mode: command lines out, replies and notifications in. No I/O.

What tmux sends, line by line:

    %begin TIME NUMBER FLAGS        opens a block; FLAGS bit 0: it answers a command of ours
    any line at all                 its body, raw: a pane's content may look like any line of this notation
    %end|%error TIME NUMBER FLAGS   closes it, with the numbers that opened it
    %name arguments                 a notification; between blocks only
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from agentd.errors import InvalidValue
from agentd.tmux.failures import Desync

MAX_LINE_BYTES = 64 * 1024 * 1024  # a capture joins wrapped lines: a long scrollback can be one line

_PLAIN = re.compile(r"(?:[A-Za-z0-9_@+=:,./-]+|%[0-9]+)\Z")
_HASHES = re.compile(r"#+(?![#\[])")
_OCTAL = re.compile(rb"\\([0-7]{3})")
_OURS = 1  # bit of FLAGS


# -- what we say


def quote(argument: str) -> str:
    """Return one argument as tmux reads it back, byte for byte."""
    if _PLAIN.match(argument):
        return argument
    if any(mark in argument for mark in "\r\n\0"):
        raise InvalidValue(
            "a tmux argument cannot hold a line break or NUL", hint="use quote_lines() where one is meant"
        )
    _checked_utf8(argument)
    return "'" + argument.replace("'", r"'\''") + "'"


def quote_lines(argument: str) -> str:
    """Return one argument that may hold newlines: the lines in single quotes, each newline as \\n in double quotes."""
    return '"\\n"'.join(quote(each) for each in argument.split("\n"))


def command(*arguments: str) -> str:
    """Return one command as one line, each argument quoted."""
    return line(*(quote(argument) for argument in arguments))


def line(*quoted: str) -> str:
    """Return one command line of words that are quoted already.

    An empty line would detach us and a line that begins with `#` is a comment without a reply: both are refused.
    """
    joined = " ".join(quoted)
    if not joined.strip() or joined.lstrip().startswith("#") or "\n" in joined or "\r" in joined:
        raise InvalidValue(f"not one tmux command: {joined[:60]!r}")
    return joined


def escape_format(argument: str) -> str:
    """Return the text so that a format shows it as it is and runs nothing in it.

    Every # is doubled, but not those before a [ : there tmux keeps all of them for the styles of the status line.
    """
    return _HASHES.sub(lambda match: match[0] * 2, argument)


def encode(command_line: str) -> bytes:
    """Return the bytes of a line; bytes of a file name that are not UTF-8 come out as they were."""
    return command_line.encode("utf-8", "surrogateescape") + b"\n"


def _checked_utf8(argument: str) -> None:
    try:
        argument.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise InvalidValue("a tmux argument cannot hold half of a surrogate pair") from None


# -- what we hear


class Reply(NamedTuple):
    """The answer to one command, or to one framed group of commands.

    `ours` is false for a block we did not ask for (the attach, a hook). `frame` is what followed the nonce; of a
    sequence, the error that ended it.
    """

    lines: list[bytes]
    ok: bool = True
    ours: bool = True
    frame: bytes = b""


@dataclass(frozen=True, slots=True)
class Notification:
    """Something tmux told us unasked: `%name rest`."""

    name: bytes
    rest: bytes


Heard = Reply | Notification


@dataclass(slots=True)
class _Wanted:
    """What the next block of ours answers: one command, some of a sequence, a capture and its nonce, all up to one."""

    nonce: bytes = b""
    hostile: bool = False
    sequence: bool = False
    blocks: int = 1  # still to come of a sequence, if none fails


class ControlParser:
    """Turns the bytes of one control connection into replies, in the order of the commands, and notifications.

    Tell it of each command before its answer can arrive: `expect` (one block), `expect_capture` (a block with a pane's
    content, then `display-message -p 'NONCE ...'`), `expect_frame` (any number of blocks of commands we trust, then the
    same), `expect_sequence` (a line `a ; b ; c`: one block each, up to the first error). Raises Desync when the bytes
    cannot be an answer to what was asked.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._wanted: deque[_Wanted] = deque()
        self._guard: bytes | None = None  # "TIME NUMBER FLAGS" of the open block
        self._ours = False  # whether it answers a command of ours
        self._capture = False  # whether it holds what a pane shows
        self._lines: list[bytes] = []
        self._frame_lines: list[bytes] = []
        self._frame_ok = True

    def expect(self) -> None:
        """The next command is answered by one block."""
        self._wanted.append(_Wanted())

    def expect_capture(self, nonce: str) -> None:
        """The next two commands are a capture and the line that starts with the nonce."""
        self._wanted.append(_Wanted(nonce.encode(), hostile=True))

    def expect_frame(self, nonce: str) -> None:
        """The next commands give any number of blocks; the last starts with the nonce."""
        self._wanted.append(_Wanted(nonce.encode()))

    def expect_sequence(self, count: int) -> None:
        """The next line holds so many commands, each of which runs only if the one before did."""
        self._wanted.append(_Wanted(sequence=True, blocks=count))

    def feed(self, data: bytes) -> list[Heard]:
        """Take in bytes as they come; return what is complete."""
        self._buffer += data
        end = self._buffer.rfind(b"\n", self._searched)
        if end < 0:
            self._searched = len(self._buffer)
            if self._searched > MAX_LINE_BYTES:
                raise Desync(f"a line from tmux is longer than {MAX_LINE_BYTES} bytes")
            return []
        whole = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._searched = 0
        heard: list[Heard] = []
        for each in whole.split(b"\n"):
            self._take(each, heard)
        return heard

    def _take(self, each: bytes, heard: list[Heard]) -> None:
        if self._guard is None:
            self._between(each, heard)
        elif self._capture:
            self._lines.append(each)
            if each.startswith(b"%") and _closes(each, None):
                self._end_capture(each, heard)
        elif each.startswith(b"%") and _closes(each, self._guard):
            self._end_block(each.startswith(b"%end"), heard)
        else:
            self._lines.append(each)

    def _between(self, each: bytes, heard: list[Heard]) -> None:
        if not each.startswith(b"%"):
            raise Desync(f"tmux sent a line outside any block: {each[:80]!r}")
        name, _, rest = each[1:].partition(b" ")
        if name == b"begin":
            self._guard = rest
            self._lines = []
            self._ours = _is_ours(rest)
            if self._ours and not self._wanted:
                raise Desync("tmux answered a command that was not sent")
            self._capture = self._ours and self._wanted[0].hostile
        elif name in (b"end", b"error"):
            raise Desync(f"tmux closed a block that was not open: {each[:80]!r}")
        else:
            heard.append(Notification(name, rest))

    def _end_block(self, ok: bool, heard: list[Heard]) -> None:
        lines = self._lines
        self._guard, self._lines = None, []
        if not self._ours:
            heard.append(Reply(lines, ok, ours=False))
            return
        wanted = self._wanted[0]
        nonce = wanted.nonce
        if not nonce and not wanted.sequence:
            self._wanted.popleft()
            heard.append(Reply(lines, ok))
        elif not nonce:
            self._end_step(wanted, Reply(lines, ok), heard)
        elif lines and lines[0].startswith(nonce):
            self._end_frame(lines[0][len(nonce) :], heard)
        else:
            self._frame_lines += lines
            self._frame_ok = self._frame_ok and ok

    def _end_step(self, wanted: _Wanted, reply: Reply, heard: list[Heard]) -> None:
        """End one command of a sequence."""
        wanted.blocks -= 1
        if reply.ok and wanted.blocks:
            self._frame_lines += reply.lines
            return
        self._wanted.popleft()
        earlier, self._frame_lines = self._frame_lines, []
        if reply.ok:
            heard.append(Reply(earlier + reply.lines))
        else:
            heard.append(Reply(earlier, ok=False, frame=b" ".join(reply.lines)))

    def _end_frame(self, frame: bytes, heard: list[Heard]) -> None:
        self._wanted.popleft()
        heard.append(Reply(self._frame_lines, self._frame_ok, frame=frame))
        self._frame_lines, self._frame_ok = [], True

    def _end_capture(self, each: bytes, heard: list[Heard]) -> None:
        """End the capture if the last three lines are the nonce's own block.

        Only tmux knows the nonce, so its block is real, and the line that ended the capture is the last one before it
        with the capture's own numbers: whatever the pane shows comes earlier.
        """
        lines, nonce = self._lines, self._wanted[0].nonce
        if len(lines) < 3 or not lines[-2].startswith(nonce) or not lines[-3].startswith(b"%begin "):
            return
        if not _closes(each, lines[-3][len(b"%begin ") :]):
            return
        guard = self._guard or b""
        end = next((at for at in range(len(lines) - 4, -1, -1) if _closes(lines[at], guard)), None)
        if end is None:
            raise Desync("a capture has no end before its nonce")
        self._wanted.popleft()
        self._guard, self._lines = None, []
        between = lines[end + 1 : -3]
        heard.append(Reply(lines[:end], lines[end].startswith(b"%end"), frame=lines[-2][len(nonce) :]))
        for later in between:
            self._between_capture_and_nonce(later, heard)

    def _between_capture_and_nonce(self, each: bytes, heard: list[Heard]) -> None:
        # A hook's block can stand here too; it is not ours, and its lines mean nothing to us.
        if self._guard is not None:
            if _closes(each, self._guard):
                self._guard = None
        else:
            self._between(each, heard)


def _closes(each: bytes, guard: bytes | None) -> bool:
    if each.startswith(b"%end "):
        return guard is None or each[len(b"%end ") :] == guard
    return each.startswith(b"%error ") and (guard is None or each[len(b"%error ") :] == guard)


def _is_ours(guard: bytes) -> bool:
    flags = guard.rsplit(b" ", 1)[-1]
    return flags.isdigit() and bool(int(flags) & _OURS)


def output_of(notification: Notification) -> tuple[str, bytes] | None:
    """Return pane id and still escaped data of a %output or %extended-output, None for anything else."""
    if notification.name == b"output":
        pane, _, data = notification.rest.partition(b" ")
        return pane.decode("ascii", "replace"), data
    if notification.name == b"extended-output":  # %extended-output %1 AGE ... : data
        head, _, data = notification.rest.partition(b" : ")
        return head.partition(b" ")[0].decode("ascii", "replace"), data
    return None


def decode_output(escaped: bytes) -> bytes:
    """Return what the pane's program printed, from the form with octal escapes."""
    if b"\\" not in escaped:
        return escaped
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), escaped)
