"""What can be asked of a shard; each command runs inside a transaction that it shares with its neighbours."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar, cast

from agentd.errors import AgentdError, Conflict
from agentd.mailbox.ids import text_of, unknown
from agentd.mailbox.keys import digest_of
from agentd.mailbox.rows import COLUMNS, NUMBER, STATES, Head, Row, damaged, intact, message_of, place_of
from agentd.mailbox.transaction import Move, Stall, Transaction
from agentd.records import Delivery, Draft, Message, MessageState, Priority

T_co = TypeVar("T_co", covariant=True)
Outcomes = list[AgentdError | None]  # one per item, in order; None is success
COST_BYTES = 8192  # a message costs 1, and 1 more for each of these in its body


class Command(Protocol[T_co]):
    """Something to do in a transaction."""

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""

    @property
    def sends(self) -> bool:
        """Tell whether this needs room on the disk that is kept for other things."""

    @property
    def lists(self) -> bool:
        """Tell whether this looks into the box or changes it, which must be complete before."""

    def run(self, tx: Transaction, /) -> T_co:
        """Do it; raising an error undoes this command and no other."""


@dataclass(slots=True)
class Put:
    """Accept messages; not a command of its own, for a transaction accepts those of its neighbours at once."""

    sends: ClassVar[bool] = True
    drafts: Sequence[Draft]
    cost: int
    names: Sequence[bytes | None] = ()

    def name_keys(self) -> Sequence[bytes | None]:
        """Work out what the drafts' keys are called."""
        self.names = [digest_of(draft) for draft in self.drafts]
        return self.names


@dataclass(frozen=True, slots=True)
class Reserve:
    """Lease the next messages of an inbox."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    agent: str
    limit: int
    max_bytes: int
    lease_ns: int
    max_attempts: int | None = None

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return self.limit

    def run(self, tx: Transaction) -> list[Delivery]:
        """Return what may be delivered now, by priority and then by age, within the limits; one at least."""
        choice = self._choose(tx)
        expire(tx, choice.expired)
        rows = tx.rows(choice.seqs)
        deliveries = [delivery for seq in choice.seqs if (delivery := self._lease(tx, rows[seq]))]
        if not deliveries:
            tx.effects.append(Stall(self.agent, frozenset(choice.behind)))
        return deliveries

    def _choose(self, tx: Transaction) -> _Choice:
        """Walk along the inbox; what is not due yet holds back the later messages of its sender."""
        choice = _Choice([], [], set())
        room = self.max_bytes
        cursor = tx.connection.cursor()
        rows = cursor.execute(
            "SELECT seq, state, due, exp, sender, size FROM box WHERE agent=? AND place<3 ORDER BY place, seq",
            (self.agent,),
        )
        for seq, state, due, exp, sender, size in rows:
            if exp is not None and exp <= tx.now_ns and (state == 0 or due <= tx.now_ns):
                choice.expired.append(seq)
            elif due > tx.now_ns:
                choice.behind.add(sender)
            elif sender not in choice.behind:
                if len(choice.seqs) >= self.limit or (choice.seqs and size > room):
                    break
                choice.seqs.append(seq)
                room -= size
        cursor.close()
        return choice

    def _lease(self, tx: Transaction, row: Row) -> Delivery | None:
        head = Head(
            row.seq,
            row.agent,
            row.prio,
            row.state,
            row.tries,
            row.due,
            row.sender,
            row.reply_to,
            row.hist,
            len(row.body),
        )
        if not intact(row):
            bury_damaged(tx, head)
            return None
        if self.max_attempts is not None and row.tries >= self.max_attempts:
            tx.move(head, Move(MessageState.DEAD, f"the lease of attempt {row.tries} ran out, it was the last one"))
            return None
        due_ns = tx.now_ns + self.lease_ns
        leased = tx.move(head, Move(MessageState.DELIVERING, f"attempt {row.tries + 1}", row.tries + 1, due_ns))
        message = message_of(row, leased, due_ns)
        return Delivery(message, leased.tries)


@dataclass(slots=True)
class _Choice:
    seqs: list[int]
    expired: list[int]
    behind: set[str]  # senders with a message that is leased or in back-off


def expire(tx: Transaction, seqs: Iterable[int]) -> None:
    """Give messages their end: their own time to live ran out first."""
    for head in tx.heads(seqs).values():
        tx.move(head, Move(MessageState.EXPIRED, "its time to live ran out"))


def bury_damaged(tx: Transaction, head: Head) -> None:
    """Take a damaged message out of the way, so that it is listed as what it is and delays nobody."""
    tx.damaged.append(head.seq)
    tx.move(head, Move(MessageState.DEAD, "damaged on disk"))


Decision = tuple[Move, ...] | AgentdError  # no move: it already is as it should be
Decide = Callable[[Head], Decision]


@dataclass(frozen=True, slots=True)
class Target:
    """A message by its number, or the one attempt of it that somebody holds."""

    seq: int
    attempt: int | None = None
    leased: bool = False  # and its lease must not have run out


@dataclass(frozen=True, slots=True)
class Settle:
    """Move messages to another state, each as a rule decides."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    targets: Sequence[Target]
    decide: Decide
    agent: str | None = None  # only messages to this inbox

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.targets)

    def run(self, tx: Transaction) -> Outcomes:
        """Return what was against it for each target."""
        heads = tx.heads(target.seq for target in self.targets)
        return [self._settle(tx, target, heads) for target in self.targets]

    def _settle(self, tx: Transaction, target: Target, heads: dict[int, Head]) -> AgentdError | None:
        head = heads.get(target.seq)
        if head is None or (self.agent is not None and head.agent != self.agent):
            return unknown(text_of(target.seq))
        decision = _stale(head, target, tx.now_ns) or self.decide(head)
        if isinstance(decision, AgentdError):
            return decision
        if decision:
            heads[target.seq] = tx.move(head, *decision)
        return None


