"""Every call: its parameters, its answer, who may make it. RPC, `agentd call` and `schema` are made from this table.

Parameters refuse unknown fields (a typo is caught); answers may grow. Daemon side only: the thin client sends maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from agentd.records import Role

_NAME_FORM = "a name is like build-2: a lower-case letter, then letters, digits and dashes, 48 at most"
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{0,47}$(?!\n)", description=_NAME_FORM)]
Target = Annotated[
    str,
    Meta(min_length=1, max_length=100, description="name, id or its unique start, @team, @team/role, %profile, all"),
]
Body = Annotated[str, Meta(max_length=1_000_000)]
MessageId = Annotated[str, Meta(pattern=r"^m[0-9a-z]{1,31}$(?!\n)", description="a message id is like m0333d61yevqh")]
TakenId = Annotated[
    str, Meta(min_length=2, max_length=32, description="message id, or id#attempt of one that was taken")
]
LeaseId = Annotated[
    str,
    Meta(pattern=r"^m[0-9a-z]{1,31}#[0-9]{1,6}$(?!\n)", description="id#attempt of a message, like m0333d61yevqh#1"),
]
_VARIABLE_FORM = "a variable's name is letters, digits and _, no digit first"
Variable = Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)", description=_VARIABLE_FORM)]
Lease = Annotated[float, Meta(ge=0.1, le=86_400, description="seconds")]
Seconds = Annotated[float, Meta(ge=0, le=31_536_000)]
Offset = Annotated[int, Meta(ge=0, le=(1 << 62), description="a place in a transcript or file")]
PageBytes = Annotated[int, Meta(ge=16_384, le=1_000_000, description="most bytes in one answer")]
EventId = Annotated[int, Meta(ge=0, le=(1 << 62), description="id of an event")]
Heartbeat = Annotated[float, Meta(ge=0.1, le=3600, description="seconds")]
UnixTime = Annotated[float, Meta(ge=0, le=32_503_680_000)]  # to the year 3000
Branch = Annotated[str, Meta(min_length=1, max_length=200, description="name of a git branch")]
_PROMPT_FORM = "a prompt's id is 10 hex digits, as `agentd approve` lists it"
Path = Annotated[str, Meta(max_length=4096)]
Priority = Literal["high", "normal", "low"]
MessageState = Literal["accepted", "delivering", "delivered", "acked", "expired", "dead"]
Json = dict[str, Any]


class Params(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every call's parameters."""


class Nothing(Params):
    """No parameters."""


class Shutdown(Params):
    """agents: keep them running (default) or stop them first."""

    agents: Literal["keep", "stop"] = "keep"


class Spawn(Params):
    """Start n agents of a profile; the answer comes when tmux has them, readiness follows as events.

    They wait for their turn where the machine has no room for more boots; those it does not come for within the call's
    deadline are not started, and named as failed.
    trust: the programs are told that you trust cwd and what stands in it, instead of asking.
    worktree: each in a fresh git worktree of the repository around cwd, on a branch of its own or on `branch`.
    key: the same caller's same key again starts nothing and answers what it started first, while those are kept.
    """

    profile: Annotated[str, Meta(min_length=1, max_length=48)]
    n: Annotated[int, Meta(ge=1, le=1000)] = 1
    name: Name | None = None
    team: Name | None = None
    role: Name | None = None
    cwd: Path | None = None
    env: dict[Variable, str] = {}
    prompt: Body | None = None
    key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    cold: bool = False
    worktree: bool = False
    branch: Branch | None = None
    trust: bool = False


class PoolPlace(Params):
    """A profile, and where: one directory; worktree: fresh git worktrees of the repository it lies in."""

    profile: Annotated[str, Meta(min_length=1, max_length=48)]
    cwd: Path | None = None
    worktree: bool = False
    trust: bool = False


class PoolSet(PoolPlace, kw_only=True):
    """Keep so many booted there; most: as many at times when more are asked for (size by default).

    recycle: programs of agents that are stopped there come back, after they forgot their session.
    """

    size: Annotated[int, Meta(ge=0, le=1000)]
    most: Annotated[int, Meta(ge=0, le=1000)] | None = None
    recycle: bool = False


class WorktreesClean(Params):
    """Whose worktrees, of all ended agents without; force gives up what is not committed, never a commit."""

    targets: Annotated[list[Target], Meta(max_length=1000)] = []
    force: bool = False


class PoolDrain(Params):
    """End the slots of a profile, and keep none any more; without a directory in all its places."""

    profile: Annotated[str, Meta(min_length=1, max_length=48)]
    cwd: Path | None = None


