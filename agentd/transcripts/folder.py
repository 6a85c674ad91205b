"""The files of one agent's transcript: which there are, and what stands in one. Everything here blocks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from agentd.errors import InvalidValue
from agentd.private import open_private
from agentd.transcripts.segment import (
    HEADER_Z_BYTES,
    MOST_POSITIONS,
    About,
    Damaged,
    Piece,
    about,
    decompress,
    parse,
    positions_of,
)

OPEN: Final = ".log"
FULL: Final = ".log.z"
BAD: Final = ".bad"
_NAME: Final = re.compile(r"([0-9]{15})(\.log|\.log\.z|\.bad)")


class Segment(NamedTuple):
    """One file of a transcript."""

    start: int  # the position of its first byte
    kind: str
    path: Path


class Extent(NamedTuple):
    """What there is of a transcript."""

    first: int  # the position of the first byte that is kept
    end: int  # the one behind the last
    size_bytes: int  # of the files


def segment_at(directory: Path, start: int, kind: str) -> Segment:
    """Return the segment of a kind that begins at a position."""
    return Segment(start, kind, directory / f"{start:015d}{kind}")


def segments(directory: Path) -> list[Segment]:
    """Return the segments in order; of one that is being compressed, the compressed file."""
    try:
        names = [path.name for path in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    found: dict[int, Segment] = {}
    for name in sorted(names):  # .bad, .log, .log.z
        if match := _NAME.fullmatch(name):
            found[int(match[1])] = Segment(int(match[1]), match[2], directory / name)
    return [found[start] for start in sorted(found)]


def read(segment: Segment) -> tuple[list[Piece], str]:
    """Return what stands in a segment as far as it is whole, and what is wrong with it; nothing, for a torn end.

    Raises FileNotFoundError when it is gone, compressed or removed.
    """
    if segment.kind == BAD:
        return [], "it was set aside"
    try:
        data = content(segment.path)
        if segment.kind == FULL:
            return decompress(data), ""
        parsed = parse(data)
    except Damaged as error:
        return [], str(error)
    return parsed.pieces, "a record is not as it was written" if parsed.damaged else ""


def content(path: Path, position: int = 0, most_bytes: int = -1) -> bytes:
    """Return the bytes of a file from a place in it; raises FileNotFoundError, Damaged for any other trouble."""
    try:
        descriptor = open_private(str(path), os.O_RDONLY)
        with os.fdopen(descriptor, "rb") as file:
            file.seek(position)
            return file.read(most_bytes)
    except (OSError, InvalidValue) as error:
        if not os.path.lexists(path):
            raise FileNotFoundError(path) from None
        raise Damaged(str(error)) from None


def about_of(segment: Segment) -> About | None:
    """Return the header of a full segment; None when it has none that can be read."""
    if segment.kind != FULL:
        return None
    with suppress(Damaged, FileNotFoundError):
        return about(content(segment.path, most_bytes=HEADER_Z_BYTES))
    return None


def end_of(found: Sequence[Segment]) -> int:
    """Return the position behind the last of the segments."""
    if not found:
        return 0
    last = found[-1]
    if header := about_of(last):
        return header.end
    pieces, wrong = read(last)
    # What cannot be read is taken for as long as it may be: so no position is ever given twice.
    return last.start + (max(last.path.stat().st_size, MOST_POSITIONS) if wrong else positions_of(pieces))