def _stale(head: Head, target: Target, now_ns: int) -> Conflict | None:
    if target.attempt is None:
        return None
    if target.leased and STATES[head.state] is MessageState.ACKED and head.tries == target.attempt:
        return None  # said twice
    if STATES[head.state] is not MessageState.DELIVERING or head.tries != target.attempt:
        return Conflict(
            f"attempt {target.attempt} of {text_of(head.seq)} is over:"
            f" the message is {STATES[head.state]}, attempt {head.tries}"
        )
    return _run_out(head) if target.leased and head.due <= now_ns else None


def _run_out(head: Head) -> Conflict:
    return Conflict(
        f"the lease of attempt {head.tries} of {text_of(head.seq)} ran out; the message is offered again",
        hint="take it again, and extend the lease in time",
    )


def deliver(detail: str) -> Decide:
    """Return the rule by which a taken message becomes delivered; one that is acknowledged by now stays so."""
    moves = (Move(MessageState.DELIVERED, detail),)
    return lambda head: () if STATES[head.state] is MessageState.ACKED else moves


def release() -> Decide:
    """Return the rule by which a taken message waits again as if it had not been taken."""
    return lambda head: (Move(MessageState.ACCEPTED, tries=head.tries - 1, forget=True),)


def extend(now_ns: int, lease_ns: int) -> Decide:
    """Return the rule by which a taken message stays so for longer; a lease that ran out is not brought back."""

    def decide(head: Head) -> Decision:
        if STATES[head.state] is not MessageState.DELIVERING:
            return _not_so(head, "only a message that is taken can be held longer")
        if head.due <= now_ns:
            return _run_out(head)
        detail = f"attempt {head.tries}, held longer"
        return (Move(MessageState.DELIVERING, detail, due_ns=now_ns + lease_ns, replaces=True),)

    return decide


