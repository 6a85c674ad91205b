"""Transcripts as the daemon uses them: taken in on the loop, written behind it, followed from any position."""

from __future__ import annotations

import random
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from keeping import AGENT

from agentd.config import TranscriptsConfig
from agentd.errors import InvalidValue
from agentd.transcripts.segment import Missing, Printed, Why
from agentd.transcripts.transcripts import Recording, Transcripts

pytestmark = pytest.mark.anyio
LIMIT_S = 30.0


class Told(list[tuple[str, dict[str, Any]]]):
    def __call__(self, event: str, data: dict[str, Any]) -> None:
        self.append((event, data))


@asynccontextmanager
async def opened(place: Path, told: Told | None = None, **settings: Any) -> AsyncIterator[Transcripts]:
    """Give transcripts that are written."""
    config = TranscriptsConfig(**{"reserve_mb": 0, **settings})
    heard = Told() if told is None else told
    opening = Transcripts.open(str(place), config, bytes.upper, heard)
    async with opening as transcripts, anyio.create_task_group() as tasks:
        await tasks.start(transcripts.run)
        yield transcripts
        tasks.cancel_scope.cancel()
    assert told is not None or heard == []


async def everything(transcripts: Transcripts, position: int = 0) -> bytes:
    page = await transcripts.page(AGENT, position, 100_000_000)
    return b"".join(piece.data for piece in page.pieces if isinstance(piece, Printed))


async def test_what_was_heard_is_read_at_once_and_after_the_end(tmp_path: Path):
    async with opened(tmp_path) as transcripts:
        transcripts.heard(AGENT, b"one ")
        transcripts.heard(AGENT, b"two ")
        assert await everything(transcripts) == b"ONE TWO "  # decoded, by whatever is given
        transcripts.heard(AGENT, b"three")
    async with opened(tmp_path) as transcripts:
        assert await everything(transcripts) == b"ONE TWO THREE"
        assert (await transcripts.glance(AGENT))[:2] == (0, 13)


async def test_it_is_on_disk_soon_without_being_asked_for(tmp_path: Path):
    async with opened(tmp_path) as transcripts:
        transcripts.heard(AGENT, b"one")
        path = tmp_path / AGENT / f"{0:015d}.log"
        with anyio.fail_after(1.0):
            while not path.exists() or b"ONE" not in path.read_bytes():
                await anyio.sleep(0.01)


async def test_who_reads_while_it_is_written_keeps_nothing_from_being_written(tmp_path: Path):
    """A reader that waits for a write makes one of its own; the task that writes must hear of what comes after."""
    begun, free = threading.Event(), threading.Event()

    def slowly(escaped: bytes) -> bytes:
        begun.set()
        assert free.wait(LIMIT_S)
        return escaped

    config = TranscriptsConfig(reserve_mb=0)
    opening = Transcripts.open(str(tmp_path), config, slowly, Told())
    async with opening as transcripts, anyio.create_task_group() as tasks:
        await tasks.start(transcripts.run)
        transcripts.heard(AGENT, b"one ")
        await anyio.to_thread.run_sync(begun.wait)
        tasks.start_soon(transcripts.page, AGENT, 0)
        await anyio.sleep(0.1)  # until it waits for the lock
        free.set()
        await anyio.sleep(0.3)  # until both have written
        transcripts.heard(AGENT, b"two")
        path = tmp_path / AGENT / f"{0:015d}.log"
        with anyio.fail_after(2.0):
            while b"two" not in path.read_bytes():
                await anyio.sleep(0.01)
        tasks.cancel_scope.cancel()


