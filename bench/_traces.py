"""Three traces as callers leave them, and their replay against the real cache in virtual time.

A trace is drawn from a seed: what changes when, and what each caller asks next, so long after the last answer. In the
replay a caller waits for each answer; tmux is a stand-in that takes its usual time and tells of each change at once.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import structlog

from agentd.cache.cache import Cache
from agentd.cache.disk import Disk
from agentd.cache.query import Query
from agentd.config import CacheConfig

ASK_S = {"sessions": 0.0008, "capture": 0.0005, "facts": 0.0004}  # as bench/tmux.py measures it at some 100 sessions
SESSIONS = Query("sessions")


@dataclass(frozen=True)
class Ask:
    """One call: not before this time, and at least so long after the caller's last answer."""

    query: Query
    not_before_s: float
    pause_s: float


@dataclass(frozen=True)
class Trace:
    """What callers ask, and what changes meanwhile."""

    name: str
    callers: dict[str, list[Ask]]
    changes: list[tuple[float, str]]  # when, and the tag of what changed


def tags_of(query: Query) -> tuple[str, ...]:
    return (f"{query.kind}:{query.args[0]}",) if query.args else (query.kind,)


def dashboard(seed: int = 1, agents: int = 200, length_s: int = 300) -> Trace:
    """Draw a page that shows every agent's screen and asks for all of them once a second, one after the other.

    Three agents are at work at any time, print four times a second, and give way to others after half a minute or so.
    A session comes or goes every minute.
    """
    draw = random.Random(seed)
    asks = []
    for second in range(length_s):
        queries = [SESSIONS, *(Query("capture", (f"%{number}",)) for number in range(agents))]
        asks += [Ask(query, float(second), 0.0002) for query in queries]
    changes = _came_and_went(draw, length_s, every_s=60)
    for _ in range(3):
        changes += _at_work(draw, agents, length_s, spell_s=30, rest_s=0, prints_per_s=4)
    return Trace("dashboard", {"dashboard": asks}, sorted(changes))


def human(seed: int = 2, agents: int = 8, length_s: int = 3600) -> Trace:
    """Draw a person at a prompt: looks at the list, completes names, reads who has something new, waits, and again.

    Two of eight agents are at work for a minute or so at a time with pauses. The person reads whoever printed last, in
    half of the cases, else anybody; a list comes first more often than not, and a completion asks for the list too.
    """
    draw = random.Random(seed)
    changes = _came_and_went(draw, length_s, every_s=600)
    for _ in range(2):
        changes += _at_work(draw, agents, length_s, spell_s=60, rest_s=60, prints_per_s=2)
    changes.sort()
    asks, now_s = [], 0.0
    while now_s < length_s:
        now_s += draw.lognormvariate(2.3, 0.8)  # ten seconds, sometimes a minute
        if draw.random() < 0.6:
            asks.append(Ask(SESSIONS, now_s, 0.0))
            now_s += draw.uniform(1.5, 5)
        for _ in range(draw.choice((0, 1, 1, 2))):  # the TAB key
            asks.append(Ask(SESSIONS, now_s, 0.0))
            now_s += draw.uniform(0.3, 1.5)
        recent = [tag for at_s, tag in changes if now_s - 60 < at_s < now_s and tag.startswith("capture:")]
        agent = recent[-1].partition(":")[2] if recent and draw.random() < 0.5 else f"%{draw.randrange(agents)}"
        asks.append(Ask(Query("capture", (agent,)), now_s, 0.0))
    return Trace("human", {"operator": asks}, changes)


def script(seed: int = 3, agents: int = 40, length_s: int = 1800) -> Trace:
    """Draw a script that walks a team every 20 seconds: the list, then of each member its facts and its screen.

    It thinks for some 10 ms about each. Two members are at work at any time, with pauses; a walk meets what they did.
    """
    draw = random.Random(seed)
    asks = []
    for began_s in range(0, length_s, 20):
        asks.append(Ask(SESSIONS, float(began_s), 0.0))
        for number in range(agents):
            asks.append(Ask(Query("facts", (f"%{number}",)), 0.0, draw.uniform(0.005, 0.015)))
            asks.append(Ask(Query("capture", (f"%{number}",)), 0.0, draw.uniform(0.001, 0.003)))
    changes = _came_and_went(draw, length_s, every_s=300)
    for _ in range(2):
        changes += _at_work(draw, agents, length_s, spell_s=40, rest_s=40, prints_per_s=1)
    return Trace("script", {"script": asks}, sorted(changes))