class OneProject(Params):
    """The project file in a directory, or the nearest above it."""

    cwd: Path


class ProjectTrust(OneProject, kw_only=True):
    """The same; digest: the SHA-256 of the content that was shown, which is the one that is trusted."""

    digest: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$(?!\n)", description="64 hex digits")]


class AgentsList(Params):
    """Which agents; without a target all that are not stopped."""

    target: Target | None = None
    state: Literal["starting", "idle", "working", "waiting", "stopped", "failed"] | None = None


class Cached(Params):
    """How old the answer may be: at most max_age_ms; no_cache asks tmux itself. The answer says its tier and age_ms."""

    max_age_ms: Annotated[float, Meta(ge=0, le=86_400_000)] | None = None
    no_cache: bool = False


class OneTarget(Params):
    """One agent."""

    target: Target


class Respawn(OneTarget):
    """One ended agent; fresh: its program begins a session of its own instead of going on with the last one."""

    fresh: bool = False


class Stop(Params):
    """Which agents to end; force kills at once."""

    targets: Annotated[list[Target], Meta(min_length=1, max_length=1000)]
    force: bool = False


class Keys(Params):
    """Key names as tmux knows them (Enter, Escape, C-c, Up) or single characters."""

    target: Target
    keys: Annotated[list[Annotated[str, Meta(min_length=1, max_length=32)]], Meta(min_length=1, max_length=100)]


class Approve(Params):
    """Whose permission prompts; prompt: its id, as agents.list shows it, of one agent's; another one is left alone."""

    target: Target
    prompt: Annotated[str, Meta(pattern=r"^[0-9a-f]{10}$(?!\n)", description=_PROMPT_FORM)] | None = None


class Deny(Approve, kw_only=True):
    """The same; the reason is sent to the agent and written down."""

    reason: Annotated[str, Meta(max_length=2000)] = ""


class Capture(Cached, kw_only=True):
    """The last `lines` of the screen and its scrollback; raw keeps colours."""

    target: Target
    lines: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    raw: bool = False


class AgentsWait(Params):
    """Wait until the agent reaches a state, exits, or answers."""

    target: Target
    until: Literal["starting", "idle", "working", "waiting", "stopped", "failed", "exit", "reply"]
    timeout_s: Seconds = 300.0


class AgentsReport(Params):
    """An event of a hook of the caller's own program, and what the program gave the hook to read, as it came."""

    event: Annotated[str, Meta(max_length=100)] = ""
    payload: Annotated[str, Meta(max_length=1_000_000)] = ""


class Send(Params):
    """One message to every agent that the target names."""

    to: Target
    body: Body
    key: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    priority: Priority = "normal"
    ttl_s: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None
    reply_to: MessageId | None = None
    headers: Annotated[dict[str, str], Meta(max_length=32)] = {}


class SendBatch(Params):
    """Many messages, one durable commit; each item is checked for itself, a bad one never stops the others."""

    messages: Annotated[list[Json], Meta(max_length=10_000)]


class OneMessage(Params):
    """One message."""

    id: Annotated[str, Meta(min_length=2, max_length=32)]


class MessagesThread(Params):
    """The conversation that a message belongs to; an agent sees what it sent or received of it."""

    id: Annotated[str, Meta(min_length=2, max_length=32)]
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class MessagesWait(Params):
    """Wait until the message reaches a state, or is answered."""

    id: Annotated[str, Meta(min_length=2, max_length=32)]
    until: Literal["accepted", "delivered", "acked", "reply"]
    timeout_s: Seconds = 300.0


class Inbox(Params):
    """The caller's inbox, or (operator) an agent's; reading one's own marks it delivered. all: ended ones too.

    wait_s: when nothing new is in one's own, so long for a message to come.
    """

    target: Target | None = None
    all: bool = False
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    wait_s: Seconds = 0.0


class Ids(Params):
    """Message ids."""

    ids: Annotated[list[Annotated[str, Meta(min_length=2, max_length=32)]], Meta(min_length=1, max_length=10_000)]


class Take(Params):
    """The next messages of the caller's own inbox; each is offered again after lease_s unless acked or extended."""

    limit: Annotated[int, Meta(ge=1, le=1000)] = 10
    lease_s: Lease = 60.0


class Extend(Params):
    """Taken messages, by id or by the lease that came with them, and how long to hold them from now on."""

    ids: Annotated[list[TakenId], Meta(min_length=1, max_length=10_000)]
    lease_s: Lease = 60.0