async def test_followers_come_and_go_and_each_sees_everything_once(tmp_path: Path):
    lines = [b"LINE %06d\n" % number for number in range(20_000)]
    over = False
    dice = random.Random(3)

    async def follower(seen: list[bytes], patience: int) -> None:
        """Follow, leave after some pages, come back to the position of the last one."""
        position = 0
        while position < sum(map(len, lines)):
            pages = 0
            async for page in transcripts.follow(AGENT, position, lambda: over):
                assert page.start == position
                seen += [piece.data for piece in page.pieces if isinstance(piece, Printed)]
                position, pages = page.next, pages + 1
                if pages >= patience:
                    break
            if over and not pages:
                break

    async with opened(tmp_path) as transcripts:
        with anyio.fail_after(LIMIT_S):
            views: list[list[bytes]] = [[] for _ in range(5)]
            async with anyio.create_task_group() as tasks:
                for number, view in enumerate(views):
                    tasks.start_soon(follower, view, number * 3 + 1)
                for line in lines:
                    transcripts.heard(AGENT, line)
                    if dice.random() < 0.005:
                        await anyio.sleep(0.01)
                over = True
                transcripts.ended(AGENT)
        for view in views:
            assert b"".join(view) == b"".join(lines)


async def test_a_gap_is_seen_once_by_who_follows_from_its_place(tmp_path: Path):
    async with opened(tmp_path) as transcripts:
        recording = Recording(transcripts, AGENT)
        recording.heard(b"a")
        recording.heard(b"")  # how tmux's listener tells that something was skipped
        recording.heard(b"b")
        recording.missed(Why.LOST)
        recording.heard(b"c")
        recording.close()
        pages = [page async for page in transcripts.follow(AGENT, 0, lambda: True)]
        pieces = [piece for page in pages for piece in page.pieces]
        assert [piece.why if isinstance(piece, Missing) else piece.data for piece in pieces] == [
            b"A",
            Why.PAUSED,
            b"B",
            Why.LOST,
            b"C",
        ]
        assert [page async for page in transcripts.follow(AGENT, pages[-1].next, lambda: True)] == []


async def test_a_disk_that_takes_no_more_is_told_of_once_and_followed_by_more(tmp_path: Path):
    told = Told()
    async with opened(tmp_path / "t", told) as transcripts:
        (tmp_path / "t").write_bytes(b"in the way")
        for _ in range(5):
            transcripts.heard(AGENT, b"lost")
            await transcripts.settle()
        assert [event for event, _ in told] == ["transcripts.stopped"]
        assert transcripts.stats()["trouble"]
        (tmp_path / "t").unlink()
        with anyio.fail_after(LIMIT_S):
            while len(told) < 2:
                await anyio.sleep(0.02)
        transcripts.heard(AGENT, b"kept")
        assert await everything(transcripts) == b"KEPT"
        [gap, _] = (await transcripts.page(AGENT, 0)).pieces
        assert (gap.why, gap.size_bytes) == (Why.DISK, 20)
    assert [event for event, _ in told] == ["transcripts.stopped", "transcripts.resumed"]


async def test_a_fault_of_ours_ends_nothing(tmp_path: Path):
    told = Told()

    def decode(escaped: bytes) -> bytes:
        return escaped if escaped != b"bad" else bytes(1 // 0)

    async with Transcripts.open(str(tmp_path), TranscriptsConfig(reserve_mb=0), decode, told) as transcripts:
        transcripts.heard(AGENT, b"bad")
        await transcripts.settle()
        transcripts.heard(AGENT, b"good")
        await transcripts.settle()
        assert await everything(transcripts) == b"good"
    assert "ZeroDivisionError" in told[0][1]["reason"]


async def test_turned_off(tmp_path: Path):
    async with opened(tmp_path / "t", enabled=False) as transcripts:
        transcripts.heard(AGENT, b"one")
        transcripts.missed(AGENT, Why.LOST)
        transcripts.ended(AGENT)
        transcripts.forget([AGENT])
        await transcripts.settle()
        with pytest.raises(InvalidValue, match="turned off"):
            transcripts.require()
    assert not (tmp_path / "t").exists()


async def test_forgotten_agents_are_removed(tmp_path: Path):
    async with opened(tmp_path) as transcripts:
        transcripts.heard(AGENT, b"one")
        await transcripts.settle()
        transcripts.forget([AGENT])
        await transcripts.settle()
        assert list(tmp_path.iterdir()) == []