TRACES: dict[str, Callable[..., Trace]] = {"dashboard": dashboard, "human": human, "script": script}


def _came_and_went(draw: random.Random, length_s: float, every_s: float) -> list[tuple[float, str]]:
    changes, now_s = [], draw.expovariate(1 / every_s)
    while now_s < length_s:
        changes.append((now_s, "sessions"))
        now_s += draw.expovariate(1 / every_s)
    return changes


def _at_work(
    draw: random.Random, agents: int, length_s: float, spell_s: float, rest_s: float, prints_per_s: float
) -> list[tuple[float, str]]:
    """Return when one worker after another prints; at the beginning and end of its spell its facts change as well."""
    changes, now_s = [], 0.0
    while now_s < length_s:
        agent, until_s = draw.randrange(agents), now_s + draw.uniform(0.5, 1.5) * spell_s
        changes.append((now_s, f"facts:%{agent}"))
        while now_s < until_s:
            changes.append((now_s, f"capture:%{agent}"))
            now_s += draw.expovariate(prints_per_s)
        changes.append((until_s, f"facts:%{agent}"))
        now_s = until_s + draw.uniform(0.5, 1.5) * rest_s
    return changes


class VirtualTime:
    """Time that passes only when everybody waits for it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, anyio.Event]] = []

    def clock(self) -> float:
        return self.now_s

    async def until(self, at_s: float) -> None:
        """Wait until then, if it is not past."""
        if at_s > self.now_s:
            event = anyio.Event()
            heapq.heappush(self._waiting, (at_s, next(self._order), event))
            await event.wait()

    async def run(self) -> None:
        """Let time pass while anybody waits for it."""
        await self._settle()
        while self._waiting:
            self.now_s, _, event = heapq.heappop(self._waiting)
            event.set()
            await self._settle()

    async def _settle(self) -> None:
        for _ in range(8):  # as many turns of the loop as the longest way from an event to the next wait
            await asyncio.sleep(0)


@dataclass(frozen=True)
class Replayed:
    """What came of a trace."""

    calls: int
    tiers: Counter[str]  # of the answers
    asks: int  # of tmux, those for guesses included
    news: int  # calls whose answer was new or had changed since the last call: without guessing, none of them can hit
    wait_ms: float  # mean of all calls
    stats: dict[str, Any]

    @property
    def hit_ratio(self) -> float:
        """Return the share of calls that no ask of tmux was waited for."""
        return 1 - self.tiers["tmux"] / self.calls

    @property
    def memory_misses(self) -> int:
        """Return the calls that neither L1 nor L2 answered."""
        return self.tiers["l3"] + self.tiers["tmux"]


def replay(trace: Trace, **settings: Any) -> Replayed:
    """Replay a trace against a new cache with these settings."""
    with tempfile.TemporaryDirectory(prefix="at-") as directory:
        return anyio.run(_replay, trace, replace(CacheConfig(), **settings), str(Path(directory, "cache.db")))


async def _replay(trace: Trace, config: CacheConfig, path: str) -> Replayed:
    time, tiers, waited_s = VirtualTime(), Counter[str](), []
    log = structlog.wrap_logger(structlog.PrintLogger())
    disk = Disk(path, config.l3_ttl_s, config.l3_size, log, time.clock, time.clock)

    async def ask(query: Query) -> Any:
        await time.until(time.now_s + ASK_S[query.kind])
        return [str(query)]

    cache = Cache(config, ask, tags_of, lambda: "server", disk, time.clock, time.clock)

    changed, seen, news = Counter[str](), dict[Query, int](), []

    async def call(caller: str, asks: list[Ask]) -> None:
        for each in asks:
            await time.until(max(each.not_before_s, time.now_s + each.pause_s))
            began_s, version = time.now_s, changed[tags_of(each.query)[0]]
            news.append(seen.get(each.query) != version)
            seen[each.query] = version
            tiers[(await cache.get(each.query, caller)).tier] += 1
            waited_s.append(time.now_s - began_s)

    async def change() -> None:
        for at_s, tag in trace.changes:
            await time.until(at_s)
            changed[tag] += 1
            cache.drop(tag)

    async with anyio.create_task_group() as tasks:
        await tasks.start(cache.run)
        tasks.start_soon(change)
        for caller, asks in trace.callers.items():
            tasks.start_soon(call, caller, asks)
        await time.run()
        tasks.cancel_scope.cancel()
    stats = cache.stats()
    await disk.close()
    return Replayed(len(waited_s), tiers, stats["asks"], sum(news), 1000 * sum(waited_s) / len(waited_s), stats)
