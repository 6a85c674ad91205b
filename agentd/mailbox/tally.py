"""Counting what a shard holds, a few inboxes at a time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from agentd.mailbox.archive import files
from agentd.mailbox.ids import time_of
from agentd.mailbox.schema import DEAD, DELIVERED, ENDED, wal_of
from agentd.mailbox.transaction import Transaction

STEP_S: Final = 0.005  # after this another command may have its turn
_INBOX: Final = "SELECT place, count(*), sum(size), min(seq) FROM box WHERE agent=? GROUP BY place"


@dataclass(slots=True)
class Tally:
    """How much of what, and where to go on counting."""

    after: str | None = ""  # the last inbox that is counted, None when all are
    inboxes: int = 0
    waiting: int = 0  # accepted or being delivered
    delivered: int = 0
    ended: int = 0  # acknowledged or expired
    dead: int = 0
    size_bytes: int = 0
    oldest_waiting_ns: int | None = None

    def add(self, place: int, count: int, size_bytes: int, oldest_seq: int) -> None:
        """Count messages of one place of one inbox."""
        name = {DELIVERED: "delivered", ENDED: "ended", DEAD: "dead"}.get(place, "waiting")
        setattr(self, name, getattr(self, name) + count)
        self.size_bytes += size_bytes
        if name == "waiting":
            self.oldest_waiting_ns = min(self.oldest_waiting_ns or time_of(oldest_seq), time_of(oldest_seq))


@dataclass(frozen=True, slots=True)
class Count:
    """Go on with a tally for a moment."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    tally: Tally

    def run(self, tx: Transaction) -> Tally:
        """Return the tally, one inbox further at least."""
        tally, until_s = self.tally, time.monotonic() + STEP_S
        while tally.after is not None:
            tally.after = tx.connection.execute("SELECT min(agent) FROM box WHERE agent>?", (tally.after,)).get
            if tally.after is not None:
                tally.inboxes += 1
                rows: list[Any] = tx.connection.execute(_INBOX, (tally.after,)).fetchall()
                for row in rows:
                    tally.add(*row)
            if time.monotonic() > until_s:
                break
        return tally


def sizes(path: Path) -> dict[str, int]:
    """Return how many bytes a shard has on disk, by what they are for."""
    journals = sum(_size(file) for file in path.with_suffix("").glob("journal.*"))
    archived = sum(_size(file) for file in files(path.parent / "archive") if f"-{path.stem}-" in file.name)
    return {
        "file_bytes": _size(path),
        "log_bytes": _size(wal_of(path)),
        "journal_bytes": journals,
        "archive_bytes": archived,
    }


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # deleted while we look
        return 0
