"""The third tier on a server that speaks the Redis protocol (Redis, Valkey); needs the extra `redis`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from agentd.cache.breaker import Breaker
from agentd.cache.entry import Entry, decode, encode
from agentd.cache.query import Query
from agentd.cache.tiers import Counters
from agentd.errors import InvalidValue

if TYPE_CHECKING:
    import redis.asyncio

TIMEOUT_S = 0.25  # of any operation, connecting included
_FAILURES = 3  # in a row, until nobody waits for the server any more
_RETRY_S = 5.0
_BATCH = 100
_WAITING = 1_000  # answers that wait for a flush at most
_PREFIX = "agentd:1:"  # with the format of entry.py

T = TypeVar("T")


class Redis:
    """Answers on a server; each look is bounded, and after a few failures nobody waits for it until it works again.

    Whether an answer still stands is decided by the Cache that asked: a server that lost or kept too much harms nobody.
    """

    name = "l3"

    def __init__(
        self,
        url: str,
        ttl_s: float,
        source: Callable[[], str],
        log: Any,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.ttl_s = ttl_s
        self.counters = Counters()
        self._source = source
        self._log = log
        self._failures, self._client = _client(url)
        self._breaker = Breaker(_FAILURES, _RETRY_S, clock)
        self._pending: dict[Query, Entry] = {}

    async def get(self, query: Query) -> Entry | None:
        """Return what is kept; at once while the server is left alone."""
        waiting = self._pending.get(query)
        if waiting is not None:
            return waiting
        if self._breaker.open:
            self.counters.faults += 1
            return None
        data = await self._bounded(lambda: self._client.get(self._key(query, self._source())))
        if data is None:
            return None
        entry = decode(data, query)
        if entry is None:
            self.counters.faults += 1
        return entry

    def put(self, entry: Entry) -> None:
        """Have an answer written by the next flush; with too many waiting the oldest is let go."""
        self._pending[entry.query] = entry
        if len(self._pending) > _WAITING:
            self.counters.evicted += 1
            del self._pending[next(iter(self._pending))]

    async def flush(self) -> None:
        """Write what was put; try a server again that failed a while ago."""
        if self._breaker.trial_due:
            await self._bounded(lambda: self._client.get(_PREFIX))
        while self._pending and not self._breaker.open:
            await self._write(list(self._pending.values())[:_BATCH])

    async def close(self) -> None:
        """Write what was put and disconnect."""
        await self.flush()
        with suppress(*self._failures):
            with anyio.move_on_after(TIMEOUT_S, shield=True):
                await self._client.aclose()

    def __len__(self) -> int:
        """Return how many answers wait to be written; the server's own number is not worth a question."""
        return len(self._pending)

    async def _write(self, entries: list[Entry]) -> None:
        batch = self._client.pipeline(transaction=False)
        for entry in entries:
            if self._pending.get(entry.query) is entry:
                del self._pending[entry.query]
            data = encode(entry)
            if data is not None:
                batch.set(self._key(entry.query, entry.source), data, px=round(self.ttl_s * 1000))
        await self._bounded(batch.execute)

    def _key(self, query: Query, source: str) -> str:
        return f"{_PREFIX}{source}:{query}"

    async def _bounded(self, operation: Callable[[], Awaitable[T]]) -> T | None:
        """Return what the operation gives, None when it fails or takes too long."""
        try:
            with anyio.fail_after(TIMEOUT_S):
                result = await operation()
        except self._failures as error:
            self.counters.faults += 1
            if self._breaker.failed():
                self._log.warning("the Redis server is left alone for now", error=str(error) or type(error).__name__)
            return None
        self._breaker.worked()
        return result


def _client(url: str) -> tuple[tuple[type[Exception], ...], redis.asyncio.Redis]:
    """Return what may go wrong, and a client that has not connected yet."""
    try:
        import redis.asyncio
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise InvalidValue(
            "cache.redis_url is set and the Python package `redis` is not installed",
            hint="install agentd[redis], or clear cache.redis_url to keep answers in a file",
        ) from None
    try:
        client = redis.asyncio.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0)
        )
    except ValueError:  # its text would quote the password
        raise InvalidValue(
            "cache.redis_url is not the address of a Redis server",
            hint="write redis://host:port/0, rediss://host:port/0 or unix:///path",
        ) from None
    return (redis.RedisError, OSError, TimeoutError, ValueError), client
