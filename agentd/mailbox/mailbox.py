"""The mailbox: which shard, nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, NotFound, StorageError, StorageFull, VersionMismatch
from agentd.mailbox.ids import seq_of, shard_hint
from agentd.mailbox.shard import Shard
from agentd.mailbox.writer import Writer
from agentd.paths import open_private, private_dir
from agentd.records import Change, Delivery, Draft, Message, MessageState, Receipt

FORMAT = 1
_SPACE_CHECK_S = 0.1

Settled = list[AgentdError | None]


def steady_wall_clock() -> Callable[[], int]:
    """Return a clock of wall time at its start that advances evenly, so that a jump of the wall clock ends no lease."""
    offset_ns = time.time_ns() - time.monotonic_ns()
    return lambda: time.monotonic_ns() + offset_ns


class Mailbox:
    """Durable inboxes over several shard files; an inbox lives in one of them."""

    def __init__(
        self,
        directory: Path,
        config: MailboxConfig,
        shards: Sequence[Shard],
        writers: Sequence[Writer],
        clock: Callable[[], int],
    ) -> None:
        self._directory = directory
        self._config = config
        self._shards = shards
        self._writers = writers
        self._clock = clock
        self._space_checked_s = 0.0
        self._recovered: list[Delivery] = []

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        directory: str | Path,
        config: MailboxConfig,
        on_changes: Callable[[Sequence[Change]], None],
        clock: Callable[[], int] | None = None,
    ) -> AsyncIterator[Mailbox]:
        """Open or create the mailbox; raises VersionMismatch, with nothing written, for a newer format.

        `on_changes` is called in the event loop after each commit.
        """
        place = Path(private_dir(str(directory)))
        count = _shard_count(place, config.shards)
        ticks = clock or steady_wall_clock()
        opened = [asyncio.to_thread(Shard, place, index, config, ticks) for index in range(count)]
        shards = await asyncio.gather(*opened)
        writers = [Writer(shard, on_changes) for shard in shards]
        mailbox = cls(place, config, shards, writers, ticks)
        try:
            mailbox._recovered = await mailbox._everywhere(Shard.recover)
            yield mailbox
        finally:
            for writer in writers:
                await writer.close()

    # -- sending

    async def put(self, drafts: Sequence[Draft]) -> list[Receipt | AgentdError]:
        """Accept messages; each receipt means its message is on disk. The results stand in the order of the drafts.

        One commit per shard touched. Raises StorageFull when the disk is below its reserve; nothing is accepted then.
        """
        if not drafts:
            return []
        self._check_space()
        by_shard: dict[int, list[int]] = {}
        for position, draft in enumerate(drafts):
            by_shard.setdefault(self._index(draft.to), []).append(position)
        results: list[Any] = [None] * len(drafts)
        pending = []
        for index, positions in by_shard.items():
            mine = [drafts[position] for position in positions]
            pending.append((positions, self._writers[index].submit(partial(Shard.put, drafts=mine), len(mine))))
        for positions, future in pending:
            for position, result in zip(positions, await _settled(future, len(positions)), strict=True):
                results[position] = result
        return results

    # -- taking

    async def reserve(self, agent: str, limit: int, max_bytes: int, lease_s: float) -> list[Delivery]:
        """Lease up to `limit` messages of an inbox; they are offered again when the lease runs out."""
        taken: list[Delivery] = await self._of(agent, lambda shard: shard.reserve(agent, limit, max_bytes, lease_s))
        return taken

    async def deliver(self, deliveries: Sequence[Delivery], detail: str = "") -> list[bool]:
        """Mark leased messages delivered; False for one whose lease was lost."""
        return await self._spread(deliveries, lambda shard, mine: shard.deliver(mine, detail))

    async def release(self, deliveries: Sequence[Delivery], detail: str = "released") -> list[bool]:
        """Put leased messages back without counting the attempt; False for one whose lease was lost."""
        return await self._spread(deliveries, lambda shard, mine: shard.release(mine, detail))

    async def nack(
        self,
        items: Sequence[Delivery | str],
        delay_s: float,
        detail: str,
        max_attempts: int,
        *,
        agent: str | None = None,
    ) -> Settled:
        """Put messages back, to be offered after the delay; after `max_attempts` they are dead letters."""
        return await self._spread(items, lambda shard, mine: shard.nack(mine, delay_s, detail, max_attempts, agent))

    async def ack(self, ids: Sequence[str], by: str, agent: str | None = None) -> Settled:
        """Mark messages as dealt with; with `agent`, of that inbox only. Never offered again once this returns."""
        return await self._spread(ids, lambda shard, mine: shard.ack(mine, by, agent))

    async def retry(self, ids: Sequence[str]) -> Settled:
        """Offer dead letters again."""
        return await self._spread(ids, lambda shard, mine: shard.retry(mine))

    async def drop(self, ids: Sequence[str]) -> Settled:
        """Delete dead letters."""
        return await self._spread(ids, lambda shard, mine: shard.drop(mine))

    # -- asking

    async def get(self, id_: str) -> Message:
        """Return a message; raises NotFound."""
        seq = seq_of(id_)
        if seq is not None:
            message: Message | None = await self._writer_of(id_).submit(lambda shard: shard.get(id_))
            if message is not None:
                return message
        raise NotFound(f"no message `{id_}`", hint="`agentd inbox --all` lists ids")

    async def inbox(self, agent: str, states: Sequence[MessageState], limit: int) -> list[Message]:
        """Return an inbox's oldest messages in these states."""
        found: list[Message] = await self._of(agent, lambda shard: shard.inbox(agent, states, limit))
        return found

    async def answer_to(self, agent: str, id_: str) -> Message | None:
        """Return the first message in an inbox that answers the one with the id."""
        found: Message | None = await self._of(agent, lambda shard: shard.answer_to(agent, id_))
        return found

    def depth(self, agent: str) -> int:
        """Return how many messages of an inbox are not delivered yet; from memory."""
        return self._shards[self._index(agent)].depth[agent]

    def depths(self) -> dict[str, int]:
        """Return the depth of every inbox that has one; from memory."""
        return {agent: n for shard in self._shards for agent, n in shard.depth.copy().items() if n}

    def next_due(self, agent: str) -> float | None:
        """Return in how many seconds something may be reserved; None when the inbox is empty. From memory."""
        if not self.depth(agent):
            return None
        wake_ns = self._shards[self._index(agent)].wake_ns.get(agent, 0)
        return max(0.0, (wake_ns - self._clock()) / 1e9)

    def recover(self) -> list[Delivery]:
        """Return, once, what was being delivered when the last daemon ended; release or nack it."""
        recovered, self._recovered = self._recovered, []
        return recovered

    @property
    def reports(self) -> list[str]:
        """Return what went wrong with the files, for the log and the operator."""
        return [report for shard in self._shards for report in shard.reports]

    def stats(self) -> dict[str, Any]:
        """Return shards, depth, commits and reports; from memory."""
        return {
            "shards": len(self._shards),
            "waiting": sum(self.depths().values()),
            "commits": sum(writer.commits for writer in self._writers),
            "reports": self.reports,
        }

    # -- inside

    def _index(self, agent: str) -> int:
        return crc32(agent.encode()) % len(self._shards)

    def _writer_of(self, id_: str) -> Writer:
        return self._writers[shard_hint(seq_of(id_) or 0) % len(self._writers)]

    async def _of(self, agent: str, command: Callable[[Shard], Any]) -> Any:
        return await self._writers[self._index(agent)].submit(command)

    async def _everywhere(self, command: Callable[[Shard], list[Any]]) -> list[Any]:
        parts = await asyncio.gather(*(writer.submit(command) for writer in self._writers))
        return [item for part in parts for item in part]

    async def _spread(self, items: Sequence[Any], command: Callable[[Shard, list[Any]], list[Any]]) -> list[Any]:
        """Run a command on each shard that has some of the items; the results stand in the order of the items."""
        by_writer: dict[Writer, list[int]] = {}
        for position, item in enumerate(items):
            id_ = item if isinstance(item, str) else item.message.id
            by_writer.setdefault(self._writer_of(id_), []).append(position)
        results: list[Any] = [None] * len(items)
        pending = []
        for writer, positions in by_writer.items():
            mine = [items[position] for position in positions]
            pending.append((positions, writer.submit(partial(_on_items, command, mine), len(mine))))
        for positions, future in pending:
            for position, result in zip(positions, await future, strict=True):
                results[position] = result
        return results

    def _check_space(self) -> None:
        now_s = time.monotonic()
        if now_s - self._space_checked_s < _SPACE_CHECK_S:
            return
        free_mb = shutil.disk_usage(self._directory).free // 1_000_000
        if free_mb < self._config.reserve_mb:
            raise StorageFull(
                f"{free_mb} MB are free and mailbox.reserve_mb = {self._config.reserve_mb}; nothing was accepted",
                hint="free some space; reading and acking still work",
            )
        self._space_checked_s = now_s


def _on_items(command: Callable[[Shard, list[Any]], list[Any]], items: list[Any], shard: Shard) -> list[Any]:
    return command(shard, items)


async def _settled(future: asyncio.Future[Any], count: int) -> list[Any]:
    """Return a shard's results; when its disk failed, that error for each of its items: other shards stand."""
    try:
        results: list[Any] = await future
    except StorageError as error:
        return [error] * count
    return results


def _shard_count(directory: Path, wanted: int) -> int:
    """Return how many shards the mailbox has; the number is fixed when it is created."""
    path = directory / "FORMAT"
    if not path.exists():
        _write_format(path, {"version": FORMAT, "shards": wanted, "created": int(time.time())})
        return wanted
    try:
        stored = json.loads(path.read_text())
        version, shards = int(stored["version"]), int(stored["shards"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{path} cannot be read ({error}); nothing was touched", hint="restore it from a copy"
        ) from None
    if version > FORMAT:
        raise VersionMismatch(
            f"the mailbox has format {version} and this agentd knows {FORMAT}; it was left untouched",
            hint="upgrade agentd",
        )
    return shards


def _write_format(path: Path, content: dict[str, Any]) -> None:
    partial = path.with_name("FORMAT.new")
    with os.fdopen(open_private(str(partial), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
