"""The notation of tmux's control mode: command lines out, replies and notifications in. No I/O.

What tmux sends, line by line:

    %begin TIME NUMBER FLAGS        opens a block; FLAGS bit 0: it answers a command of ours
    any line at all                 its body, raw: a pane's content may look like any line of this notation
    %end|%error TIME NUMBER FLAGS   closes it, with the numbers that opened it
    %name arguments                 a notification; between blocks only
"""

from __future__ import annotations

import codecs
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
_ODD = re.compile(rb"\\(?![0-3][0-7]{2})")  # a backslash that begins no byte
_OURS = 1  # bit of FLAGS
_CLOSING = (b"%end", b"%error")


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
    """Return one command as one line, each argument quoted: a quoted word is never empty and begins no comment."""
    if not arguments:
        raise InvalidValue("a tmux command has a name")
    return " ".join([quote(argument) for argument in arguments])


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


class _Wanted(NamedTuple):
    """What the next block of ours answers: one command, some of a sequence, a capture and its nonce, all up to one."""

    nonce: bytes = b""
    hostile: bool = False
    sequence: bool = False
    blocks: int = 1  # of a sequence, if none fails


_ONE_COMMAND = _Wanted()


class ControlParser:
    """Turns the bytes of one control connection into replies, in the order of the commands, and notifications.

    Tell it of each command before its answer can arrive: `expect` (one block), `expect_capture` (a block with a pane's
    content, then `display-message -p 'NONCE ...'`), `expect_frame` (any number of blocks of commands we trust, then the
    same), `expect_sequence` (a line `a ; b ; c`: one block each, up to the first error). Raises Desync when the bytes
    cannot be an answer to what was asked.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()  # begins with the body of the open block, or with a line between blocks
        self._searched = 0  # how far it holds no `_awaited`
        self._awaited = b"\n"  # what the end of the line or of the block cannot come without
        self._wanted: deque[_Wanted] = deque()
        self._guard: bytes | None = None  # "TIME NUMBER FLAGS" of the open block
        self._ours = False  # whether it answers a command of ours
        self._capture = False  # whether it holds what a pane shows
        self._earlier: list[Reply] = []  # the blocks so far of a frame or a sequence

    def expect(self) -> None:
        """The next command is answered by one block."""
        self._wanted.append(_ONE_COMMAND)

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
        if self._buffer.find(self._awaited, self._searched) < 0:
            self._searched = max(0, len(self._buffer) - len(self._awaited))
            heard = []
        else:
            heard = self._take_all()
        if len(self._buffer) > MAX_LINE_BYTES and self._buffer.find(b"\n", -MAX_LINE_BYTES - 1) < 0:
            raise Desync(f"a line from tmux is longer than {MAX_LINE_BYTES} bytes")
        return heard

    def _take_all(self) -> list[Heard]:
        whole, at, heard = bytes(self._buffer), 0, list[Heard]()
        while (after := self._take(whole, at, heard)) is not None:
            at = after
        del self._buffer[:at]
        self._searched = 0
        return heard

    def _take(self, whole: bytes, at: int, heard: list[Heard]) -> int | None:
        """Take in what begins there, and return where the next begins; None when it is not complete."""
        if self._guard is not None:
            return self._take_capture(whole, at, heard) if self._capture else self._take_block(whole, at, heard)
        end = whole.find(b"\n", at)
        if end < 0:
            return None
        each = whole[at:end]
        if each.startswith(b"%begin "):
            self._begin(each[len(b"%begin ") :])
        else:
            heard.append(_notification(each))
        return end + 1

    def _begin(self, guard: bytes) -> None:
        self._guard = guard
        self._ours = _is_ours(guard)
        if self._ours and not self._wanted:
            raise Desync("tmux answered a command that was not sent")
        self._capture = self._ours and self._wanted[0].hostile
        self._awaited = self._wanted[0].nonce if self._capture else b" %b\n" % guard

    def _end(self) -> None:
        self._guard, self._awaited = None, b"\n"

    def _take_block(self, whole: bytes, at: int, heard: list[Heard]) -> int | None:
        last = self._awaited
        found = whole.find(last, at)
        while found >= 0:
            line_at = whole.rfind(b"\n", at, found) + 1 or at
            word = whole[line_at:found]
            if word in _CLOSING:
                lines = whole[at : line_at - 1].split(b"\n") if line_at > at else []
                self._end()
                self._take_reply(Reply(lines, word == b"%end", self._ours), heard)
                return found + len(last)
            found = whole.find(last, found + 1)
        return None

    def _take_reply(self, reply: Reply, heard: list[Heard]) -> None:
        if not reply.ours:
            heard.append(reply)
            return
        wanted = self._wanted[0]
        if wanted is not _ONE_COMMAND:
            self._earlier.append(reply)
            whole = _end_of_sequence(wanted, self._earlier) if wanted.sequence else _end_of_frame(wanted, self._earlier)
            if whole is None:
                return
            reply, self._earlier = whole, []
        self._wanted.popleft()
        heard.append(reply)

    def _take_capture(self, whole: bytes, at: int, heard: list[Heard]) -> int | None:
        """Take a capture whose last line is followed by the nonce's own block.

        Only tmux knows the nonce, so its block is real, and the line that ended the capture is the last one before it
        with the capture's own numbers: whatever the pane shows comes earlier.
        """
        guard, nonce = self._guard or b"", self._awaited
        found = whole.find(nonce, at)
        while found >= 0:
            begin_at = whole.rfind(b"\n", at, max(at, found - 1)) + 1 or at
            opening, end = whole[begin_at:found], whole.find(b"\n", found)
            closing = opening.replace(b"%begin", b"%end", 1)
            if opening.startswith(b"%begin ") and end >= 0 and whole.startswith(closing, end + 1):
                self._end()
                self._wanted.popleft()
                shown, between = _split_capture(whole[at:begin_at], guard)
                heard.append(shown._replace(frame=whole[found + len(nonce) : end]))
                heard += _between_capture_and_nonce(between)
                return end + 1 + len(closing)
            found = whole.find(nonce, found + 1)
        return None


def _end_of_sequence(wanted: _Wanted, blocks: list[Reply]) -> Reply | None:
    """Return the reply to a sequence if these are all its blocks."""
    last = blocks[-1]
    if last.ok and len(blocks) < wanted.blocks:
        return None
    if last.ok:
        return Reply(_lines(blocks))
    return Reply(_lines(blocks[:-1]), ok=False, frame=b" ".join(last.lines))


def _end_of_frame(wanted: _Wanted, blocks: list[Reply]) -> Reply | None:
    """Return the reply to a frame if the last of its blocks is the nonce's."""
    *blocks, last = blocks
    if not last.lines or not last.lines[0].startswith(wanted.nonce):
        return None
    return Reply(_lines(blocks), all(each.ok for each in blocks), frame=last.lines[0][len(wanted.nonce) :])


