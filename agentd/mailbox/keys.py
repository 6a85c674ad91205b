"""Idempotency keys: which message a key of a sender already stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import apsw
import msgspec

from agentd.mailbox.rows import envelope_of
from agentd.records import Draft

_pack: Final = msgspec.msgpack.Encoder().encode
_FIND: Final = "SELECT i.k, i.seq FROM carray(?1) a CROSS JOIN idem{0} i ON i.k=a.value"


def digest(sender: str, agent: str, key: str) -> bytes:
    """Return a key's name in the tables; each sender has its own keys, for each recipient."""
    return hashlib.blake2b(_pack((sender, agent, key)), digest_size=16).digest()


def digest_of(draft: Draft) -> bytes | None:
    """Return the name of a draft's key, None when it has none."""
    return None if draft.key is None else digest(draft.sender, draft.to, draft.key)


class Keys:
    """Two generations of keys; the older one is dropped whole, so a key lives from one window to two.

    Those of messages that are not filed yet are in memory: the messages themselves have them on disk.
    """

    def __init__(self, connection: apsw.Connection, window_ns: int, now_ns: int) -> None:
        self._connection = connection
        self._window_ns = window_ns
        self._tail: dict[bytes, int] = {}
        self._filed: dict[bytes, int] = {}  # written in the transaction that is open
        self._found: dict[bytes, int] = {}  # of those that were looked up
        self._read(now_ns)

    def read_tail(self, filed: int) -> None:
        """Take up the keys of the messages that are not filed yet."""
        for seq, agent, sender, body in self._connection.execute(
            "SELECT seq, agent, sender, body FROM m WHERE seq>?", (filed,)
        ):
            try:
                key = envelope_of(body).key
            except (msgspec.DecodeError, TypeError):  # damaged; whoever reads the message is told
                continue
            if key is not None:
                self._tail.setdefault(digest(sender, agent, key), seq)

    def look_up(self, names: Iterable[bytes | None]) -> None:
        """Read which of these keys are in the tables, all at once; `find` answers for them."""
        self._found = self._read_tables(tuple(name for name in names if name))

    def known(self, names: Sequence[bytes]) -> list[int | None]:
        """Return the seqs of the messages that keys stand for."""
        filed = self._read_tables(tuple(names))
        return [self._tail.get(name) or self._filed.get(name) or filed.get(name) for name in names]

    def _read_tables(self, names: tuple[bytes, ...]) -> dict[bytes, int]:
        if not names:
            return {}
        array = (apsw.carray(names, flags=apsw.SQLITE_CARRAY_BLOB),)
        return {bytes(name): seq for sql in self._find for name, seq in self._connection.execute(sql, array)}

    def find(self, name: bytes) -> int | None:
        """Return the seq of the message that a key stands for."""
        return self._tail.get(name) or self._filed.get(name) or self._found.get(name)

    def remember(self, name: bytes, seq: int) -> None:
        """Let a key stand for a message that will be committed."""
        self._tail[name] = seq

    def restore(self, name: bytes, seq: int) -> None:
        """Let a key stand for an old message from now on, in the transaction that is open, unless it stands for one."""
        if name not in self._tail:
            sql = f"INSERT OR IGNORE INTO idem{self._generation}(k, seq) VALUES(?, ?)"
            self._connection.execute(sql, (name, seq))

    def forget(self, name: bytes) -> None:
        """Take back what was remembered for a command that failed."""
        del self._tail[name]

    def file(self) -> None:
        """Write the keys that are in memory into the table, in the transaction that is open."""
        sql = f"INSERT OR IGNORE INTO idem{self._generation}(k, seq) VALUES(?, ?)"
        self._connection.executemany(sql, sorted(self._tail.items()))
        self._filed.update(self._tail)
        self._tail.clear()

    def settle(self) -> None:
        """Take in that what was filed is committed."""
        self._filed.clear()

    def back(self) -> None:
        """Take in that what was filed was undone."""
        self._tail = self._filed | self._tail
        self._filed = {}

    def due(self, now_ns: int) -> bool:
        """Tell whether the window of the current generation is over."""
        return now_ns - self._rotated_ns >= self._window_ns

    def rotate(self, now_ns: int) -> None:
        """Forget the older generation and begin a new one, in one transaction."""
        older = 1 - self._generation
        with self._connection:
            self._connection.execute(f"DELETE FROM idem{older}")  # noqa: S608  a number of ours
            put_meta(self._connection, "key_generation", older)
            put_meta(self._connection, "keys_rotated_ns", now_ns)
        self._read(now_ns)

    def _read(self, now_ns: int) -> None:
        self._generation = get_meta(self._connection, "key_generation", 0)
        self._rotated_ns = get_meta(self._connection, "keys_rotated_ns", 0)
        if not self._rotated_ns:
            put_meta(self._connection, "keys_rotated_ns", now_ns)
            self._rotated_ns = now_ns
        older = 1 - self._generation
        empty = self._connection.execute(f"SELECT NOT EXISTS(SELECT 1 FROM idem{older})").get  # noqa: S608
        self._find = [_FIND.format(number) for number in (self._generation, older)[: 1 if empty else 2]]


def get_meta(connection: apsw.Connection, name: str, default: int) -> int:
    """Return a number that the shard keeps about itself."""
    value = connection.execute("SELECT value FROM meta WHERE name=?", (name,)).get
    return default if value is None else int(value)


def put_meta(connection: apsw.Connection, name: str, value: int) -> None:
    """Keep a number in the shard."""
    connection.execute("INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", (name, value))