def nack(due_ns: int, detail: str, max_attempts: int) -> Decide:
    """Return the rule by which a taken or delivered message is offered again later, or given up."""

    def decide(head: Head) -> Decision:
        state = STATES[head.state]
        if state not in (MessageState.DELIVERING, MessageState.DELIVERED):
            return _not_so(head, "it cannot be given back")
        if head.tries >= max_attempts:
            return (Move(MessageState.DEAD, detail),)
        return (Move(MessageState.ACCEPTED, detail, due_ns=due_ns),)

    return decide


def ack(by: str) -> Decide:
    """Return the rule by which a message is done with; one that is so already stays as it is."""
    done = Move(MessageState.ACKED, f"by {by}")
    # An agent may answer before the courier saw its screen change; that it has the message is known all the same.
    early = Move(MessageState.DELIVERED, "acknowledged")

    def decide(head: Head) -> Decision:
        state = STATES[head.state]
        if state is MessageState.ACKED:
            return ()
        if state.final:
            return _not_so(head, "it cannot be acknowledged")
        return (early, done) if state is MessageState.DELIVERING else (done,)

    return decide


def retry() -> Decide:
    """Return the rule by which a dead letter is offered again, with all its attempts before it."""

    def decide(head: Head) -> Decision:
        if STATES[head.state] is not MessageState.DEAD:
            return _not_so(head, "only a dead letter can be retried")
        return (Move(MessageState.ACCEPTED, "retried", tries=0),)

    return decide


def _not_so(head: Head, what: str) -> Conflict:
    return Conflict(f"{text_of(head.seq)} is {STATES[head.state]}; {what}")


@dataclass(frozen=True, slots=True)
class Drop:
    """Delete dead letters."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    seqs: Sequence[int]

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return len(self.seqs)

    def run(self, tx: Transaction) -> Outcomes:
        """Return what was against it for each message."""
        heads = tx.heads(self.seqs)
        return [self._drop(tx, seq, heads.pop(seq, None)) for seq in self.seqs]

    def _drop(self, tx: Transaction, seq: int, head: Head | None) -> AgentdError | None:
        if head is None:
            return unknown(text_of(seq))
        if STATES[head.state] is not MessageState.DEAD:
            return _not_so(head, "only a dead letter can be dropped")
        tx.drop([seq])
        return None


@dataclass(frozen=True, slots=True)
class Get:
    """Read one message."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    cost: ClassVar[int] = 1
    seq: int

    def run(self, tx: Transaction) -> Message:
        """Return the message; raises NotFound, or StorageError when it is damaged."""
        row = tx.rows([self.seq]).get(self.seq)
        if row is None:
            raise unknown(text_of(self.seq))
        return _sound(tx, row)


def _sound(tx: Transaction, row: Row) -> Message:
    if not intact(row):
        tx.damaged.append(row.seq)
        raise damaged(row.seq)
    return message_of(row)


def sound_messages(tx: Transaction, rows: Iterable[Row]) -> list[Message]:
    """Return the messages of the rows that are intact; the others are counted as damaged."""
    messages: list[Message] = []
    for row in rows:
        if intact(row):
            messages.append(message_of(row))
        else:
            tx.damaged.append(row.seq)
    return messages


@dataclass(frozen=True, slots=True)
class After:
    """Read on from a message, whatever its inbox and state."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    seq: int
    limit: int
    max_bytes: int

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return self.limit // 10

    def run(self, tx: Transaction) -> list[Row]:
        """Return the next rows in the order of their acceptance, damaged ones too; one at least if there is one."""
        sql = f"SELECT {COLUMNS} FROM message WHERE seq>? ORDER BY seq LIMIT ?"  # noqa: S608
        rows: list[Row] = []
        room = self.max_bytes
        cursor = tx.connection.cursor()
        for row in map(Row._make, cursor.execute(sql, (self.seq, self.limit))):
            rows.append(row)
            room -= len(row.body)
            if room <= 0:
                break
        cursor.close()
        return rows


@dataclass(frozen=True, slots=True)
class CountAfter:
    """Count what was accepted after a message."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    cost: ClassVar[int] = 1
    seq: int
    limit: int

    def run(self, tx: Transaction) -> int:
        """Return how many there are, or the limit."""
        sql = "SELECT count(*) FROM (SELECT 1 FROM m WHERE seq>? LIMIT ?)"
        count: int = tx.connection.execute(sql, (self.seq, self.limit)).get
        return count