class Ack(Params):
    """Messages by id or by the lease that came with them; or all that were delivered to the caller."""

    ids: Annotated[list[TakenId], Meta(max_length=10_000)] = []
    all: bool = False


class Done(Params):
    """Messages the caller has in hand, by id or lease; none: all that were delivered to it.

    result: what each sender is answered with before they are acknowledged; a message that is an answer gets none.
    """

    ids: Annotated[list[TakenId], Meta(max_length=1000)] = []
    result: Body = ""


class Nack(Params):
    """Give messages back; they are offered again after the delay."""

    ids: Annotated[list[TakenId], Meta(min_length=1, max_length=10_000)]
    delay_s: Seconds = 0.0
    detail: Annotated[str, Meta(max_length=500)] = ""


class Confirm(Params):
    """Messages by the lease that came with them."""

    ids: Annotated[list[LeaseId], Meta(min_length=1, max_length=1000)]


class Dead(Params):
    """Dead letters of one inbox or of all."""

    target: Target | None = None
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 100


class LoopsReset(Params):
    """Chains, or agents by any TARGET; none means all."""

    names: Annotated[list[Target], Meta(max_length=1000)] = []


class OneShard(Params):
    """One shard of the mailbox, from 0."""

    shard: Annotated[int, Meta(ge=0, le=15)]


class MailboxVerify(OneShard, kw_only=True):
    """One step; cursor: the one of the answer before, none to begin."""

    cursor: Annotated[str, Meta(max_length=1000)] = ""


class MailboxExport(Params):
    """The next messages, by id; cursor: the one of the answer before. since: accepted at or after it, in seconds."""

    cursor: Annotated[str, Meta(max_length=32)] = ""
    target: Target | None = None
    states: Annotated[list[MessageState], Meta(max_length=6)] = []
    since: Annotated[float, Meta(ge=0, le=9e9)] = 0.0


class MailboxImport(Params):
    """Messages as an export gave them."""

    messages: Annotated[list[Json], Meta(max_length=10_000)]


class TeamUp(Params):
    """A team file as data; cwd is the directory that relative paths start from."""

    team: Json
    agents: Annotated[list[Json], Meta(min_length=1, max_length=1000)]
    cwd: Path


class OneTeam(Params):
    """One team."""

    team: Name


class OneProfile(Params):
    """One profile."""

    name: Annotated[str, Meta(min_length=1, max_length=48)]


class SessionsList(Cached):
    """Every tmux session of ours."""


class OneSession(Cached, kw_only=True):
    """One tmux session of ours, by id or name."""

    session: Annotated[str, Meta(min_length=1, max_length=100)]


class EventsList(Params):
    """Kept events after an id (0: all), of these types and about agents that one of the targets names."""

    since: EventId = 0
    types: Annotated[list[str], Meta(max_length=50)] = []
    targets: Annotated[list[Target], Meta(max_length=50)] = []
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000


class EventsFollow(Params):
    """Events as they happen, after those kept since an id (0: all); types may end in .* to mean a noun.

    targets: only what is about agents that one of these names, then or later. heartbeat_s: after so long a silence an
    item of the type `heartbeat` comes. coalesce: who is far behind gets the newest state of each agent alone.
    """

    since: EventId | None = None
    types: Annotated[list[str], Meta(max_length=50)] = []
    targets: Annotated[list[Target], Meta(max_length=50)] = []
    heartbeat_s: Heartbeat | None = None
    coalesce: bool = True


class AgentsFollow(Params):
    """What the agent prints: the screen and what is added to it, or all from an offset on; raw: bytes in base64."""

    target: Target
    offset: Offset | None = None
    raw: bool = False


class Transcript(Params):
    """What an agent printed: from an offset or a time on, or its last lines; else all. raw: bytes in base64."""

    target: Target
    offset: Offset | None = None
    since: UnixTime | None = None
    lines: Annotated[int, Meta(ge=1, le=10_000)] | None = None
    raw: bool = False
    limit_bytes: PageBytes = 262_144


class OwnLog(Params):
    """A part of the file in which the agent's program itself keeps its session; raw: bytes in base64."""

    target: Target
    offset: Offset = 0
    raw: bool = False
    limit_bytes: PageBytes = 262_144


class Search(Params):
    """Words, "phrases", prefixes*, OR and -words; of which inboxes, from whom, and when (unix time)."""

    query: Annotated[str, Meta(max_length=100_000)]
    in_: Literal["messages", "transcripts"] = msgspec.field(default="messages", name="in")
    target: Target | None = None
    sender: Target | None = None
    since: UnixTime | None = None
    until: UnixTime | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20


