"""What the tests of the mailbox share: a clock they turn, and a mailbox on it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

from agentd.config import MailboxConfig
from agentd.mailbox.mailbox import Mailbox
from agentd.records import Change, Delivery, Draft, MessageState, Receipt

START_NS = 1_800_000_000_000_000_000  # in 2027
ALL = list(MessageState)


class Clock:
    """A wall clock that can be set, and an elapsed time that can only go on."""

    def __init__(self) -> None:
        self.wall_ns = START_NS
        self.elapsed_ns = 5_000_000_000

    def forward(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)
        self.elapsed_ns += int(seconds * 1e9)

    def jump(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)

    def read_wall(self) -> int:
        return self.wall_ns

    def read_elapsed(self) -> int:
        return self.elapsed_ns


class Running(Clock):
    """A clock that runs, and can be put forward besides."""

    def read_wall(self) -> int:
        return self.wall_ns + time.monotonic_ns()

    def read_elapsed(self) -> int:
        return self.elapsed_ns + time.monotonic_ns()


class Seen(list[Change]):
    """The changes that were told, in order."""

    def __call__(self, changes: Sequence[Change]) -> None:
        self.extend(changes)

    def states(self, id_: str) -> list[MessageState]:
        return [change.state for change in self if change.id == id_]


def config(**settings: Any) -> MailboxConfig:
    return MailboxConfig(**({"reserve_mb": 0} | settings))


def open_box(
    directory: Path | str, clock: Clock | None = None, seen: Seen | None = None, **settings: Any
) -> AbstractAsyncContextManager[Mailbox]:
    ticks = clock or Clock()
    told = seen if seen is not None else Seen()
    return Mailbox.open(directory, config(**settings), told, ticks.read_wall, ticks.read_elapsed)


def draft(body: str = "hello", to: str = "a", sender: str = "s", **more: Any) -> Draft:
    return Draft(to=to, sender=sender, body=body, **more)


async def put_ids(box: Mailbox, *drafts: Draft) -> list[str]:
    """Put and return the ids; every one must be accepted."""
    results = await box.put(drafts)
    assert all(isinstance(result, Receipt) for result in results), results
    return [result.id for result in results if isinstance(result, Receipt)]


async def take(box: Mailbox, agent: str = "a", limit: int = 100, lease_s: float = 30.0) -> list[Delivery]:
    return await box.reserve(agent, limit, 1 << 30, lease_s)


def bodies(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.body for delivery in deliveries]


async def state_of(box: Mailbox, id_: str) -> MessageState:
    return (await box.get(id_)).state
