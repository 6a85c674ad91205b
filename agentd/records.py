"""The records that travel between floors, and the states they go through."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple


class AgentState(enum.StrEnum):
    """What an agent is doing."""

    STARTING = "starting"  # its program runs and has not shown a ready screen yet
    IDLE = "idle"  # it can take input now
    WORKING = "working"  # it is busy with a turn or a command
    WAITING = "waiting"  # it asks a question or a permission
    STOPPED = "stopped"  # it ended because somebody asked, or with exit status 0
    FAILED = "failed"  # it ended otherwise, never became ready, or its pane is gone

    @property
    def live(self) -> bool:
        """Tell whether a program stands behind this state."""
        return self not in (AgentState.STOPPED, AgentState.FAILED)


class MessageState(enum.StrEnum):
    """Where a message is."""

    ACCEPTED = "accepted"  # durable, waiting for its agent
    DELIVERING = "delivering"  # leased to a courier or a reader
    DELIVERED = "delivered"  # seen to be submitted to the agent, or read by it
    ACKED = "acked"  # the agent, its hook or its reader said so
    EXPIRED = "expired"  # its own time to live ran out first
    DEAD = "dead"  # given up after the last attempt; kept, listed, can be retried

    @property
    def final(self) -> bool:
        """Tell whether no further attempt will be made by itself."""
        return self in (MessageState.ACKED, MessageState.EXPIRED, MessageState.DEAD)


class Priority(enum.IntEnum):
    """Which of an inbox's messages goes first; a smaller number goes first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Role(enum.StrEnum):
    """Who is calling: the user's own programs, or a program inside an agent's pane."""

    OPERATOR = "operator"
    AGENT = "agent"


RESERVED_NAMES = frozenset({"operator", "system", "daemon", "all"})
NAME_PATTERN = r"[a-z][a-z0-9-]{0,47}"  # contract §3
OPERATOR = "operator"  # the inbox of the person who runs the daemon


@dataclass(frozen=True, slots=True)
class Caller:
    """The identity the daemon gave a connection; nothing the peer sends can change it."""

    role: Role
    agent_id: str = ""  # empty for the operator
    name: str = OPERATOR
    pid: int = 0
    uid: int = -1

    @property
    def inbox(self) -> str:
        """Return the inbox that is the caller's own."""
        return self.agent_id or OPERATOR


@dataclass(frozen=True, slots=True)
class PaneRef:
    """A pane that cannot be confused with one of another tmux server or another lifetime."""

    session_id: str  # $3
    window_id: str  # @5
    pane_id: str  # %7
    pid: int  # of the program in the pane
    server: str  # "<pid>:<start time>" of the tmux server


@dataclass(frozen=True, slots=True)
class Agent:
    """One program in one pane, with an identity and an inbox."""

    id: str
    name: str
    profile: str
    state: AgentState
    reason: str = ""
    team: str = ""
    role: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    pane: PaneRef | None = None
    created_ns: int = 0
    since_ns: int = 0  # wall clock of the last change of state
    exit_status: int | None = None
    waits_for: str = ""  # what a waiting agent wants: permission, question, login, rate_limit, trust, error
    resume_id: str = ""  # the program's own name for its session, with which it can go on after its end
    log_path: str = ""  # the program's own record of the session, where it keeps one
    pooled: bool = False  # a slot of the pool: booted, and nobody's yet
    warm: bool = False  # it came from the pool
    fence: int = 0  # of the hand-out from the pool; the next one's is higher
    repo: str = ""  # the git repository whose worktree its directory is
    branch: str = ""  # of that worktree
    started_by: str = ""  # the id of the agent that started it; empty: the operator did
    family: str = ""  # the id of the agent that the operator started, from which this one comes
    generation: int = 0
    spawn_key: str = ""  # of whoever started it: the same key again starts nothing
    trusted: bool = False  # its directory, by whoever started it: the program is told so and does not ask
    booted_as: str = ""  # the id that its program's session, files and environment carry, when that is not its own
    spent: bool = False  # a slot whose program has served another agent, and is not known to have forgotten it

    @property
    def home(self) -> str:
        """Return the id by which its program is found; each is one agent's at a time."""
        return self.booted_as or self.id


NO_HEADERS: Final[Mapping[str, str]] = {}


# What is made once for each message of a batch is a named tuple: a frozen dataclass takes three times as long to make.


class Draft(NamedTuple):
    """A message before it is accepted; `to` is the recipient's agent id, or 'operator'."""

    to: str
    sender: str
    body: str
    key: str | None = None  # idempotency key, per sender, remembered for 24 h
    priority: Priority = Priority.NORMAL
    ttl_s: float | None = None
    reply_to: str | None = None
    headers: Mapping[str, str] = NO_HEADERS
    thread: str | None = None  # the first message of the conversation that this one answers in
    trace: str | None = None  # the message or broadcast that set off the chain this one belongs to; None: it begins one
    hops: int = 0  # how many agents handled the chain before


class Receipt(NamedTuple):
    """The promise that a message is on disk."""

    id: str
    to: str
    state: MessageState = MessageState.ACCEPTED
    duplicate: bool = False  # the key was known: this is the receipt of the first one
    line: int | None = None
    receipts: tuple[Receipt, ...] = ()  # one per recipient when TARGET named a group


class HistoryEntry(NamedTuple):
    """One state a message went through."""

    state: MessageState
    at_ns: int  # wall clock
    detail: str = ""


class Message(NamedTuple):
    """A durable message; `to` is the recipient's agent id, or 'operator'."""

    id: str
    to: str
    sender: str
    body: str
    state: MessageState
    attempts: int = 0
    key: str | None = None
    priority: Priority = Priority.NORMAL
    created_ns: int = 0
    expires_ns: int | None = None
    due_ns: int = 0  # not offered before; a lease moves it forward
    reply_to: str | None = None
    headers: Mapping[str, str] = NO_HEADERS
    history: tuple[HistoryEntry, ...] = ()
    thread: str | None = None  # the first message of the conversation; None: it is the first, or alone
    trace: str | None = None  # the message that set off the chain this one belongs to; None: it began one
    hops: int = 0


class Delivery(NamedTuple):
    """A message leased to one taker; `attempt` makes a late answer of an expired lease harmless."""

    message: Message
    attempt: int


class Change(NamedTuple):
    """A committed change of a message's state, as it is told to those who wait."""

    id: str
    to: str
    state: MessageState
    sender: str = ""
    reply_to: str | None = None
    detail: str = ""


EVENT_TYPES: Final = (
    *("agent.spawned", "agent.respawned", "agent.state", "agent.permission", "agent.notified"),
    *(f"message.{state}" for state in MessageState),
    *("message.refused", "daemon.started", "daemon.stopping", "tmux.gone", "profile.loaded", "profile.refused"),
    *("mailbox.shard", "switch.off", "transcripts.stopped", "transcripts.resumed", "transcripts.report"),
    *("hook.test", "hook.failed", "hook.dropped", "call.refused", "peer.closed"),
)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened; its number is never given again."""

    id: int
    type: str  # noun.verb: agent.state, message.accepted, daemon.started ...
    at_ns: int
    data: Mapping[str, object] = field(default_factory=dict)
