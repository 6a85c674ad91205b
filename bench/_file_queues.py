"""The queues of PyPI that keep their messages in a file.

None has an interface for an event loop: they are called straight in it, one after the other, which costs them least.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from bench._queue import Letter, Missing


class OneByOne:
    """A queue that commits each message by itself, a batch or not."""

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put

    async def send(self, batch: Sequence[Letter]) -> None:
        """Put each."""
        for letter in batch:
            self._put(letter.body)
        await asyncio.sleep(0)  # the other senders' turn


class LiteQueue:
    """litequeue, which can put several messages in one transaction; made to flush it."""

    def __init__(self, path: Path) -> None:
        from litequeue import LiteQueue as Queue

        self._queue = Queue(path)
        self._queue.conn.execute("PRAGMA synchronous=FULL")

    async def send(self, batch: Sequence[Letter]) -> None:
        """Put all in one transaction."""
        with self._queue.transaction():
            for letter in batch:
                self._queue.put(letter.body)
        await asyncio.sleep(0)


def _huey(place: Path) -> OneByOne:
    from huey.storage import SqliteStorage

    storage = SqliteStorage(filename=str(place / "huey.db"), fsync=True)
    return OneByOne(lambda body: storage.enqueue(body.encode()))


def _ack_queue(place: Path) -> OneByOne:
    from persistqueue import SQLiteAckQueue

    return OneByOne(SQLiteAckQueue(str(place / "queue")).put)


def _file_queue(place: Path) -> OneByOne:
    from persistqueue import Queue

    return OneByOne(Queue(str(place / "queue")).put)


def _opener(package: str, make: Callable[[Path], object]):
    @asynccontextmanager
    async def opened(place: Path) -> AsyncIterator[object]:
        try:
            queue = make(place)
        except ModuleNotFoundError as error:
            raise Missing(f"the package {package} is not installed") from error
        yield queue

    return opened


litequeue = _opener("litequeue", lambda place: LiteQueue(place / "queue.db"))
huey = _opener("huey", _huey)
ack_queue = _opener("persist-queue", _ack_queue)
file_queue = _opener("persist-queue", _file_queue)