class Reindex(Params):
    """Which index."""

    in_: Literal["messages", "transcripts"] = msgspec.field(default="messages", name="in")


class MessagesFollow(Params):
    """Changes of messages: of one inbox, of one sender's messages, or of all; since, heartbeat_s as events.follow."""

    target: Target | None = None
    since: EventId | None = None
    heartbeat_s: Heartbeat | None = None


Takes = Literal["moments", "a wait", "long"]


@dataclass(frozen=True, slots=True)
class Call:
    """One row of the table."""

    name: str
    params: type[Params]
    doc: str
    agent_may: bool = False  # an agent's token suffices; otherwise the operator only
    own: bool = False  # an agent may for what it started itself, where agents may start any (agents.spawnable)
    writes: bool = True
    stream: bool = False
    takes: Takes = "moments"  # what [rpc] call_s, wait_s and long_s are the most of

    @property
    def recorded(self) -> bool:
        """Tell whether the call, once made, stands in the access log: it changes what is not the caller's own."""
        return self.writes and not self.agent_may


_TABLE = (
    Call("daemon.status", Nothing, "Say how the daemon is.", agent_may=True, writes=False),
    Call("daemon.shutdown", Shutdown, "Stop the daemon."),
    Call("daemon.metrics", Nothing, "Return counters and gauges.", writes=False),
    Call("config.show", Nothing, "Return each setting, its value and where it came from.", writes=False),
    Call(
        "notify.test", Nothing, "Run the commands of the configuration's [hooks] once, with an example.", takes="long"
    ),
    Call("agents.spawn", Spawn, "Start agents.", own=True, takes="long"),
    Call(
        "agents.starting",
        Nothing,
        "Say how far the calls of the caller's own process are that start agents.",
        agent_may=True,
        writes=False,
    ),
    Call("agents.list", AgentsList, "List agents.", agent_may=True, writes=False),
    Call("agents.get", OneTarget, "Return everything about one agent.", agent_may=True, writes=False),
    Call("agents.explain", OneTarget, "Say why an agent is thought to be in its state.", agent_may=True, writes=False),
    Call("agents.stop", Stop, "Stop agents.", own=True, takes="long"),
    Call("agents.respawn", Respawn, "Start an ended agent again under its identity.", takes="long"),
    Call("agents.rotate_token", OneTarget, "Give an agent a new token; the old one and its connections end at once."),
    Call("agents.keys", Keys, "Press keys in an agent's terminal."),
    Call("agents.interrupt", OneTarget, "Interrupt what an agent is doing."),
    Call("agents.approve", Approve, "Let agents do what they ask permission for.", takes="long"),
    Call("agents.deny", Deny, "Deny agents what they ask permission for.", takes="long"),
    Call("agents.capture", Capture, "Return what is on an agent's screen.", own=True, writes=False),
    Call("agents.answer", OneTarget, "Return an agent's last answer, whole, as its program told it.", writes=False),
    Call("agents.wait", AgentsWait, "Wait for an agent.", agent_may=True, writes=False, takes="a wait"),
    Call("agents.whoami", Nothing, "Say who the caller is.", agent_may=True, writes=False),
    Call("agents.report", AgentsReport, "Take in what a hook of the caller's program says.", agent_may=True),
    Call("agents.follow", AgentsFollow, "Stream what an agent prints.", writes=False, stream=True),
    Call("agents.transcript", Transcript, "Return what an agent printed.", writes=False),
    Call("agents.own_log", OwnLog, "Return what an agent's program itself wrote down of its session.", writes=False),
    Call("messages.send", Send, "Send a message; the answer means it is on disk.", agent_may=True),
    Call("messages.send_batch", SendBatch, "Send many messages in one durable commit.", agent_may=True),
    Call("messages.get", OneMessage, "Return a message and every state it went through.", agent_may=True, writes=False),
    Call("messages.thread", MessagesThread, "Return a conversation, oldest first.", agent_may=True, writes=False),
    Call(
        "messages.wait",
        MessagesWait,
        "Wait for a message's state or its answer.",
        agent_may=True,
        writes=False,
        takes="a wait",
    ),
    Call("messages.inbox", Inbox, "List an inbox.", agent_may=True, takes="a wait"),
    Call("messages.take", Take, "Take the next messages, for a time.", agent_may=True),
    Call("messages.extend", Extend, "Hold taken messages longer.", agent_may=True),
    Call("messages.ack", Ack, "Say that messages were dealt with.", agent_may=True),
    Call("messages.done", Done, "Answer messages in hand with a result and acknowledge them.", agent_may=True),
    Call("messages.confirm", Confirm, "Say that taken messages reached the caller's program.", agent_may=True),
    Call("messages.nack", Nack, "Give messages back.", agent_may=True),
    Call("messages.dead", Dead, "List dead letters.", writes=False),
    Call("messages.retry", Ids, "Offer dead letters again."),
    Call("messages.drop", Ids, "Delete dead letters."),
    Call("messages.search", Search, "Find messages by their words, best first.", agent_may=True, writes=False),
    Call(
        "messages.reindex",
        Reindex,
        "Make the index of messages or of transcripts again from what is stored.",
        takes="long",
    ),
    Call("messages.follow", MessagesFollow, "Stream changes of messages.", agent_may=True, writes=False, stream=True),
    Call("loops.list", Nothing, "List chains of messages near a limit or over it.", writes=False),
    Call("loops.reset", LoopsReset, "Let messages that went round in a loop flow again."),
    Call("mailbox.stats", Nothing, "Count what each shard of the mailbox holds.", writes=False),
    Call("mailbox.verify", MailboxVerify, "Look for damage in a small part of a shard.", writes=False, takes="long"),
    Call(
        "mailbox.export",
        MailboxExport,
        "Return the next messages with all there is about them.",
        writes=False,
        takes="long",
    ),
    Call(
        "mailbox.import",
        MailboxImport,
        "Bring exported messages back; those that are there stay as they are.",
        takes="long",
    ),
    Call("mailbox.compact", OneShard, "Rewrite a shard's file without its gaps.", takes="long"),
    Call("sessions.list", SessionsList, "List our tmux sessions.", writes=False),
    Call("sessions.get", OneSession, "Return one tmux session.", writes=False),
    Call("teams.up", TeamUp, "Bring a team up; what runs stays.", takes="long"),
    Call("teams.list", Nothing, "List teams.", agent_may=True, writes=False),
    Call("teams.get", OneTeam, "Return one team and its agents.", agent_may=True, writes=False),
    Call("teams.down", OneTeam, "Stop a team's agents.", takes="long"),
    Call("pool.list", Nothing, "List the places in which agents are kept booted.", writes=False),
    Call("pool.set", PoolSet, "Keep agents of a profile booted in a place.", takes="long"),
    Call(
        "pool.drain",
        PoolDrain,
        "End the booted agents of a profile that are nobody's, and keep none any more.",
        takes="long",
    ),
    Call("projects.get", OneProject, "Return a project file, whether it is trusted, and what it does.", writes=False),
    Call("projects.trust", ProjectTrust, "Trust a project file as it was shown, until it changes."),
    Call("projects.untrust", OneProject, "Use nothing of a project file any more."),
    Call("projects.up", OneProject, "Set the pools of a trusted project file and bring its team up.", takes="long"),
    Call(
        "worktrees.list", Nothing, "List the git worktrees of agents, with what is in each.", writes=False, takes="long"
    ),
    Call("worktrees.clean", WorktreesClean, "Remove the worktrees of ended agents, but no work in them.", takes="long"),
    Call("profiles.list", Nothing, "List profiles.", agent_may=True, writes=False),
    Call("profiles.get", OneProfile, "Return one profile.", agent_may=True, writes=False),
    Call("schema", Nothing, "Return this table with its types.", agent_may=True, writes=False),
    Call("events.list", EventsList, "Return kept events.", writes=False),
    Call("events.follow", EventsFollow, "Stream events.", writes=False, stream=True),
)

CALLS: dict[str, Call] = {call.name: call for call in _TABLE}
RECORDED = frozenset(call.name for call in _TABLE if call.recorded)


def rows_for(role: Role, *, agents_start: bool) -> dict[str, Call]:
    """Return the calls that such a caller may make, where agents may start agents or not."""
    may_all = role is Role.OPERATOR
    return {call.name: call for call in _TABLE if may_all or call.agent_may or (call.own and agents_start)}


def schema() -> dict[str, Any]:
    """Return the whole table with the types of its parameters as JSON Schema."""
    schemas, components = msgspec.json.schema_components([call.params for call in _TABLE])
    rows = {
        call.name: {
            "doc": call.doc,
            "params": shape,
            "agent_may": call.agent_may,
            "own": call.own,
            "writes": call.writes,
            "stream": call.stream,
            "takes": call.takes,
        }
        for call, shape in zip(_TABLE, schemas, strict=True)
    }
    return {"protocol": 1, "calls": rows, "components": components}
