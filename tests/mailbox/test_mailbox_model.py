"""The mailbox beside a model of it in a dictionary: any sequence of operations, clock jumps and crashes (P6)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from boxes import ALL, Clock, draft, open_box
from fault_rows import LONG
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agentd.errors import AgentdError
from agentd.mailbox import store
from agentd.mailbox.ids import seq_of, time_of
from agentd.mailbox.mailbox import Mailbox
from agentd.mailbox.shard import Shard
from agentd.mailbox.transaction import Transaction
from agentd.records import Delivery, MessageState, Priority, Receipt

pytestmark = pytest.mark.timeout(300)  # thousands of syncs, on a disk that others may keep busy

ACCEPTED, DELIVERING, DELIVERED = MessageState.ACCEPTED, MessageState.DELIVERING, MessageState.DELIVERED
ACKED, DEAD, EXPIRED = MessageState.ACKED, MessageState.DEAD, MessageState.EXPIRED
WAITING = (ACCEPTED, DELIVERING)
LEASE_S, MAX_ATTEMPTS, QUOTA, SHARE = 30.0, 3, 12, 9  # of its sender

agents = st.sampled_from(["a", "b", "c"])
senders = st.sampled_from(["s", "t"])
picks = st.integers(0, 1 << 16)


@dataclass
class Model:
    """What the mailbox should know about one message."""

    id: str
    agent: str
    sender: str
    prio: Priority
    body: str
    exp: int | None
    state: MessageState = ACCEPTED
    tries: int = 0
    due: int = 0
    states: list[MessageState] = field(default_factory=lambda: [ACCEPTED])

    def to(self, state: MessageState, due: int = 0) -> None:
        self.state, self.due = state, due
        self.states.append(state)


class MailboxMachine(RuleBasedStateMachine):
    """Every rule does the same to both and compares what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp(prefix="agentd-model-"))
        self.lives = 0
        self.clock = Clock()
        self.models: dict[str, Model] = {}
        self.keys: dict[tuple[str, str, str], str] = {}
        self.held: list[Delivery] = []  # every delivery ever made, late ones included
        self.given = 0

    @initialize(shards=st.sampled_from([1, 3]), tail=st.sampled_from([0, 3, store.TAIL_MESSAGES]))
    def begin(self, shards: int, tail: int) -> None:
        self.shards = shards
        self.usual_tail, store.TAIL_MESSAGES = store.TAIL_MESSAGES, tail
        self.place = self.root / "box"
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.stack = AsyncExitStack()
        self.box: Mailbox = await self.stack.enter_async_context(
            open_box(
                self.place, self.clock, shards=self.shards, max_inbox_messages=QUOTA, max_sender_share=SHARE / QUOTA
            )
        )

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
            store.TAIL_MESSAGES = self.usual_tail
        self.runner.close()
        shutil.rmtree(self.root)

    @property
    def now(self) -> int:
        return self.box._clock.now_ns()

    # -- sending

    @rule(
        items=st.lists(
            st.tuples(agents, senders, st.sampled_from(Priority), st.sampled_from([None, None, "k1", "k2"]),
                      st.sampled_from([None, None, None, 40.0])),
            min_size=1, max_size=6,
        )
    )  # fmt: skip
    def put(self, items: list[tuple[str, str, Priority, str | None, float | None]]) -> None:
        drafts = [
            draft(f"body {self.given + n}", to=agent, sender=sender, priority=prio, key=key, ttl_s=ttl_s)
            for n, (agent, sender, prio, key, ttl_s) in enumerate(items)
        ]
        results = self.runner.run(self.box.put(drafts))
        for sent, result in zip(drafts, results, strict=True):
            known = self.keys.get((sent.sender, sent.to, sent.key)) if sent.key else None
            if known and self.may_be_forgotten(known) and not (isinstance(result, Receipt) and result.duplicate):
                known = None
            if known:
                assert result == Receipt(known, sent.to, duplicate=True)
            elif self.depth(sent.to) >= QUOTA or self.depth(sent.to, sent.sender) >= SHARE:
                assert isinstance(result, AgentdError)
            else:
                assert isinstance(result, Receipt)
                assert result.id not in self.models
                exp = None if sent.ttl_s is None else self.now + int(sent.ttl_s * 1e9)
                self.models[result.id] = Model(result.id, sent.to, sent.sender, sent.priority, sent.body, exp)
                if sent.key:
                    self.keys[sent.sender, sent.to, sent.key] = result.id
        self.given += len(items)

    def may_be_forgotten(self, id_: str) -> bool:
        """Tell whether a key is older than its window: a wall clock that jumped is believed at the next start."""
        return self.now - time_of(seq_of(id_)) > self.box._config.key_window_s * 1e9

    def depth(self, agent: str, sender: str | None = None) -> int:
        waiting = [m for m in self.models.values() if m.agent == agent and m.state in WAITING]
        return sum(1 for m in waiting if sender in (None, m.sender))

    # -- taking

    @rule(agent=agents, limit=st.integers(1, 4))
    def reserve(self, agent: str, limit: int) -> None:
        expected = self.take(agent, limit)
        deliveries = self.runner.run(self.box.reserve(agent, limit, 1 << 30, LEASE_S))
        assert [(d.message.id, d.attempt) for d in deliveries] == [(m.id, m.tries) for m in expected]
        assert [(d.message.state, d.message.body) for d in deliveries] == [(DELIVERING, m.body) for m in expected]
        self.held += deliveries
        if not deliveries and self.depth(agent):
            dues = [m.due for m in self.models.values() if m.agent == agent and m.state in WAITING and m.due]
            next_s = self.box.next_due(agent)
            assert next_s is not None
            assert abs(next_s - (min(dues) - self.now) / 1e9) < 0.001

    def take(self, agent: str, limit: int) -> list[Model]:
        behind: set[str] = set()
        chosen: list[Model] = []
        waiting = [m for m in self.models.values() if m.agent == agent and m.state in WAITING]
        for m in sorted(waiting, key=lambda m: (m.prio, m.id)):
            if m.exp is not None and m.exp <= self.now and (m.state is ACCEPTED or m.due <= self.now):
                m.to(EXPIRED)
            elif m.due > self.now:
                behind.add(m.sender)
            elif m.sender not in behind:
                if len(chosen) == limit:
                    break
                chosen.append(m)
        for m in chosen:
            m.tries += 1
            m.to(DELIVERING, self.now + int(LEASE_S * 1e9))
        return chosen

    @precondition(lambda self: self.held)
    @rule(pick=picks, outcome=st.sampled_from(["deliver", "release", "nack", "nack later", "ack"]))
    def settle(self, pick: int, outcome: str) -> None:
        delivery = self.held[pick % len(self.held)]
        m = self.models.get(delivery.message.id)
        current = m is not None and m.state is DELIVERING and m.tries == delivery.attempt
        if outcome == "deliver":
            answer = self.runner.run(self.box.deliver([delivery]))
        elif outcome == "release":
            answer = self.runner.run(self.box.release([delivery]))
        elif outcome == "ack":
            answer = self.runner.run(self.box.ack([delivery], "x"))
        else:
            answer = self.runner.run(self.box.nack([delivery], 20 * (outcome != "nack"), "", MAX_ATTEMPTS))
        assert (answer == [None]) == current, (answer, m)
        if m is None or not current:
            return
        if outcome == "deliver":
            m.to(DELIVERED)
        elif outcome == "release":
            self.released(m)
        elif outcome == "ack":
            self.acked(m)
        else:
            self.nacked(m, 20 * (outcome != "nack"))
        self.sweep()

    @precondition(lambda self: self.held)
    @rule(pick=picks, extend=st.booleans())
    def settle_by_lease(self, pick: int, extend: bool) -> None:
        delivery = self.held[pick % len(self.held)]
        m = self.models.get(delivery.message.id)
        lease = f"{delivery.message.id}#{delivery.attempt}"
        current = m is not None and m.state is DELIVERING and m.tries == delivery.attempt and m.due > self.now
        again = m is not None and m.state is ACKED and m.tries == delivery.attempt and not extend
        answer = self.runner.run(self.box.extend([lease], 40.0) if extend else self.box.ack([lease], "x"))
        assert (answer == [None]) == (current or again), (answer, m)
        if m is None or not current:
            return
        if extend:
            m.due = self.now + int(40.0 * 1e9)
        else:
            self.acked(m)

    def released(self, m: Model) -> None:
        m.tries -= 1
        m.states.pop()
        m.state, m.due = ACCEPTED, 0

    def nacked(self, m: Model, delay_s: int) -> None:
        if m.tries >= MAX_ATTEMPTS:
            m.to(DEAD)
        else:
            m.to(ACCEPTED, self.now + delay_s * 10**9 if delay_s else 0)

    def acked(self, m: Model) -> None:
        if m.state is DELIVERING:
            m.to(DELIVERED)
        m.to(ACKED)

    @precondition(lambda self: self.models)
    @rule(pick=picks)
    def ack(self, pick: int) -> None:
        m = self.pick(pick)
        [answer] = self.runner.run(self.box.ack([m.id], "x", m.agent))
        assert (answer is None) == (m.state not in (DEAD, EXPIRED))
        if m.state not in (ACKED, DEAD, EXPIRED):
            self.acked(m)

    @precondition(lambda self: self.models)
    @rule(pick=picks)
    def nack(self, pick: int) -> None:
        m = self.pick(pick)
        [answer] = self.runner.run(self.box.nack([m.id], 0, "", MAX_ATTEMPTS, m.agent))
        assert (answer is None) == (m.state in (DELIVERING, DELIVERED))
        if answer is None:
            self.nacked(m, 0)
        self.sweep()

    @precondition(lambda self: self.models)
    @rule(pick=picks, drop=st.booleans())
    def retry_or_drop(self, pick: int, drop: bool) -> None:
        m = self.pick(pick, DEAD)
        [answer] = self.runner.run(self.box.drop([m.id]) if drop else self.box.retry([m.id]))
        assert (answer is None) == (m.state is DEAD)
        if answer is not None:
            return
        # A token from before is not told from one after; those who hold one are not asked again.
        self.held = [delivery for delivery in self.held if delivery.message.id != m.id]
        if drop:
            del self.models[m.id]
        else:
            m.tries = 0
            m.to(ACCEPTED)
            self.sweep()

    def pick(self, number: int, prefer: MessageState | None = None) -> Model:
        preferred = [m for m in self.models.values() if m.state is prefer]
        found = preferred or list(self.models.values())
        return found[number % len(found)]

    # -- time and crashes

    @rule(seconds=st.sampled_from([1.0, 15.0, 25.0, 31.0]))
    def forward(self, seconds: float) -> None:
        self.clock.forward(seconds)
        self.sweep()

    def sweep(self) -> None:
        """Have what expired say so now: by itself it would at a moment that the model cannot know."""
        self.runner.run(self.box.sweep())
        for m in self.models.values():
            leased = m.state is DELIVERING and m.due > self.now
            if m.state in WAITING and m.exp is not None and m.exp <= self.now and not leased:
                m.to(EXPIRED)

    @rule(seconds=st.sampled_from([-3600.0, 3600.0, 1e8]))
    def jump(self, seconds: float) -> None:
        self.clock.jump(seconds)

    @rule(journal_kept=st.floats(0, 1), clean=st.booleans())
    def restart(self, journal_kept: float, clean: bool) -> None:
        """End, or be killed: the files as they are at this moment, less what the system had not written yet."""
        self.lives += 1
        image = self.root / f"life{self.lives}"
        if clean:
            self.runner.run(self.stack.aclose())
            self.place.rename(image)
        else:
            shutil.copytree(self.place, image)
            self.runner.run(self.stack.aclose())
            for journal in image.glob("s??/journal.*"):
                data = journal.read_bytes()
                journal.write_bytes(data[: int(len(data) * journal_kept)])
        self.place = image
        self.runner.run(self._open())
        assert not any("damaged" in report or "taken from" in report for report in self.box.reports), self.box.reports
        recovered = {(d.message.id, d.attempt) for d in self.box.recover()}
        assert recovered == {(m.id, m.tries) for m in self.models.values() if m.state is DELIVERING}
        self.sweep()

    # -- what always holds

    @invariant()
    def nothing_is_lost_or_other_than_it_was(self) -> None:
        if not hasattr(self, "box"):
            return
        found = {}
        for agent in ("a", "b", "c"):
            messages = self.runner.run(self.box.inbox(agent, ALL, 10_000))
            assert [m.id for m in messages] == sorted(m.id for m in messages)
            assert self.box.depth(agent) == self.depth(agent)
            found.update({m.id: m for m in messages})
        assert found.keys() == self.models.keys()
        for id_, m in self.models.items():
            message = found[id_]
            assert (message.state, message.attempts, message.body) == (m.state, m.tries, m.body)
            assert [entry.state for entry in message.history] == m.states

    @invariant()
    def the_box_says_what_the_messages_say(self) -> None:
        for shard in self.box._shards if hasattr(self, "box") else ():
            self.runner.run(self.compare(shard))

    async def compare(self, shard: Shard) -> None:
        await shard.do(Compare())


class Compare:
    """A command that holds what a shard keeps beside its messages to the messages themselves."""

    cost, sends, lists = 1, False, False

    def run(self, tx: Transaction) -> None:
        messages = (
            "SELECT agent, seq, exp, length(body), sender FROM m"
            " WHERE seq<=(SELECT value FROM meta WHERE name='filed') ORDER BY 1, 2"
        )
        box = "SELECT agent, seq, exp, size, sender FROM box ORDER BY 1, 2"
        misplaced = (
            "SELECT 1 FROM box CROSS JOIN m USING(seq) WHERE place<>"
            "CASE state WHEN 2 THEN 3 WHEN 3 THEN 4 WHEN 4 THEN 5 WHEN 5 THEN 4 ELSE m.prio END"
        )
        assert tx.connection.execute(misplaced).fetchall() == []
        assert tx.connection.execute(messages).fetchall() == tx.connection.execute(box).fetchall()
        waiting = "SELECT agent, count(*) FROM message WHERE state<2 GROUP BY agent"
        assert dict(tx.connection.execute(waiting).fetchall()) == tx._depths.messages()


TestMailboxModel = MailboxMachine.TestCase
TestMailboxModel.settings = settings(
    max_examples=60 if LONG else 30,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
