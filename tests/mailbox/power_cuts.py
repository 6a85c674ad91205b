"""What a power cut may leave of a recorded disk: all that was synced, and any part of the rest."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from faulty_vfs import TRUNCATE, Event, Folded, Version, apply

SECTOR_BYTES = 512


def build(place: Path, original: Path, folded: Folded, last: Event, dice: random.Random) -> None:
    """Make the mailbox's directory as one of the images that the disk may have at this moment."""
    place.mkdir(mode=0o700)
    shutil.copy2(original / "FORMAT", place)  # synced before the first shard is opened
    for name, entries in sorted(folded.names.items()):
        version = dice.choice(entries)
        if version is not None:
            _write(place / name, torn(version, dice))
    for name, data in sorted(last.journals.items()):
        (place / name).parent.mkdir(mode=0o700, exist_ok=True)
        kept = dice.choice([0, len(data), dice.randint(0, len(data))])
        if kept or dice.random() < 0.5:
            _write(place / name, data[:kept] + bytes(dice.choice([0, 0, len(data) - kept])))


def torn(version: Version, dice: random.Random) -> bytes:
    """Return a file's durable bytes with any part of what was on its way, down to single sectors."""
    data = bytearray(version.durable)
    share = dice.choice([0.0, 0.1, 0.5, 0.9, 1.0])  # of what arrived; each sector by itself in the middle ones
    for kind, offset, piece in version.pending:
        if kind == TRUNCATE:
            if dice.random() < share:
                apply(data, kind, offset, piece)
            continue
        start = 0
        while start < len(piece):
            end = min(len(piece), start + SECTOR_BYTES - (offset + start) % SECTOR_BYTES)
            if dice.random() < share:
                apply(data, kind, offset + start, piece[start:end])
            start = end
    return bytes(data)


def _write(path: Path, data: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(data)
