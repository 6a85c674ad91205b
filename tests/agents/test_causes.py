"""What an agent's next message is caused by: the last one it received, for a while, a restart included."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentd.agents.causes import Causes
from agentd.agents.loops import Cause
from agentd.config import MailboxConfig
from agentd.mailbox.mailbox import Mailbox
from agentd.records import OPERATOR, Change, Draft, Receipt

pytestmark = pytest.mark.anyio
WINDOW_S = 600.0


class World:
    """A mailbox, and what listens to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.wall_ns = 1_800_000_000_000_000_000
        self.told: list[Causes] = []

    def open(self) -> AbstractAsyncContextManager[Mailbox]:
        return Mailbox.open(self.directory, MailboxConfig(reserve_mb=0), self.tell, lambda: self.wall_ns)

    def tell(self, changes: Sequence[Change]) -> None:
        for causes in self.told:
            causes.on_changes(changes)

    def causes(self, box: Mailbox) -> Causes:
        self.told = [Causes(box, WINDOW_S, lambda: self.wall_ns)]
        return self.told[0]

    def forward(self, seconds: float) -> None:
        self.wall_ns += int(seconds * 1e9)


async def put(box: Mailbox, to: str = "ann", **more: object) -> str:
    [result] = await box.put([Draft(to=to, sender="bob", body="x", **more)])  # type: ignore[arg-type]
    assert isinstance(result, Receipt)
    return result.id


async def test_it_is_the_last_message_for_as_long_as_the_window(tmp_path: Path):
    world = World(tmp_path / "box")
    async with world.open() as box:
        causes = world.causes(box)
        first = await put(box, trace="m0", hops=3)
        assert await causes.of("ann") is None  # it waits still
        taken = await box.reserve("ann", 1, 1000, 30.0)
        assert await causes.of("ann") == Cause(first, "bob", "m0", 3, world.wall_ns)  # an agent may answer so early
        world.forward(1.0)
        await box.deliver(taken)
        second = await put(box)
        taken = await box.reserve("ann", 1, 1000, 30.0)
        cause = await causes.of("ann")
        assert cause == Cause(second, "bob", second, 0, world.wall_ns)
        world.forward(WINDOW_S)
        assert await causes.of("ann") == cause
        world.forward(0.001)
        assert await causes.of("ann") is None
        await box.ack([second], "ann")
        assert await causes.of("ann") == cause  # just acknowledged: it was just read


async def test_a_restart_forgets_nothing(tmp_path: Path):
    world = World(tmp_path / "box")
    async with world.open() as box:
        first = await put(box, hops=5, trace="m0")
        await put(box, to="eve")
        await box.deliver(await box.reserve("ann", 1, 1000, 30.0))
        accepted_ns = world.wall_ns
    world.forward(WINDOW_S)
    async with world.open() as box:
        causes = world.causes(box)
        assert await causes.of("eve") is None
        assert await causes.of("ann") == Cause(first, "bob", "m0", 5, accepted_ns)
        world.forward(0.001)
        assert await causes.of("ann") is None


async def test_the_operator_is_not_remembered(tmp_path: Path):
    world = World(tmp_path / "box")
    async with world.open() as box:
        causes = world.causes(box)
        await put(box, to=OPERATOR)
        await box.deliver(await box.reserve(OPERATOR, 1, 1000, 30.0))
        assert OPERATOR not in causes._last
