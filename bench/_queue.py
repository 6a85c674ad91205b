"""What a queue has to be able to do to stand in the table of `queues.py`, and ours."""

from __future__ import annotations

import itertools
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from agentd.mailbox.mailbox import Mailbox
from agentd.records import Draft, Receipt
from bench._boxes import BODY, opened

AGENTS = 50
_RUN = os.getpid()
_numbers = itertools.count()


class Missing(Exception):
    """Raised when a peer cannot be had here; its text is the reason."""


class Letter(NamedTuple):
    """A message as every queue gets it."""

    key: str
    to: str
    body: str


def letters(count: int, to: str | None = None) -> list[Letter]:
    """Return new messages, each with a key of its own, spread over the agents unless they have one recipient."""
    numbers = itertools.islice(_numbers, count)
    return [Letter(f"key-{_RUN}-{n}", to or f"agent-{n % AGENTS}", BODY) for n in numbers]


class Queue(Protocol):
    """A queue to send to."""

    async def send(self, batch: Sequence[Letter]) -> None:
        """Return when all of it is accepted, which is to mean: on the disk."""


class Inboxes(Queue, Protocol):
    """A queue whose messages can be taken by their recipient and acknowledged."""

    async def finish(self, to: str, count: int) -> None:
        """Take so many messages in one call and acknowledge them in another."""


class Ours:
    """The mailbox, in this process."""

    def __init__(self, box: Mailbox, *, keyed: bool) -> None:
        self._box = box
        self._keyed = keyed

    async def send(self, batch: Sequence[Letter]) -> None:
        """Put a batch."""
        drafts = [Draft(to, "sender", body, key=key if self._keyed else None) for key, to, body in batch]
        results = await self._box.put(drafts)
        assert all(isinstance(result, Receipt) and not result.duplicate for result in results)

    async def finish(self, to: str, count: int) -> None:
        """Reserve and acknowledge."""
        taken = await self._box.reserve(to, count, 1 << 30, 30.0)
        assert len(taken) == count
        assert not any(await self._box.ack(taken, to))


@asynccontextmanager
async def ours(place: Path) -> AsyncIterator[Ours]:
    """Give the mailbox, with a key for each message."""
    async with opened(place) as box:
        yield Ours(box, keyed=True)


@asynccontextmanager
async def ours_without_keys(place: Path) -> AsyncIterator[Ours]:
    """Give the mailbox as it is for those who give no keys."""
    async with opened(place) as box:
        yield Ours(box, keyed=False)
