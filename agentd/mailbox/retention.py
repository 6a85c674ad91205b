"""How long messages are kept that have come to their end, and the removal of the others in small steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import apsw

from agentd.config import MailboxConfig
from agentd.errors import StorageError
from agentd.failpoint import failpoint
from agentd.mailbox.archive import Archive
from agentd.mailbox.ids import first_seq_at
from agentd.mailbox.lines import text_of_rows
from agentd.mailbox.rows import NUMBER, Row, intact, transitions
from agentd.mailbox.schema import DEAD, ENDED
from agentd.mailbox.transaction import Transaction
from agentd.records import MessageState

STEP_ROWS: Final = 100  # removed in one commit
BUSY_PAUSE_S: Final = 0.1  # between two steps while messages come
PASS_S: Final = 60.0  # from one pass over the inboxes to the next, while there is something to remove
REST_S: Final = 600.0  # likewise, while there is not
_DAY_NS: Final = 86_400_000_000_000
_FINAL: Final = tuple(NUMBER[state] for state in MessageState if state.final)

_NEXT_INBOX: Final = "SELECT min(agent) FROM box WHERE agent>?"
_NEWEST: Final = (
    "SELECT count(*), coalesce(sum(size), 0) FROM"  # noqa: S608  a number of ours
    f" (SELECT size FROM box WHERE agent=? AND place={ENDED} ORDER BY seq DESC LIMIT ?)"
)
_OLDEST: Final = "SELECT seq, size FROM box WHERE agent=? AND place=? AND seq<? ORDER BY seq LIMIT ?"


@dataclass(frozen=True, slots=True)
class Retire:
    """Remove messages that have come to their end, once they are in the archive."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    seqs: Sequence[int]
    ended_before_ns: int  # of the wall clock; a key's receipt names a message that can be looked at
    archive: Archive | None

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.seqs)

    def run(self, tx: Transaction) -> int:
        """Return how many were removed; what is damaged is left for people to look at."""
        found = tx.rows(self.seqs).values()
        rows = [row for row in found if row.state in _FINAL and _ended_ns(row) < self.ended_before_ns and intact(row)]
        if rows and self.archive:
            _keep_copy(self.archive, rows, tx.wall_ns)
        tx.drop([row.seq for row in rows])
        return len(rows)


def _keep_copy(archive: Archive, rows: Sequence[Row], wall_ns: int) -> None:
    day = time.strftime("%Y%m%d", time.gmtime(wall_ns // 10**9))
    try:
        archive.add(text_of_rows(rows), day)
    except OSError as error:
        raise StorageError(
            f"old messages could not be archived ({error.strerror or error}); they were kept",
            hint="free some space, or turn mailbox.archive off to have them removed without a copy",
        ) from error
    failpoint("retention.after_archive")


def _ended_ns(row: Row) -> int:
    later = transitions(row.hist)
    return later[-1].at_ns if later else row.ts


class Retention:
    """Goes over the inboxes of one shard, an inbox a step; used by the shard's thread."""

    def __init__(
        self, config: MailboxConfig, archive: Archive | None, report: Callable[[str], None], now_ns: int
    ) -> None:
        self._config = config
        self._archive = archive
        self._report = report
        self._agent = ""  # where the pass is
        self._stay = False  # there is more to remove from this inbox
        self._removed = 0  # in this pass
        self._due_ns = now_ns + int(PASS_S * 1e9)  # a start has other things to do

    def due_in_s(self, now_ns: int) -> float:
        """Return in how long there may be something to do."""
        return max(self._due_ns - now_ns, 0) / 1e9

    def begins(self, now_ns: int) -> bool:
        """Tell whether the next step begins a pass; it goes by the box, which should be complete."""
        return not self._agent and now_ns >= self._due_ns

    def next(self, connection: apsw.Connection, now_ns: int, wall_ns: int, *, idle: bool) -> Retire | None:
        """Return what to remove now, None when nothing is due."""
        if now_ns < self._due_ns:
            return None
        self._due_ns = now_ns + (0 if idle else int(BUSY_PAUSE_S * 1e9))
        if not self._stay:
            self._agent = connection.execute(_NEXT_INBOX, (self._agent,)).get or ""
        if not self._agent:
            self._due_ns = now_ns + int((PASS_S if self._removed else REST_S) * 1e9)
            self._removed = 0
            return None
        seqs = self._choose(connection, now_ns)
        self._stay = len(seqs) >= STEP_ROWS
        window_ns = int(self._config.key_window_s * 1e9)
        return Retire(seqs, wall_ns - window_ns, self._archive) if seqs else None

    def _choose(self, connection: apsw.Connection, now_ns: int) -> list[int]:
        """Return the oldest messages of the inbox that are too old, too many or too large together."""
        config = self._config
        youngest = first_seq_at(now_ns - int(config.key_window_s * 1e9), 0)
        too_old = min(youngest, _seq_before(now_ns, config.keep_days))
        count, size_bytes = connection.execute(_NEWEST, (self._agent, config.keep_messages + STEP_ROWS)).get
        chosen: list[int] = []
        oldest: list[Any] = connection.execute(_OLDEST, (self._agent, ENDED, youngest, STEP_ROWS)).fetchall()
        for seq, size in oldest:
            if seq >= too_old and count <= config.keep_messages and size_bytes <= config.keep_mb * 1_000_000:
                break
            chosen.append(seq)
            count, size_bytes = count - 1, size_bytes - size
        dead_before = min(youngest, _seq_before(now_ns, config.keep_dead_days))
        room = STEP_ROWS - len(chosen)
        dead = connection.execute(_OLDEST, (self._agent, DEAD, dead_before, room))
        return chosen + [seq for seq, _ in dead]

    def took(self, outcome: object) -> None:
        """Take in what came of a step."""
        if isinstance(outcome, int):
            self._removed += outcome
            self._stay = self._stay and outcome > 0
            return
        self._report(str(outcome))
        self._agent, self._stay, self._removed = "", False, 0
        self._due_ns += int(REST_S * 1e9)


def _seq_before(now_ns: int, days: float) -> int:
    """Return a seq below which everything was accepted more than so many days ago; nothing, when it is 0 days."""
    return first_seq_at(now_ns - int(days * _DAY_NS), 0) if days else 0
