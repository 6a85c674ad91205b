"""Idempotency keys: which message a key of a sender already stands for."""

from __future__ import annotations

import hashlib

import apsw
import msgpack

from agentd.records import Draft


def digest(sender: str, agent: str, key: str) -> bytes:
    """Return a key's name in the tables; each sender has its own keys, for each recipient."""
    packed: bytes = msgpack.packb([sender, agent, key])
    return hashlib.blake2b(packed, digest_size=16).digest()


def digest_of(draft: Draft) -> bytes | None:
    """Return the name of a draft's key, None when it has none."""
    return None if draft.key is None else digest(draft.sender, draft.to, draft.key)


class Keys:
    """Two generations of keys; the older one is dropped whole, so a key lives from one window to two."""

    def __init__(self, connection: apsw.Connection, window_ns: int, now_ns: int) -> None:
        self._connection = connection
        self._window_ns = window_ns
        self._read(now_ns)

    def find(self, name: bytes) -> int | None:
        """Return the seq of the message that a key stands for."""
        sql = "SELECT seq FROM idem0 WHERE k=?1 UNION ALL SELECT seq FROM idem1 WHERE k=?1 LIMIT 1"
        seq: int | None = self._connection.execute(sql, (name,)).get
        return seq

    def remember(self, name: bytes, seq: int) -> None:
        """Let a key stand for a message."""
        self._connection.execute(f"INSERT OR IGNORE INTO idem{self._generation}(k, seq) VALUES(?, ?)", (name, seq))

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


def get_meta(connection: apsw.Connection, name: str, default: int) -> int:
    """Return a number that the shard keeps about itself."""
    value = connection.execute("SELECT value FROM meta WHERE name=?", (name,)).get
    return default if value is None else int(value)


def put_meta(connection: apsw.Connection, name: str, value: int) -> None:
    """Keep a number in the shard."""
    connection.execute("INSERT OR REPLACE INTO meta(name, value) VALUES(?, ?)", (name, value))
