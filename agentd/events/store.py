"""Events on disk, so that a reader can go on from an id whatever happened to the daemon. Everything here blocks.

    events/<first id, 20 digits>.jsonl    one event a line: {"id": n, "type": t, "at_ns": n, "data": {...}}
    events/ended                          the id of the last event, when the daemon ended in order

A line that was cut off by a crash is skipped; readers see by the ids that something is missing. Nothing is flushed:
what a power failure takes is a gap like any other.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from agentd.private import open_private, private_dir
from agentd.records import Event

SEGMENT_BYTES: Final = 1_000_000
_SUFFIX: Final = ".jsonl"
_ENDED: Final = "ended"
_encode = msgspec.json.Encoder(enc_hook=str).encode
_decoder = msgspec.json.Decoder(Event)


class EventStore:
    """The files of one daemon's events; one writer, any number of readers."""

    def __init__(self, directory: str, keep_bytes: int) -> None:
        self._directory = Path(private_dir(directory))
        self._keep_bytes = keep_bytes
        self._file: int | None = None
        self._file_bytes = 0
        self._cut = False  # a line of the last write may be cut off
        self._stored_id = self._last_id()

    @property
    def last_id(self) -> int:
        """Return the newest id on disk, 0 when there is none."""
        return self._stored_id

    def take_end(self) -> bool:
        """Tell whether the daemon before ended in order, after its last event; asked once."""
        path = self._directory / _ENDED
        try:
            text = path.read_text()
            path.unlink()
        except FileNotFoundError:
            return False
        return text.strip() == str(self._stored_id)

    def append(self, events: Sequence[Event]) -> None:
        """Write events; after an OSError nothing, or the beginning, of them is there, and they may be given again."""
        data = b"".join(_encode(event) + b"\n" for event in events)
        if self._file is None or self._file_bytes + len(data) > SEGMENT_BYTES:
            self._begin(events[0].id)
        if self._cut:  # a file of this name is there already when these events are given again
            data = b"\n" + data
        self._cut = True
        try:
            self._write(data)
        except OSError:
            self.close()
            raise
        self._cut = False
        self._stored_id = events[-1].id

    def end(self) -> None:
        """Leave word that the last event is on disk."""
        self.close()
        descriptor = open_private(str(self._directory / _ENDED), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{self._stored_id}\n")

    def close(self) -> None:
        """Close the file that is written to."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def after(self, id_: int) -> list[Event]:
        """Return the next stored events with a larger id, those of one file at most; none when there is none."""
        found = self._segments()
        behind = [n for n, path in enumerate(found) if _first_id(path) <= id_ + 1]
        for path in found[behind[-1] if behind else 0 :]:
            events = [event for event in _events(path) if event.id > id_]
            if events:
                return events
        return []

    def first_id(self) -> int:
        """Return the oldest id on disk, 0 when there is none."""
        return next((event.id for path in self._segments() for event in _events(path)), 0)

    def _last_id(self) -> int:
        for path in reversed(self._segments()):
            if events := _events(path):
                return events[-1].id
        return 0

    def _segments(self) -> list[Path]:
        return sorted(path for path in self._directory.glob(f"*{_SUFFIX}") if path.stem.isdecimal())

    def _begin(self, first_id: int) -> None:
        self.close()
        path = str(self._directory / f"{first_id:020}{_SUFFIX}")
        self._file = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._file_bytes = os.fstat(self._file).st_size
        self._make_room()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view and self._file is not None:
            written = os.write(self._file, view)
            self._file_bytes += written
            view = view[written:]

    def _make_room(self) -> None:
        """Remove the oldest files beyond what is kept; the one that is written to stays."""
        found = self._segments()
        sizes = [path.stat().st_size for path in found]
        left = sum(sizes)
        for path, size in zip(found[:-1], sizes, strict=False):
            if left <= self._keep_bytes:
                return
            path.unlink()
            left -= size


def _first_id(path: Path) -> int:
    return int(path.stem)


def _events(path: Path) -> list[Event]:
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:  # removed since it was listed
        return []
    return list(_decoded(lines))


def _decoded(lines: Iterable[bytes]) -> Iterable[Event]:
    for line in lines:
        try:
            yield _decoder.decode(line)
        except msgspec.DecodeError:
            continue  # cut off, or damaged: its id is missing, which is told as a gap
