"""Reading a transcript from a position on, while it is written, compressed and removed. Everything here blocks."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from agentd.transcripts.folder import OPEN, Extent, Segment, about_of, content, end_of, read, segments
from agentd.transcripts.segment import HEADER, Damaged, Missing, Piece, Printed, Why, pack, parse

_ATTEMPTS: Final = 5  # a segment may be compressed or removed between the look at the directory and the reading


class Page(NamedTuple):
    """Some of a transcript: its pieces in order, where they begin, and where the next ones do."""

    start: int
    pieces: Sequence[Piece]
    next: int


class Reader:
    """Reads one agent's transcript from a position on; what is printed later is found by the next reading."""

    def __init__(self, directory: Path, position: int, report: Callable[[str], None]) -> None:
        self.position = position
        self._directory = directory
        self._report = report
        self._left: deque[Piece] = deque()  # of the segment that was read last, from the position on
        self._open: Segment | None = None  # that segment, if it may grow
        self._open_bytes = 0  # of its file that were read

    def next(self, most_bytes: int) -> Page:
        """Return what follows: at least one piece if there is any, and at most so many bytes."""
        start = self.position
        pieces: list[Piece] = []
        room = most_bytes
        while room > 0 and (self._left or self._load()):
            piece = self._left.popleft()
            if isinstance(piece, Printed) and len(piece.data) > room:
                self._left.appendleft(Printed(piece.at_ns, piece.data[room:]))
                piece = Printed(piece.at_ns, piece.data[:room])
            pieces.append(piece)
            self.position += piece.positions
            room -= len(piece.data) if isinstance(piece, Printed) else 1
        return Page(start, pieces, self.position)

    def _load(self) -> bool:
        """Read on; tells whether there is anything."""
        for _ in range(_ATTEMPTS):
            try:
                if self._open and self._grown(self._open):
                    return True
                self._open = None
                return self._find()
            except FileNotFoundError:
                self._open = None
        return False

    def _grown(self, segment: Segment) -> bool:
        try:
            parsed = parse(content(segment.path, self._open_bytes), headed=False)
        except Damaged:
            return False
        self._open_bytes += parsed.whole_bytes
        self._left.extend(parsed.pieces)
        return bool(parsed.pieces)

    def _find(self) -> bool:
        found = segments(self._directory)
        if not found:
            return False
        n = bisect_right([segment.start for segment in found], self.position) - 1
        if n < 0:
            self._left.append(self._skipped(Why.REMOVED, found[0].start))
            return True
        following = found[n + 1].start if n + 1 < len(found) else None
        pieces, wrong = read(found[n])
        if wrong:
            self._report(f"{found[n].path} cannot be read: {wrong}")
        self._left.extend(_behind(pieces, self.position - found[n].start))
        if found[n].kind == OPEN and following is None and not wrong:
            self._open = found[n]
            self._open_bytes = len(HEADER) + sum(len(pack(piece)) for piece in pieces)
        if not self._left and following is not None:
            self._left.append(self._skipped(Why.DAMAGED, following))
        return bool(self._left)

    def _skipped(self, why: Why, until: int) -> Missing:
        positions = until - self.position
        return Missing(0, why, positions, positions)


def _behind(pieces: Sequence[Piece], skip: int) -> list[Piece]:
    """Return the pieces without the first positions."""
    left: list[Piece] = []
    for piece in pieces:
        if skip <= 0:
            left.append(piece)
        elif skip < piece.positions and isinstance(piece, Printed):
            left.append(Printed(piece.at_ns, piece.data[skip:]))
        skip -= piece.positions
    return left


def extent(directory: Path) -> Extent:
    """Return what there is of a transcript."""
    for _ in range(_ATTEMPTS):
        found = segments(directory)
        try:
            size_bytes = sum(segment.path.stat().st_size for segment in found)
            return Extent(found[0].start if found else 0, end_of(found), size_bytes)
        except FileNotFoundError:
            continue
    return Extent(0, 0, 0)


def position_at(directory: Path, at_ns: int) -> int:
    """Return the position of the first thing that was printed at a time or later."""
    found = segments(directory)
    n = len(found) - 1
    while n > 0 and _begins_after(found[n], at_ns):
        n -= 1
    for segment in found[max(n, 0) :]:
        position = segment.start
        for piece in _read(segment):
            if piece.at_ns >= at_ns:
                return position
            position += piece.positions
    return end_of(found)


def _begins_after(segment: Segment, at_ns: int) -> bool:
    header = about_of(segment)
    first_ns = header.first_ns if header else next((piece.at_ns for piece in _read(segment)), at_ns)
    return first_ns >= at_ns


def _read(segment: Segment) -> Sequence[Piece]:
    try:
        return read(segment)[0]
    except FileNotFoundError:
        return []
