"""What the writer knows of one agent's transcript: it appends, compresses and removes. Everything here blocks."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agentd.failpoint import failpoint
from agentd.private import open_private, private_dir
from agentd.transcripts.folder import BAD, FULL, OPEN, Extent, Segment, content, end_of, segment_at, segments
from agentd.transcripts.segment import FULL_BYTES, HEADER, Damaged, Newer, Piece, compress, pack, parse, positions_of

WORTH_COMPRESSING_BYTES: Final = 4096  # a block of the disk


class Track:
    """One agent's files; used by one thread at a time."""

    def __init__(self, directory: Path, report: Callable[[str], None]) -> None:
        """Find the files; one that a crash left half done is finished. Raises OSError, InvalidValue."""
        self._directory = directory
        self._report = report
        self._sizes: dict[int, int] = {}  # of each full segment's file
        self._written_ns: dict[int, int] = {}  # when it was last written
        self._open: Segment | None = None
        self._open_bytes = 0  # of the open segment's file
        self._open_positions = 0
        self._open_times_ns = (0, 0)
        self._find()

    @property
    def size_bytes(self) -> int:
        """Return what the files take on the disk."""
        return sum(list(self._sizes.values())) + self._open_bytes

    @property
    def extent(self) -> Extent:
        """Return what there is; may be asked for while another thread writes."""
        return Extent(min(list(self._sizes), default=self._end - self._open_positions), self._end, self.size_bytes)

    @property
    def end(self) -> int:
        """Return the position behind the last one."""
        return self._end

    @property
    def oldest_ns(self) -> int | None:
        """Return when the oldest segment that may be removed was last written; None when there is none."""
        return self._written_ns[min(self._sizes)] if self._sizes else None

    # -- finding

    def _find(self) -> None:
        found = segments(self._directory)
        self._remove_unfinished()
        for segment in found:
            if segment.kind != OPEN:
                self._count(segment)
        if found and found[-1].kind == OPEN:
            self._take_up(found[-1])
        for segment in found[:-1]:
            if segment.kind == OPEN:  # a crash came between its end and its compression
                self._compress_old(segment)
        self._end = self._open.start + self._open_positions if self._open else end_of(segments(self._directory))

    def _remove_unfinished(self) -> None:
        if not self._directory.is_dir():
            return
        for left in self._directory.glob(f"*{FULL}.part"):
            left.unlink(missing_ok=True)
        for whole in self._directory.glob(f"*{FULL}"):
            whole.with_suffix("").unlink(missing_ok=True)

    def _count(self, segment: Segment) -> None:
        info = segment.path.stat()
        self._sizes[segment.start] = info.st_size
        self._written_ns[segment.start] = info.st_mtime_ns

    def _take_up(self, segment: Segment) -> None:
        """Go on with what an earlier process began: without its torn end, or behind it when it is damaged."""
        try:
            parsed = parse(content(segment.path))
        except Newer as error:
            self._report(f"{segment.path} was left alone: {error}")
            self._count(segment)
            return
        except Damaged as error:
            self._set_aside(segment, str(error))
            return
        if parsed.damaged:
            self._set_aside(segment, "a record is not as it was written")
            return
        if parsed.torn:
            os.truncate(segment.path, parsed.whole_bytes)
        self._open = segment
        self._open_bytes = parsed.whole_bytes
        self._open_positions = positions_of(parsed.pieces)
        times = [piece.at_ns for piece in parsed.pieces] or [0]
        self._open_times_ns = (times[0], times[-1])

    def _set_aside(self, segment: Segment, why: str) -> None:
        aside = segment_at(self._directory, segment.start, BAD)
        segment.path.rename(aside.path)
        self._count(aside)
        self._report(f"a part of a transcript is damaged ({why}); it is kept as {aside.path}")

    def _compress_old(self, segment: Segment) -> None:
        try:
            parsed = parse(content(segment.path))
        except Damaged as error:
            self._set_aside(segment, str(error))
            return
        if parsed.damaged or parsed.torn or not parsed.pieces:
            self._set_aside(segment, "a record is not as it was written")
            return
        times = parsed.pieces[0].at_ns, parsed.pieces[-1].at_ns
        self._compress(segment, segment.start + positions_of(parsed.pieces), times)

    # -- writing

    def append(self, pieces: Sequence[Piece]) -> None:
        """Write pieces; raises OSError, and those that are not behind `end` then were not written."""
        for piece in pieces:
            if self._open_positions >= FULL_BYTES:
                self.close()
            self._write(piece)

    def _write(self, piece: Piece) -> None:
        if self._open and not self._as_we_left_it(self._open):
            self._leave()
        segment = self._open or self._begun()
        record = pack(piece)
        data = record if self._open_bytes else HEADER + record
        # No descriptor is kept: there may be a thousand agents, and this is done a few times a second for each.
        descriptor = open_private(str(segment.path), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            _append(descriptor, data, self._open_bytes)
        finally:
            os.close(descriptor)
        first_ns = self._open_times_ns[0] if self._open_positions else piece.at_ns
        self._open = segment
        self._open_bytes += len(data)
        self._open_positions += piece.positions
        self._open_times_ns = (first_ns, piece.at_ns)
        self._end += piece.positions

    def _as_we_left_it(self, segment: Segment) -> bool:
        try:
            return segment.path.stat().st_size == self._open_bytes
        except OSError:
            return False

    def _leave(self) -> None:
        """Write no more into the open segment; the next one begins behind it."""
        self._open = None
        self._open_bytes = self._open_positions = 0

    def _begun(self) -> Segment:
        private_dir(str(self._directory.parent))
        private_dir(str(self._directory))
        return segment_at(self._directory, self._end, OPEN)

    def close(self) -> None:
        """Compress the open segment, if that saves anything; raises OSError, and it stays as it is."""
        if self._open is None or self._open_bytes < WORTH_COMPRESSING_BYTES:
            return
        if self._as_we_left_it(self._open):
            self._compress(self._open, self._end, self._open_times_ns)
        self._leave()

    def _compress(self, segment: Segment, end: int, times_ns: tuple[int, int]) -> None:
        try:
            data = compress(content(segment.path), end, *times_ns)
        except Damaged as error:  # it was there a moment ago
            raise OSError(str(error)) from error
        full = segment_at(self._directory, segment.start, FULL)
        part = full.path.with_name(full.path.name + ".part")
        try:
            with os.fdopen(open_private(str(part), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
                file.write(data)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        os.utime(part, ns=(times_ns[1], times_ns[1]))
        failpoint("transcripts.before_rename")
        part.rename(full.path)
        failpoint("transcripts.after_rename")
        segment.path.unlink()
        self._count(full)

    # -- removing

    def remove_oldest(self) -> int:
        """Remove the oldest segment but never the one that is written to; returns its size."""
        start = min(self._sizes)
        for kind in (FULL, BAD, OPEN):
            segment_at(self._directory, start, kind).path.unlink(missing_ok=True)
        del self._written_ns[start]
        size_bytes = self._sizes.pop(start)
        self._keep_the_end()
        return size_bytes

    def remove_open(self, before_ns: int) -> bool:
        """Remove what the open segment holds if nothing was written since a time; tells whether that was so."""
        segment = self._open
        if segment is None or not self._open_positions or self._open_times_ns[1] >= before_ns:
            return False
        segment.path.unlink(missing_ok=True)
        self._leave()
        self._keep_the_end()
        return True

    def _keep_the_end(self) -> None:
        """Leave an empty segment where nothing else says which position comes next."""
        if self._open or self._sizes:
            return
        segment = self._begun()
        with os.fdopen(open_private(str(segment.path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(HEADER)
        self._open, self._open_bytes = segment, len(HEADER)

    def remove(self) -> None:
        """Remove everything."""
        for segment in segments(self._directory):
            segment.path.unlink(missing_ok=True)
        self._remove_unfinished()
        with suppress(FileNotFoundError):
            self._directory.rmdir()


def _append(descriptor: int, data: bytes, before_bytes: int) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.ftruncate(descriptor, before_bytes)
        raise