def _lines(blocks: list[Reply]) -> list[bytes]:
    return [each for block in blocks for each in block.lines]


def _split_capture(body: bytes, guard: bytes) -> tuple[Reply, list[bytes]]:
    """Return what is before the last line that closes the capture, and the lines after it."""
    lines = body.split(b"\n")[:-1]
    for at in range(len(lines) - 1, -1, -1):
        if _closes(lines[at], guard):
            return Reply(lines[:at], lines[at].startswith(b"%end")), lines[at + 1 :]
    raise Desync("a capture has no end before its nonce")


def _between_capture_and_nonce(lines: list[bytes]) -> list[Heard]:
    """Return the notifications; a hook's block can stand here too, is not ours, and its lines mean nothing to us."""
    heard: list[Heard] = []
    guard: bytes | None = None
    for each in lines:
        if guard is not None:
            guard = None if _closes(each, guard) else guard
        elif each.startswith(b"%begin "):
            guard = each[len(b"%begin ") :]
        else:
            heard.append(_notification(each))
    return heard


def _notification(each: bytes) -> Notification:
    if not each.startswith(b"%"):
        raise Desync(f"tmux sent a line outside any block: {each[:80]!r}")
    name, _, rest = each[1:].partition(b" ")
    if name in (b"end", b"error"):
        raise Desync(f"tmux closed a block that was not open: {each[:80]!r}")
    return Notification(name, rest)


def _closes(each: bytes, guard: bytes) -> bool:
    word, _, rest = each.partition(b" ")
    return word in _CLOSING and rest == guard


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
    if _ODD.search(escaped):  # tmux writes nothing like it
        return _OCTAL.sub(lambda match: bytes((int(match[1], 8) & 0xFF,)), escaped)
    return codecs.decode(escaped, "unicode_escape").encode("latin-1")  # the same, thirty times as fast