@dataclass(frozen=True, slots=True)
class Inbox:
    """Read an inbox."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    agent: str
    states: Sequence[MessageState]
    limit: int

    @property
    def cost(self) -> int:
        """Return how much of a transaction this takes, in messages."""
        return min(self.limit, 1000)

    def run(self, tx: Transaction) -> list[Message]:
        """Return the oldest messages in these states, oldest first; damaged ones are counted and left out."""
        found: list[list[tuple[int]]] = [
            cast(
                "list[tuple[int]]", tx.connection.execute(_STANDING, (self.agent, place, states, self.limit)).fetchall()
            )
            for place, states in self._places()
        ]
        seqs = [seq for (seq,), _ in zip(heapq.merge(*found), range(self.limit), strict=False)]
        rows = tx.rows(seqs)
        return sound_messages(tx, [rows[seq] for seq in seqs if seq in rows])

    def _places(self) -> list[tuple[int, str]]:
        """Return each place of the box to read, and the states wanted there, for SQLite."""
        wanted: dict[int, list[str]] = {}
        for number in sorted(NUMBER[state] for state in self.states):
            for place in {place_of(number, int(priority)) for priority in Priority}:
                wanted.setdefault(place, []).append(str(number))
        return [(place, f"[{','.join(numbers)}]") for place, numbers in wanted.items()]


_STANDING = (
    "SELECT seq FROM box WHERE agent=? AND place=? AND state IN (SELECT value FROM json_each(?)) ORDER BY seq LIMIT ?"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """Look for an answer."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = False
    cost: ClassVar[int] = 1
    agent: str
    reply_to: str

    def run(self, tx: Transaction) -> Message | None:
        """Return the first message in an inbox that answers another one, None when there is none."""
        sql = f"SELECT {COLUMNS} FROM message WHERE reply_to=? AND agent=? ORDER BY seq LIMIT 1"  # noqa: S608
        found = tx.connection.execute(sql, (self.reply_to, self.agent)).fetchone()
        return _sound(tx, Row._make(found)) if found else None


@dataclass(frozen=True, slots=True)
class Counts:
    """Count an inbox."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    agent: str

    def run(self, tx: Transaction) -> dict[MessageState, int]:
        """Return how many of its messages are in which state."""
        sql = "SELECT state, count(*) FROM box WHERE agent=? GROUP BY state"
        rows: list[Any] = tx.connection.execute(sql, (self.agent,)).fetchall()
        return {STATES[state]: count for state, count in rows}


@dataclass(frozen=True, slots=True)
class Sweep:
    """Give messages whose time to live ran out their end."""

    sends: ClassVar[bool] = False
    lists: ClassVar[bool] = True
    cost: ClassVar[int] = 1
    limit: int = 1000

    def run(self, tx: Transaction) -> int:
        """Return how many there were; a leased message is left to its taker."""
        sql = (
            "SELECT seq FROM box INDEXED BY box_exp"
            " WHERE place<3 AND exp IS NOT NULL AND exp<=? AND (state=0 OR due<=?) LIMIT ?"
        )
        found: list[Any] = tx.connection.execute(sql, (tx.now_ns, tx.now_ns, self.limit)).fetchall()
        seqs = [seq for (seq,) in found]
        expire(tx, seqs)
        return len(seqs)
