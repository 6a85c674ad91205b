"""Giving room back to the disk."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import apsw

from agentd.errors import StorageFull
from agentd.mailbox.transaction import Transaction

COST = 1000  # as much as one commit takes: it has a turn of its own


@dataclass(frozen=True, slots=True)
class Compact:
    """Rewrite a shard's file without its gaps; not in a transaction, and nothing else is done meanwhile."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    cost: ClassVar[int] = COST

    def run(self, _tx: Transaction) -> None:
        """Refuse: the disk takes no writes, else the shard would have done this by itself."""
        raise StorageFull("a shard that is read-only cannot be compacted")


def vacuum(connection: apsw.Connection, path: Path, reserve_bytes: int) -> None:
    """Rewrite a file; raises StorageFull when the disk has no room for the copies that takes."""
    page_bytes = connection.execute("PRAGMA page_size").get
    used = connection.execute("PRAGMA page_count").get - connection.execute("PRAGMA freelist_count").get
    needed = 2 * used * page_bytes + reserve_bytes
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise StorageFull(
            f"compacting {path.name} needs {needed // 1_000_000} MB and {free // 1_000_000} are free;"
            " it was left as it is",
            hint="make room and do it again",
        )
    connection.execute("PRAGMA temp_store=FILE").fetchall()  # the copy is as large as the file
    try:
        connection.execute("VACUUM").fetchall()
    finally:
        connection.execute("PRAGMA temp_store=MEMORY").fetchall()
