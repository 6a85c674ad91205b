"""The loop guard: where an agent's message stands in its chain, and when a chain has gone on for too long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cachetools import LRUCache

from agentd.agents.bucket import Bucket
from agentd.config import LoopsConfig
from agentd.errors import AgentdError, LoopLimit, RateLimit
from agentd.records import OPERATOR, Draft, Message

MOST_CHAINS: Final = 10_000  # counted at once; of more, the ones longest unused are counted anew
MOST_PAIRS: Final = 100_000
NEAR: Final = 0.8  # of a limit, from which on a chain is listed
EVERYTHING: Final = ""  # what a reset of no name in particular is kept under


class Cause(NamedTuple):
    """The message that an agent answers, or is taken to answer."""

    id: str
    sender: str
    trace: str
    hops: int
    created_ns: int  # wall clock

    @classmethod
    def of(cls, message: Message) -> Cause:
        """Return what the guard needs to know of a message."""
        return cls(message.id, message.sender, message.trace or message.id, message.hops, message.created_ns)


@dataclass(slots=True)
class Chain:
    """What came of one message or broadcast."""

    messages: int = 1  # with the first one; a broadcast counts as one
    hops: int = 0  # of the longest way
    refused: int = 0


class Loops:
    """Counts the messages of each chain and of each pair of agents.

    In memory: after a restart the counts begin anew, while the hops stand in the messages and go on.
    """

    def __init__(self, config: LoopsConfig, clock_s: Callable[[], float], wall_ns: Callable[[], int]) -> None:
        self._config = config
        self._clock_s = clock_s
        self._wall_ns = wall_ns
        self._chains: LRUCache[str, Chain] = LRUCache(MOST_CHAINS)
        self._buckets: LRUCache[tuple[str, str], Bucket] = LRUCache(MOST_PAIRS)
        self._resets: LRUCache[str, int] = LRUCache(MOST_CHAINS)

    def admit(self, draft: Draft, cause: Cause | None) -> Draft | AgentdError:
        """Return an agent's message with its place in the chain, or why it may not be sent.

        What goes to the operator is never refused and not counted: nothing comes back from there by itself.
        """
        placed = self._placed(draft, cause)
        if not self._config.enabled or cause is None or placed.trace is None or placed.to == OPERATOR:
            return placed
        chain = self._chains.get(placed.trace) or Chain()
        refusal = self._too_long(placed, chain) or (self._too_often(placed) if cause.sender != OPERATOR else None)
        if refusal is None:
            chain.messages += 1
            chain.hops = max(chain.hops, placed.hops)
        else:
            chain.refused += 1
        self._chains[placed.trace] = chain
        return refusal or placed

    def group_refusal(self, recipients: int, *, answers: bool) -> LoopLimit | None:
        """Return why an agent may not send to a group, None when it may."""
        if not self._config.enabled:
            return None
        if answers:
            return LoopLimit(
                "an agent's answer goes to one agent, not to a group; nothing was sent",
                hint="answer the sender, or send to the group without reply_to",
            )
        most = self._config.broadcast_recipients
        if recipients > most:
            return LoopLimit(
                f"an agent may send to {most} recipients at once, not to {recipients}; nothing was sent",
                hint="send to fewer; the operator can raise loops.broadcast_recipients",
            )
        return None

    def _placed(self, draft: Draft, cause: Cause | None) -> Draft:
        if cause is None:
            return draft
        if self._forgiven(cause, draft.sender):
            return draft._replace(trace=cause.id, hops=1)
        return draft._replace(trace=cause.trace, hops=cause.hops + 1)

    def _forgiven(self, cause: Cause, sender: str) -> bool:
        """Tell whether the operator reset what led to this: then the message begins a chain, whatever came before."""
        return any(cause.created_ns < self._resets.get(name, 0) for name in (EVERYTHING, cause.trace, sender))

    def _too_long(self, placed: Draft, chain: Chain) -> LoopLimit | None:
        if placed.hops > self._config.max_hops:
            return LoopLimit(
                f"the chain that {placed.trace} began went through {placed.hops - 1} agents; this one was not sent",
                hint=f"tell the operator, who can let it go on: agentd loops reset {placed.trace}",
            )
        if chain.messages >= self._config.trace_messages:
            return LoopLimit(
                f"{chain.messages} messages came of {placed.trace}; this one was not sent",
                hint=f"tell the operator, who can let it go on: agentd loops reset {placed.trace}",
            )
        return None

    def _too_often(self, placed: Draft) -> RateLimit | None:
        per_min = self._per_min(placed.sender, placed.to)
        bucket = self._bucket(placed.sender, placed.to)
        if bucket.tokens < 1:
            whom = "itself" if placed.to == placed.sender else "the same agent"
            return RateLimit(
                f"an agent may send {per_min} answers a minute to {whom}; this one was not sent",
                hint="send it again later, or say it in one message",
                retry_after_ms=bucket.wait_ms(per_min),
            )
        self._buckets[placed.sender, placed.to] = bucket.take()
        return None

    def _per_min(self, sender: str, to: str) -> int:
        return self._config.self_per_min if sender == to else self._config.pair_per_min

    def _bucket(self, sender: str, to: str) -> Bucket:
        now_s, per_min = self._clock_s(), self._per_min(sender, to)
        return self._buckets.get((sender, to), Bucket(per_min, now_s)).at(now_s, per_min)

    # -- what the operator sees and does

    def chains(self) -> list[dict[str, Any]]:
        """Return the chains that are near a limit or over it."""
        most, deepest = self._config.trace_messages, self._config.max_hops
        return [
            {"trace": trace, "messages": chain.messages, "hops": chain.hops, "refused": chain.refused}
            for trace, chain in self._chains.items()
            if chain.refused or chain.messages >= NEAR * most or chain.hops >= NEAR * deepest
        ]

    def empty_buckets(self) -> list[tuple[str, str, int]]:
        """Return sender, recipient and the wait in milliseconds of each pair that may not send now."""
        now = [(pair, self._bucket(*pair)) for pair in list(self._buckets)]
        return [(*pair, bucket.wait_ms(self._per_min(*pair))) for pair, bucket in now if bucket.tokens < 1]

    def knows(self, trace: str) -> bool:
        """Tell whether anything came of a message."""
        return trace in self._chains

    def reset(self, name: str = EVERYTHING) -> None:
        """Let messages of a chain, of an agent, or all flow again, as if nothing had led to them."""
        self._resets[name] = self._wall_ns()
        if name == EVERYTHING:
            self._chains.clear()
            self._buckets.clear()
            return
        self._chains.pop(name, None)
        for pair in [pair for pair in self._buckets if name in pair]:
            del self._buckets[pair]
