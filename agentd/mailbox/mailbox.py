"""The mailbox: which shard, and what may be asked of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from pathlib import Path

import anyio

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, InvalidValue, NotFound, OverLimit, StorageError
from agentd.mailbox import commands
from agentd.mailbox.clock import SteadyClock, elapsed_ns
from agentd.mailbox.commands import COST_BYTES, Decide, Drop, Get, Outcomes, Reserve, Settle, Sweep, Target
from agentd.mailbox.compaction import Compact
from agentd.mailbox.health import Standing
from agentd.mailbox.ids import home_of, seq_of, shard_of, text_of, unknown
from agentd.mailbox.keys import digest_of
from agentd.mailbox.layout import prepare
from agentd.mailbox.lookups import Known, LastReceived, Origins, Thread
from agentd.mailbox.restoring import Restore
from agentd.mailbox.rows import Row
from agentd.mailbox.shard import OnChanges, Shard
from agentd.mailbox.tally import Count, Tally, sizes
from agentd.mailbox.verification import Checked, Verify
from agentd.records import Delivery, Draft, Message, MessageState, Receipt

A_FEW = 10
PAGE_BYTES = 1024 * 1024  # of bodies that are read on in one go
Taken = Delivery | str  # one attempt of a message, as it was handed out or as `id#attempt`; or the message by its id


class Mailbox:
    """Every message of every agent, on disk before anybody is told that it was accepted."""

    def __init__(
        self,
        shards: Sequence[Shard],
        config: MailboxConfig,
        clock: SteadyClock,
        reports: list[str],
        on_standing: list[Callable[[Standing], None]],
    ) -> None:
        self._shards = shards
        self._config = config
        self._clock = clock
        self.reports = reports  # what recovery found and did, one sentence each; the newest last
        self.on_standing = on_standing  # who is told when a shard's standing changes

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        directory: str | PathLike[str],
        config: MailboxConfig,
        on_changes: OnChanges,
        clock: Callable[[], int] = time.time_ns,
        elapsed: Callable[[], int] = elapsed_ns,
    ) -> AsyncIterator[Mailbox]:
        """Open the mailbox of a directory through recovery, and close it in the end.

        `on_changes` is called in the event loop after each commit, before the commit's callers go on. `clock` is the
        wall clock, `elapsed` one that nobody can set. Raises InvalidValue for a directory that is not private or a
        symlink in it, VersionMismatch for a newer mailbox, StorageError when the disk refuses.
        """
        place = Path(directory)
        steady = SteadyClock(clock, elapsed)
        reports: list[str] = []
        listeners: list[Callable[[Standing], None]] = []

        def on_standing(standing: Standing) -> None:
            for listener in listeners:
                listener(standing)

        layout, existed = await anyio.to_thread.run_sync(lambda: prepare(place, config.shards))
        shards = [
            Shard(index, path, config, steady, on_changes, reports.append, on_standing)
            for index, path in enumerate(layout.paths(place))
        ]
        try:
            await _open_all(shards, expected=existed)
            yield cls(shards, config, steady, reports, listeners)
        finally:
            with anyio.CancelScope(shield=True):
                await asyncio.gather(*(shard.close() for shard in shards))

    # -- sending

    async def put(self, drafts: Sequence[Draft]) -> list[Receipt | AgentdError]:
        """Accept messages; each receipt or error stands where its draft stood.

        A receipt means that the message is on disk. Messages to inboxes of one shard are accepted all or none, apart
        from those whose own error says why. After a StorageError it is not known; the same key makes it safe to send
        again: a known key gets the first receipt, marked `duplicate`.
        """
        if len(drafts) == 1:
            refusal = self._refusal(drafts[0])
            return [refusal] if refusal else await self._put(self._inbox(drafts[0].to), drafts)
        return await self._put_many(drafts)

    async def accepted_before(self, draft: Draft) -> Receipt | None:
        """Return the receipt that a draft's key stands for, marked `duplicate`; None when it stands for none."""
        name = digest_of(draft)
        [seq] = await self._inbox(draft.to).do(Known([name])) if name else [None]
        return None if seq is None else Receipt(text_of(seq), draft.to, duplicate=True)

    async def _put_many(self, drafts: Sequence[Draft]) -> list[Receipt | AgentdError]:
        results: list[Receipt | AgentdError | None] = [self._refusal(draft) for draft in drafts]
        groups: dict[int, list[int]] = {}
        for index, draft in enumerate(drafts):
            if results[index] is None:
                groups.setdefault(self._index_of(draft.to), []).append(index)
        puts = [self._put(self._shards[shard], [drafts[i] for i in indexes]) for shard, indexes in groups.items()]
        answers = [await puts[0]] if len(puts) == 1 else await asyncio.gather(*puts)
        for indexes, answer in zip(groups.values(), answers, strict=True):
            for index, result in zip(indexes, answer, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    async def _put(self, shard: Shard, drafts: Sequence[Draft]) -> list[Receipt | AgentdError]:
        cost = sum([1 + len(draft.body) // COST_BYTES for draft in drafts])
        try:
            return await shard.put(drafts, cost)
        except AgentdError as error:
            return [error] * len(drafts)

    def _refusal(self, draft: Draft) -> AgentdError | None:
        limit, body = self._config.max_body_bytes, draft.body
        try:
            size = len(body) if body.isascii() else len(body.encode())
        except UnicodeEncodeError:
            return InvalidValue("the body is not text that can be encoded as UTF-8", field="body")
        if size > limit:
            return OverLimit(
                f"the body has {size} bytes and {limit} are allowed",
                hint="put it into a file and send its path",
                field="body",
            )
        return None

    # -- taking

    async def reserve(
        self, agent: str, limit: int, max_bytes: int, lease_s: float, max_attempts: int | None = None
    ) -> list[Delivery]:
        """Take the next messages of an inbox: they are `delivering`, and offered again when the lease runs out.

        By priority, then by age; of one sender and priority, none passes an earlier one that is leased or in
        back-off. At least one if one is due, whatever `max_bytes`. With `max_attempts`, those whose last lease ran out
        become dead letters instead.
        """
        return await self._inbox(agent).do(Reserve(agent, limit, max_bytes, int(lease_s * 1e9), max_attempts))

    async def deliver(self, taken: Sequence[Taken], detail: str = "", agent: str | None = None) -> Outcomes:
        """Mark taken messages delivered; each whose attempt is over gets a Conflict and stays as it is.

        With `agent`, messages to another inbox get NotFound.
        """
        return await self._settle(taken, commands.deliver(detail), agent)

    async def release(self, deliveries: Sequence[Delivery]) -> Outcomes:
        """Give taken messages back as if they had not been taken; each whose attempt is over gets a Conflict."""
        return await self._settle(deliveries, commands.release())

    async def extend(self, taken: Sequence[Taken], lease_s: float, agent: str | None = None) -> Outcomes:
        """Hold taken messages for so long from now on; those whose lease ran out get a Conflict.

        With `agent`, messages to another inbox get NotFound.
        """
        return await self._settle(taken, commands.extend(self._clock.now_ns(), int(lease_s * 1e9)), agent)

    async def nack(
        self, taken: Sequence[Taken], delay_s: float, detail: str, max_attempts: int, agent: str | None = None
    ) -> Outcomes:
        """Have messages offered again after a delay, or make them dead letters after their last attempt.

        Deliveries whose attempt is over, and ids of messages nobody took, get a Conflict. With `agent`, messages to
        another inbox get NotFound.
        """
        due_ns = self._clock.now_ns() + int(delay_s * 1e9) if delay_s > 0 else 0
        return await self._settle(taken, commands.nack(due_ns, detail, max_attempts), agent)

    async def ack(self, taken: Sequence[Taken], by: str, agent: str | None = None) -> Outcomes:
        """Say that messages are done with; on return they are never offered again. Once more does no harm.

        With `agent`, messages to another inbox get NotFound.
        """
        return await self._settle(taken, commands.ack(by), agent)

    # -- dead letters

    async def retry(self, ids: Sequence[str]) -> Outcomes:
        """Offer dead letters again, with all their attempts before them."""
        return await self._settle(ids, commands.retry())

    async def drop(self, ids: Sequence[str]) -> Outcomes:
        """Delete dead letters."""
        return await self._each(ids, lambda targets: Drop([target.seq for target in targets]))

    # -- reading

    async def get(self, id_: str) -> Message:
        """Return a message; raises NotFound, or StorageError when it is damaged on disk."""
        seq = seq_of(id_)
        for turn in range(len(self._shards)):
            try:
                return await self._shards[self._nth_place(id_, turn)].do(Get(seq))
            except NotFound:
                continue
        raise unknown(id_)

    async def inbox(self, agent: str, states: Sequence[MessageState], limit: int) -> list[Message]:
        """Return an inbox's oldest messages in these states, oldest first; damaged ones are left out and counted."""
        return await self._inbox(agent).do(commands.Inbox(agent, states, limit))

    async def answer_to(self, agent: str, id_: str) -> Message | None:
        """Return the first message in an inbox that answers another one, None when there is none."""
        return await self._inbox(agent).do(commands.Answer(agent, id_))

    async def origins(self, ids: Iterable[str]) -> dict[str, Message]:
        """Return those of the messages that are there and whole, by id, without their bodies."""
        wanted = {_seq(id_) for id_ in ids} - {None}
        found: dict[str, Message] = {}
        for home in (True, False):  # a message may have moved from the shard that its id names
            left = sorted(seq for seq in wanted if seq is not None and text_of(seq) not in found)
            asked = {shard: [seq for seq in left if (shard_of(seq) == shard.index) is home] for shard in self._shards}
            answers = await asyncio.gather(*(shard.do(Origins(seqs)) for shard, seqs in asked.items() if seqs))
            found |= {message.id: message for answer in answers for message in answer}
        return found

    async def last_received(self, agent: str) -> Message | None:
        """Return the newest message that an agent has, None when it has none."""
        return await self._inbox(agent).do(LastReceived(agent))

    async def thread(self, first_id: str, limit: int, party: str | None = None) -> list[Message]:
        """Return the conversation that a message began, oldest first; of one `party`, what it sent or received."""
        asked = [shard.do(Thread(first_id, seq_of(first_id), party, limit)) for shard in self._shards]
        parts = await asyncio.gather(*asked)
        return sorted((message for part in parts for message in part), key=lambda message: message.id)[:limit]

    async def counts(self, agent: str) -> dict[MessageState, int]:
        """Return how many messages of an inbox are in which state."""
        return await self._inbox(agent).do(commands.Counts(agent))

    def depth(self, agent: str) -> int:
        """Return how many messages of an inbox wait or are being delivered."""
        return self._inbox(agent).inboxes.depth(agent)

    def depths(self) -> dict[str, int]:
        """Return the depth of every inbox that is not empty."""
        return {agent: depth for shard in self._shards for agent, depth in shard.inboxes.depths().items()}

    @property
    def inboxes_version(self) -> int:
        """Return a number that is another one whenever an inbox may have become deeper or less deep."""
        return sum(shard.inboxes.version for shard in self._shards)

    def next_due(self, agent: str) -> float | None:
        """Return in how many seconds a message of the inbox can be reserved, None when nothing waits there."""
        due_ns = self._inbox(agent).inboxes.next_due_ns(agent)
        return None if due_ns is None else max(due_ns - self._clock.now_ns(), 0) / 1e9

    @property
    def shards(self) -> range:
        """Return the indices of the shards."""
        return range(len(self._shards))

    @property
    def busy(self) -> bool:
        """Tell whether more than a few messages wait for the disk."""
        return any(shard.waiting > A_FEW for shard in self._shards)

    async def after(self, shard: int, seq: int, limit: int) -> list[Row]:
        """Return a shard's next rows in the order of their acceptance, damaged ones too."""
        return await self._shards[shard].do(commands.After(seq, limit, PAGE_BYTES))

    async def count_after(self, shard: int, seq: int, limit: int) -> int:
        """Return how many messages a shard accepted after a seq, counted up to a limit."""
        return await self._shards[shard].do(commands.CountAfter(seq, limit))

    def recover(self) -> list[Delivery]:
        """Return, once, what the last process was delivering when it ended; settle each, or its lease runs out."""
        found: list[Delivery] = []
        for shard in self._shards:
            found += shard.recovered
            shard.recovered = []
        return found

    async def sweep(self) -> int:
        """Give messages whose time to live ran out their end now; it also happens by itself."""
        return sum(await asyncio.gather(*(shard.do(Sweep()) for shard in self._shards)))

    def stats(self) -> dict[str, int]:
        """Return what is worth watching."""
        return {
            "shards": len(self._shards),
            "waiting": sum(self.depths().values()),
            "queued": sum(shard.waiting for shard in self._shards),
            "commits": sum(shard.commits for shard in self._shards),
            "damaged": sum(shard.damaged for shard in self._shards),
            "reports": len(self.reports),
        }

    def standings(self) -> list[Standing]:
        """Return how each shard is."""
        return [shard.standing for shard in self._shards]

    # -- looking after it

    async def tally(self, shard: int) -> Tally:
        """Return how much a shard holds; others have their turns between the steps of counting."""
        tally = Tally()
        while tally.after is not None:
            tally = await self._shards[shard].do(Count(tally))
        return tally

    async def sizes(self, shard: int) -> dict[str, int]:
        """Return how many bytes a shard has on disk, by what they are for."""
        return await anyio.to_thread.run_sync(sizes, self._shards[shard].path)

    async def verify(self, shard: int, cursor: str) -> Checked:
        """Check a small part of a shard; the answer says where to go on."""
        return await self._shards[shard].do(Verify(cursor))

    async def restore(self, rows: Sequence[Row]) -> list[bool | AgentdError]:
        """Add messages that were accepted before; tells of each whether it was added or there, or what is against it.

        They keep ids, states and history, and their keys count again. No quota is asked.
        """
        groups: dict[int, list[int]] = {}
        for index, row in enumerate(rows):
            groups.setdefault(self._index_of(row.agent), []).append(index)
        results: list[bool | AgentdError] = [False] * len(rows)
        for shard, indexes in groups.items():
            try:
                answer = await self._shards[shard].do(Restore([rows[index] for index in indexes]))
            except AgentdError as error:
                answer = [error] * len(indexes)
            for index, result in zip(indexes, answer, strict=True):
                results[index] = result
        return results

    async def page(self, after: int, limit: int) -> list[Row]:
        """Return the next rows of all shards in the order of their ids, damaged ones too; [] after the last one."""
        pages = [page for page in await asyncio.gather(*(self.after(n, after, limit) for n in self.shards)) if page]
        known = min((page[-1].seq for page in pages), default=0)  # what follows it may be in a page that ended early
        rows = sorted(row for page in pages for row in page if row.seq <= known)
        return rows[:limit]

    async def compact(self, shard: int) -> None:
        """Rewrite a shard's file without its gaps; its other calls wait as long."""
        await self._shards[shard].do(Compact())

    # -- which shard

    def _index_of(self, agent: str) -> int:
        return home_of(agent, len(self._shards))

    def _inbox(self, agent: str) -> Shard:
        return self._shards[self._index_of(agent)]

    async def _settle(self, taken: Sequence[Taken], decide: Decide, agent: str | None = None) -> Outcomes:
        return await self._each(taken, lambda targets: Settle(targets, decide, agent))

    async def _each(self, taken: Sequence[Taken], command: Callable[[Sequence[Target]], Settle | Drop]) -> Outcomes:
        """Ask the shards where each message may be, likeliest first; the answers stand in the order of the messages."""
        outcomes: Outcomes = [None if _is_id(item) else unknown(str(item)) for item in taken]
        pending = [index for index, outcome in enumerate(outcomes) if outcome is None]
        for turn in range(len(self._shards)):
            groups: dict[int, list[int]] = {}
            for index in pending:
                groups.setdefault(self._nth_place(taken[index], turn), []).append(index)
            asked = [
                self._shards[shard].do(command([_target(taken[index]) for index in indexes]))
                for shard, indexes in groups.items()
            ]
            for indexes, answer in zip(groups.values(), await asyncio.gather(*asked), strict=True):
                for index, outcome in zip(indexes, answer, strict=True):
                    outcomes[index] = outcome
            pending = [index for index in pending if isinstance(outcomes[index], NotFound)]
            if not pending:
                break
        return outcomes

    def _nth_place(self, item: Taken, turn: int) -> int:
        """Return the shard to ask in a turn: first where the inbox is known to be, or the shard that gave the id.

        Since that time the mailbox may have been resharded.
        """
        first = shard_of(_target(item).seq) if isinstance(item, str) else self._index_of(item.message.to)
        return (first + turn) % len(self._shards)


async def _open_all(shards: Iterable[Shard], *, expected: bool) -> None:
    opened = await asyncio.gather(*(shard.open(expected=expected) for shard in shards), return_exceptions=True)
    for failure in opened:
        if isinstance(failure, AgentdError | asyncio.CancelledError):
            raise failure
        if isinstance(failure, BaseException):
            raise StorageError(f"the mailbox cannot be opened: {failure}", hint="check the disk") from failure


def _seq(id_: str) -> int | None:
    try:
        return seq_of(id_)
    except NotFound:
        return None


def _target(item: Taken) -> Target:
    if not isinstance(item, str):
        return Target(seq_of(item.message.id), item.attempt)
    id_, mark, attempt = item.partition("#")
    if not mark:
        return Target(seq_of(id_))
    if not (attempt.isascii() and attempt.isdecimal()):
        raise unknown(item)
    return Target(seq_of(id_), int(attempt), leased=True)


def _is_id(item: Taken) -> bool:
    try:
        _target(item)
    except NotFound:
        return False
    return True
