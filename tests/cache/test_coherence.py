"""P10: whatever happens below the cache, every answer was the truth at a moment that it and the heard changes allow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import anyio
from floor import Clocks, Shelf, tags_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentd.cache.answer import Answer
from agentd.cache.cache import Cache
from agentd.cache.query import Query
from agentd.config import CacheConfig

LONG = os.environ.get("AGENTD_FAULTS") == "long"
CONFIG = CacheConfig()
KEYS = ("%1", "%2")
TICK_S = 0.001  # between any two things that happen
ROUNDING_S = 1e-6

keys = st.sampled_from(KEYS)
picks = st.integers(0, 1 << 16)
jumps = st.sampled_from([0.0, 0.0, 2.0, 7200.0])
seldom = st.sampled_from([False, False, False, True])
max_ages = st.sampled_from([None, None, None, 0.5, 5.0, 100.0])
waits = st.sampled_from([0.0, 0.4, 0.9, 1.5, 13.0, 20.0, 120.0])


def query_of(key: str) -> Query:
    return Query("capture", (key,))


@dataclass(eq=False)
class Asking:
    """A question that has reached tmux, which looks and replies when the machine says so."""

    key: str
    value: int | None = None
    looked: bool = False
    error: bool = False
    replied: anyio.Event = field(default_factory=anyio.Event)


@dataclass(eq=False)
class Call:
    """A caller who waits, and what he may rely on."""

    key: str
    called_s: float
    heard_s: float  # the last change of the key that had been heard by then
    max_age_s: float | None
    fresh: bool
    deaf: bool
    task: asyncio.Task[Answer]


class Coherence(RuleBasedStateMachine):
    """Changes the truth and disturbs everything that tells of it; checks each answer against the history."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clocks = Clocks()
        self.shelf = Shelf(CONFIG.l3_ttl_s)
        self.values = 0
        self.truth: dict[str, list[tuple[float, int | None]]] = {}
        self.changed_at_s: dict[str, float] = {}  # by the wall clock, as tmux has it
        self.heard_s = dict.fromkeys(KEYS, 0.0)
        self.events: list[str] = []
        self.out: list[Asking] = []
        self.calls: list[Call] = []
        self.prompt = True
        self.deaf = False
        self.source = 0
        for key in KEYS:
            self.change(key, gone=False)
        self.events.clear()
        self.start()

    @initialize(direction=st.sampled_from([-1.0, 1.0]))
    def choose_direction(self, direction: float) -> None:
        self.direction = direction  # of all jumps: a clock that was set back and forth again looks as if it never was

    # -- the world

    def start(self) -> None:
        self.deaf = False
        self.cache = Cache(
            CONFIG, self.ask, tags_of, lambda: str(self.source), self.shelf, self.clocks.monotonic, self.clocks.wall
        )
        self.heard_s = dict.fromkeys(KEYS, self.now())

    def now(self) -> float:
        return self.clocks.now_s

    def tick(self) -> None:
        self.clocks.now_s += TICK_S

    def change(self, key: str, *, gone: bool) -> None:
        self.tick()
        self.values += 1
        self.truth.setdefault(key, []).append((self.now(), None if gone else self.values))
        self.changed_at_s[key] = self.clocks.wall()
        self.events.append(key)

    async def ask(self, query: Query) -> int | None:
        asking = Asking(str(query.args[0]))
        if self.prompt:
            return self.truth[asking.key][-1][1]
        self.out.append(asking)
        await asking.replied.wait()
        if asking.error:
            raise LookupError(asking.key)
        return asking.value

    async def _settle(self) -> None:
        for _ in range(12):
            await asyncio.sleep(0)

    def settle(self) -> None:
        """Let everybody run until all wait for the machine; check who got an answer."""
        self.runner.run(self._settle())
        for call in [call for call in self.calls if call.task.done()]:
            self.calls.remove(call)
            if not call.task.cancelled() and not isinstance(call.task.exception(), LookupError):
                self.check(call, call.task.result())

    # -- the promise

    def check(self, call: Call, answer: Answer) -> None:
        age_s = answer.age_ms / 1000
        since_s = max(self.now() - age_s - ROUNDING_S, call.heard_s, call.called_s if call.fresh else 0.0)
        assert self.was_true(call.key, answer.value, since_s), f"{answer} was not true since {since_s}"
        assert answer.age_ms <= answer.bound_ms
        if answer.tier == "tmux":
            if call.max_age_s is not None:
                assert self.now() - age_s >= call.called_s - call.max_age_s - 2 * TICK_S
            return
        most_s = {"l1": CONFIG.l3_ttl_s, "l2": CONFIG.l2_ttl_s, "l3": CONFIG.l3_ttl_s}[answer.tier]
        if answer.tier == "l2":
            most_s = CONFIG.l3_ttl_s  # a guess may have been found in the third
        if call.max_age_s is not None:
            most_s = min(most_s, call.max_age_s)
        if call.deaf and self.deaf:
            most_s = min(most_s, CONFIG.deaf_ttl_s)
        assert answer.bound_ms <= 1000 * most_s + 1

    def was_true(self, key: str, value: int | None, since_s: float) -> bool:
        history = self.truth[key]
        ends = [*(began_s for began_s, _ in history[1:]), self.now() + TICK_S]
        return any(was == value and ended_s > since_s for (_, was), ended_s in zip(history, ends, strict=True))

    # -- changes

    @rule(key=keys, gone=st.booleans(), ours=st.booleans())
    def something_changes(self, key: str, gone: bool, ours: bool) -> None:
        self.change(key, gone=gone)
        if ours:
            self.hear(key)

    def hear(self, key: str) -> None:
        self.cache.drop(key)
        self.heard_s[key] = self.now()

    @precondition(lambda self: self.events)
    @rule(pick=picks, fate=st.sampled_from(["arrives", "arrives and will again", "is lost"]))
    def an_event(self, pick: int, fate: str) -> None:
        self.tick()
        at = pick % len(self.events)
        key = self.events[at] if fate == "arrives and will again" else self.events.pop(at)
        if fate != "is lost":
            self.hear(key)
        self.settle()

    @rule(on=st.booleans())
    def events_stop_or_come_again(self, on: bool) -> None:
        self.tick()
        self.deaf = not on
        if on:
            self.cache.hearing()
            self.heard_s = dict.fromkeys(KEYS, self.now())
        else:
            self.cache.deaf()

    # -- callers

    def call(self, key: str, max_age_s: float | None = None, *, fresh: bool = False) -> None:
        self.tick()
        task = self.runner.get_loop().create_task(self.cache.get(query_of(key), "", max_age_s, fresh))
        self.calls.append(Call(key, self.now(), self.heard_s[key], max_age_s, fresh, self.deaf, task))
        self.settle()

    @rule(key=keys, max_age_s=max_ages, fresh=seldom, slow=st.booleans())
    def somebody_asks(self, key: str, max_age_s: float | None, fresh: bool, slow: bool) -> None:
        self.prompt = not slow
        self.call(key, max_age_s, fresh=fresh)

    @rule(slow=seldom)
    def somebody_asks_for_all(self, slow: bool) -> None:
        self.prompt = not slow
        for key in KEYS:
            self.call(key)

    @rule(wait_s=waits, max_age_s=max_ages, jump_s=jumps)
    def somebody_asks_later(self, wait_s: float, max_age_s: float | None, jump_s: float) -> None:
        self.clocks.now_s += wait_s
        self.clocks.wall_offset_s += self.direction * jump_s
        self.prompt = True
        for key in KEYS:
            self.call(key, max_age_s)

    @invariant()
    def somebody_peeks(self) -> None:
        self.tick()
        for key in KEYS:
            answer = self.cache.peek(query_of(key))
            if answer is not None:
                self.check(Call(key, self.now(), self.heard_s[key], None, False, self.deaf, None), answer)

    @rule(key=keys, slow=st.booleans())
    def we_guess(self, key: str, slow: bool) -> None:
        self.tick()
        self.prompt = not slow
        self.runner.get_loop().create_task(self.cache._fill(query_of(key)))
        self.settle()

    @precondition(lambda self: self.calls)
    @rule(pick=picks)
    def a_caller_gives_up(self, pick: int) -> None:
        self.tick()
        self.calls[pick % len(self.calls)].task.cancel()
        self.settle()

    # -- what is below

    @rule(key=keys, looked=st.booleans(), wait_s=waits, ours=st.booleans(), fresh=seldom)
    def something_changes_while_tmux_is_slow(
        self, key: str, looked: bool, wait_s: float, ours: bool, fresh: bool
    ) -> None:
        self.prompt = False
        self.call(key, fresh=True)
        if looked:
            self.look(self.out[-1])
        self.clocks.now_s += wait_s
        self.something_changes(key, False, ours)
        self.call(key, fresh=fresh)

    def look(self, asking: Asking) -> None:
        if not asking.looked:
            asking.value, asking.looked = self.truth[asking.key][-1][1], True

    @precondition(lambda self: self.out)
    @rule(pick=picks, act=st.sampled_from(["looks", "replies", "replies", "fails"]))
    def tmux(self, pick: int, act: str) -> None:
        self.tick()
        asking = self.out[pick % len(self.out)]
        self.look(asking)
        if act != "looks":
            self.out.remove(asking)
            asking.error = act == "fails"
            asking.replied.set()
            self.settle()

    @rule(mode=st.sampled_from(["", "", "lost", "slow", "wrong", "old"]))
    def the_store_behaves(self, mode: str) -> None:
        self.tick()
        self.shelf.mode = mode
        self.shelf.gate.set()
        self.settle()
        self.shelf.gate = anyio.Event()

    @rule(name=st.sampled_from(["l1", "l2", "l3"]), on=st.booleans())
    def a_switch_is_turned(self, name: str, on: bool) -> None:
        self.cache.set(name, on=on)

    @rule(
        jump_s=jumps,
        changes=st.lists(keys, max_size=2),
        revive=st.booleans(),
        new_server=seldom,
    )
    def the_daemon_starts_again(self, jump_s: float, changes: list[str], revive: bool, new_server: bool) -> None:
        self.stop()
        self.clocks.wall_offset_s += self.direction * jump_s
        self.source += new_server
        for key in KEYS if new_server else changes:
            self.change(key, gone=False)
        self.tick()
        self.start()
        if revive:
            self.cache.revive(self.valid(new_server))

    def valid(self, new_server: bool) -> Callable[[Query, float], bool]:
        """Return what tmux can tell: when each thing changed last; a new server knows nothing of the old one's."""
        changed = dict(self.changed_at_s)
        return lambda query, asked_at_s: new_server or changed[str(query.args[0])] < asked_at_s

    def stop(self) -> None:
        async def stop_all() -> None:
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self.runner.run(stop_all())
        self.calls.clear()
        self.out.clear()

    def teardown(self) -> None:
        self.stop()
        self.runner.close()


Coherence.TestCase.settings = settings(
    max_examples=3_000 if LONG else 80,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
TestCoherence = Coherence.TestCase
