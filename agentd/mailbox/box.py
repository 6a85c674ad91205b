"""Where each message stands: an index kept behind the sends, for an entry a message at once would halve their rate."""

from __future__ import annotations

from typing import Any, Final

import apsw

from agentd.mailbox.keys import Keys, get_meta, put_meta
from agentd.mailbox.schema import FILL_BOX

TAIL_MESSAGES: Final = 20_000  # sent and not filed; more would make the first reader wait too long
SMALL_TAIL_MESSAGES: Final = 1000  # not worth a commit of their own when nothing else happens

# Grouped by inbox and sender at once, SQLite sorts all rows of the table, which takes four times as long.
_INBOXES: Final = (
    "SELECT agent, min(sender), count(*), sum(size), min(sender)=max(sender) FROM box WHERE place<3 GROUP BY agent"
)
_SENDERS: Final = "SELECT agent, sender, count(*), sum(size) FROM box WHERE agent=? AND place<3 GROUP BY sender"


class Box:
    """The table `box` and the keys of one shard; complete up to `filed`, and complete once `file` was called."""

    def __init__(self, connection: apsw.Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._settled = self.filed = get_meta(connection, "filed", 0)
        self.unfiled = 0  # messages at most
        self.soonest_ns: int | None = None  # when the first of them expires
        keys.read_tail(self.filed)

    def file(self, last_seq: int) -> None:
        """Enter every message up to a seq, in the transaction that is open."""
        if last_seq > self.filed:
            self._connection.execute(FILL_BOX, (self.filed,))
            self._keys.file()
            put_meta(self._connection, "filed", last_seq)
            self.filed = last_seq

    def filed_by_hand(self, last_seq: int) -> None:
        """Take in that what came up to a seq since the box was complete was entered by who brought it."""
        if last_seq > self.filed:
            put_meta(self._connection, "filed", last_seq)
            self.filed = last_seq

    def settle(self, last_seq: int, added: int, soonest_ns: int | None) -> None:
        """Take in that the transaction was committed; it added so many messages, of which one expires first."""
        if self.filed != self._settled:
            self._keys.settle()
        self._settled = self.filed
        if self.filed == last_seq:
            self.unfiled, self.soonest_ns = 0, None
            return
        self.unfiled += added
        if soonest_ns is not None:
            self.soonest_ns = min(soonest_ns, self.soonest_ns or soonest_ns)

    def back(self) -> None:
        """Take in that the transaction was undone."""
        if self.filed != self._settled:
            self._keys.back()
        self.filed = self._settled

    def waiting(self) -> list[tuple[str, str, int, int]]:
        """Return inbox, sender, number and bytes of all messages that wait; of those that are filed."""
        found: list[Any] = []
        for *row, of_one_sender in self._connection.execute(_INBOXES).fetchall():
            found += [tuple(row)] if of_one_sender else self._connection.execute(_SENDERS, (row[0],))
        return found
