"""What the tests of transcripts on disk share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentd.config import TranscriptsConfig
from agentd.transcripts.reading import Reader
from agentd.transcripts.segment import Missing, Piece, Printed, Why
from agentd.transcripts.store import Store
from agentd.transcripts.waiting import Heard

AGENT = "1abc"


def heard(*entries: bytes | Why, at_ns: int = 1, **more: bool | int) -> Heard:
    size = sum(len(entry) for entry in entries if isinstance(entry, bytes))
    return Heard(at_ns, list(entries), size, **more)  # type: ignore[arg-type]


def fail(sentence: str) -> None:
    raise AssertionError(sentence)


def store(place: Path, report: Callable[[str], None] = fail, **settings: float) -> Store:
    return Store(place, TranscriptsConfig(**{"reserve_mb": 0, **settings}), lambda escaped: escaped, report)


def read_all(place: Path, position: int = 0, report: Callable[[str], None] = fail, size: int = 100_000) -> list[Piece]:
    """Return all pieces from a position on, read in pages; what was printed side by side is joined."""
    reader = Reader(place / AGENT, position, report)
    found: list[Piece] = []
    while True:
        page = reader.next(size)
        if not page.pieces:
            return _joined(found)
        assert sum(len(piece.data) for piece in page.pieces if isinstance(piece, Printed)) <= size
        assert page.next == reader.position
        found += page.pieces


def _joined(pieces: list[Piece]) -> list[Piece]:
    found: list[Piece] = []
    for piece in pieces:
        if found and isinstance(piece, Printed) and isinstance(found[-1], Printed):
            found[-1] = Printed(found[-1].at_ns, found[-1].data + piece.data)
        else:
            found.append(piece)
    return found


def printed(place: Path, position: int = 0, **more: object) -> bytes:
    """Return everything that was printed from a position on; nothing is missing there."""
    pieces = read_all(place, position, **more)  # type: ignore[arg-type]
    gaps = [piece for piece in pieces if isinstance(piece, Missing)]
    assert gaps == []
    return b"".join(piece.data for piece in pieces if isinstance(piece, Printed))


def files(place: Path) -> list[str]:
    return sorted(path.name for path in (place / AGENT).iterdir())
