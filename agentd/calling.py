"""What both clients know about calls: how long, whether again, and the shapes of the main answers."""

from __future__ import annotations

from agentd.errors import (
    AgentdError,
    Busy,
    Conflict,
    DeadlineExceeded,
    InternalError,
    InvalidValue,
    OverLimit,
    Unavailable,
    from_wire,
)
from agentd.wire import MAX_FRAME_BYTES
from agentd.wire.conversation import outcome
from agentd.wire.frames import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any, Concatenate, ParamSpec, TypeVar

    from agentd.records import Receipt

    A = TypeVar("A")
    C = TypeVar("C")
    R = TypeVar("R")
    P = ParamSpec("P")

CallError = AgentdError

DEFAULT_CREDIT = 256  # items of a stream under way
BACKOFF_S = (0.02, 0.05, 0.1, 0.2)  # pauses before connecting again
MOST_TRIES = 4  # of one call, over broken connections: one that is dying may still take a connection
RETURN_S = 0.4  # how long a call waits for a daemon that is just being restarted
CONNECTIONS = 8  # of one client, for calls at one time
BATCH_SIZE = 1000
BATCH_BYTES = MAX_FRAME_BYTES - 4096  # what is left of a frame for the call around the messages
WAIT_S = 300.0
LONGEST_WAIT_S = 31_536_000
WAIT_MARGIN_S = 5.0  # how much longer we wait for the answer of a call that itself waits
WAITS = frozenset({"agents.wait", "messages.wait"})  # their timeout_s is a parameter
STARTS = frozenset({"agents.spawn", "agents.respawn", "teams.up", "projects.up"})  # are told how long they have
READS = frozenset(  # calls that change nothing: made again when the connection broke
    {
        *("daemon.status", "daemon.metrics", "config.show", "schema", "profiles.list", "profiles.get"),
        *("pool.list", "worktrees.list", "projects.get"),
        *("agents.list", "agents.get", "agents.explain", "agents.capture", "agents.wait", "agents.whoami"),
        *("agents.answer", "agents.starting"),
        *("messages.get", "messages.wait", "messages.dead", "sessions.list", "sessions.get", "teams.list", "teams.get"),
        *(
            "events.list",
            "events.follow",
            "agents.follow",
            "agents.transcript",
            "agents.own_log",
            "messages.follow",
            "messages.search",
        ),
        *("mailbox.stats", "mailbox.verify", "mailbox.export", "messages.thread", "loops.list"),
    }
)
KEYED = frozenset({"messages.send", "agents.spawn"})  # with a key the daemon does them once
HEARTBEAT_S = 10.0  # of followers that go on by themselves
SILENCE_S = 3 * HEARTBEAT_S  # then the connection is taken for broken
PATIENCE_S = 30.0  # how long they wait for a daemon that is away
LONGEST_PAUSE_S = 1.0


class Lost(Exception):
    """Raised when a connection broke; `surely_undone` when the daemon cannot have seen the whole call."""

    def __init__(self, *, surely_undone: bool) -> None:
        super().__init__()
        self.surely_undone = surely_undone


class Pipelined:
    """A call of a pipeline."""

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.method = method
        self.params = params
        self._frame: list[Any] | None = None

    def answered(self, frame: list[Any]) -> None:
        """Keep the answer."""
        self._frame = frame

    def result(self) -> Any:
        """Return the answer, or raise the call's error."""
        if self._frame is None:
            raise InternalError(f"{self.method} has no answer yet", hint="ask after the pipeline's block")
        return outcome(self._frame)


class Gathered:
    """The calls of a pipeline, in order, until they go out together."""

    def __init__(self) -> None:
        self._calls: list[Pipelined] = []

    def call(self, method: str, params: Mapping[str, Any] | None = None, **kw: Any) -> Pipelined:
        """Add a call; its answer is there after the block."""
        added = Pipelined(method, {**(params or {}), **kw})
        self._calls.append(added)
        return added

    def _may_repeat(self) -> bool:
        return all(may_repeat(call.method, call.params) for call in self._calls)


class EventsAsked:
    """Which events a client's `events` yields, and how far it has seen them: what both clients share of following."""

    def __init__(
        self,
        *,
        follow: bool = False,
        since: int | None = None,
        types: Sequence[str] = (),
        targets: Sequence[str] = (),
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.follow = follow
        self.patience_s = patience_s
        self.seen = since
        self._params = {"types": list(types), "targets": list(targets)}

    @property
    def kept(self) -> dict[str, Any]:
        """Return the parameters of events.list."""
        return self._params if self.seen is None else {**self._params, "since": self.seen}

    @property
    def coming(self) -> dict[str, Any]:
        """Return the parameters of events.follow, from where it has seen them."""
        return {**self._params, "since": self.seen, "heartbeat_s": HEARTBEAT_S}

    def is_news(self, event: Mapping[str, Any]) -> bool:
        """Note how far the stream is; tells whether the event is one to be shown."""
        self.seen = event["id"]
        return str(event["type"]) != "heartbeat"


def taking(asked: Callable[P, A]) -> Callable[[Callable[[C, A], R]], Callable[Concatenate[C, P], R]]:
    """Return what gives a method the parameters of a record instead of the record, so that they are written once."""

    def decorate(make: Callable[[C, A], R]) -> Callable[Concatenate[C, P], R]:
        def method(client: C, /, *args: P.args, **kw: P.kwargs) -> R:
            return make(client, asked(*args, **kw))

        method.__name__, method.__doc__ = make.__name__, make.__doc__
        method.__wrapped__ = asked.__init__  # type: ignore[attr-defined]  # where inspect.signature looks
        return method

    return decorate


def method_named(name: str) -> str:
    """Return the call that a client's method makes: agents_list is agents.list."""
    from agentd.typed import METHODS

    method = METHODS.get(name)
    if method is None:
        raise AttributeError(
            f"a client has no `{name}`; calls are named noun_verb, `agentd schema` lists them, and `call` makes any"
        )
    return method


def as_method(name: str, declared: type, make: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that gives its parameters, a map or keywords, to `make`; it looks as it is declared."""

    def method(params: Mapping[str, Any] | None = None, **kw: Any) -> Any:
        return make(method_named(name), params, **{key.rstrip("_"): value for key, value in kw.items()})

    shown = getattr(declared, name)
    method.__name__, method.__doc__ = name, shown.__doc__
    method.__wrapped__ = shown.__get__(object())  # type: ignore[attr-defined]  # where inspect.signature looks
    return method


def pauses() -> Iterator[float]:
    """Yield the pauses before connecting again and again, longer and longer."""
    yield from BACKOFF_S
    pause_s = BACKOFF_S[-1]
    while True:
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        yield pause_s


def arguments(
    method: str, params: dict[str, Any], timeout_s: float | None, default_s: float
) -> tuple[dict[str, Any], dict[str, Any] | None, float]:
    """Return the parameters and options to send, and how long to wait for the answer."""
    if method in WAITS:
        wait_s = params.get("timeout_s", WAIT_S) if timeout_s is None else timeout_s
        params["timeout_s"] = wait_s
        known = isinstance(wait_s, int | float) and 0 <= wait_s <= LONGEST_WAIT_S  # the daemon refuses any other
        return params, None, wait_s + WAIT_MARGIN_S if known else default_s
    if timeout_s is None and method not in STARTS:
        wait_s = params.get("wait_s", 0)  # of a call that may wait, as messages.inbox does
        known = isinstance(wait_s, int | float) and 0 <= wait_s <= LONGEST_WAIT_S
        return params, None, default_s + wait_s if known else default_s
    allowed_s = default_s if timeout_s is None else timeout_s
    return params, {"deadline_ms": max(1, round(allowed_s * 1000))}, allowed_s


def rest_of_wait(
    method: str, params: dict[str, Any], waited_s: float, server: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return what to ask when a wait was over: None when it was whole, and not as long as the daemon lets one be."""
    longest_s = server.get("limits", {}).get("wait_s")
    if method not in WAITS or longest_s is None or waited_s < longest_s or params["timeout_s"] <= longest_s:
        return None
    return {**params, "timeout_s": max(0.0, params["timeout_s"] - waited_s)}


def may_repeat(method: str, params: Mapping[str, Any]) -> bool:
    """Tell whether making the call twice does what making it once does."""
    if method == "messages.send_batch":
        items = params.get("messages")  # checked by the daemon only: it may be anything
        return isinstance(items, list) and all(isinstance(item, dict) and item.get("key") for item in items)
    return method in READS or (method in KEYED and bool(params.get("key")))


def too_late(method: str) -> DeadlineExceeded:
    """Return the error for an answer that did not come in time."""
    return DeadlineExceeded(
        f"no answer to {method} in the time allowed; whether it was done is not known",
        hint="ask for its state before you repeat it, or give writes a key",
    )


def all_busy(method: str, most: int) -> Busy:
    """Return the error for a call that found every connection of its client in use until its time was over."""
    return Busy(
        f"all {most} connections of this client were in use for as long as {method} may take; nothing of it was sent",
        hint="give connect() more `connections`, or let fewer threads wait at one time",
    )


def closed() -> Conflict:
    """Return the error for a client that was closed."""
    return Conflict("this client was closed", hint="connect again")


def outcome_unknown() -> Unavailable:
    """Return the error for a connection that broke while a call was under way."""
    return Unavailable(
        "the connection broke before the answer; whether the call was done is not known",
        hint="give writes a key: then a repeat is harmless and made by itself",
    )


def stream_broke(method: str) -> Unavailable:
    """Return the error for a stream whose connection broke."""
    return Unavailable(f"the connection broke while {method} ran", hint="follow again from the last id")


def receipt(values: Mapping[str, Any]) -> Receipt:
    """Return a receipt's map as the record."""
    from agentd.records import MessageState, Receipt

    return Receipt(
        id=values["id"],
        to=values["to"],
        state=MessageState(values["state"]),
        duplicate=values.get("duplicate", False),
        line=values.get("line"),
        receipts=tuple(map(receipt, values.get("receipts") or ())),
    )


def spawned(answer: Mapping[str, Any], n: int) -> Any:
    """Return the one agent's map, or the list of agents and then of errors; raises when none started."""
    agents = list(answer["agents"])
    failed = [_error(row["error"]) for row in answer.get("failed") or ()]
    if failed and not agents:
        raise failed[0]
    return agents[0] if n == 1 else agents + failed


_SHORT = 50
_MOST_QUICK_BYTES = 10_000
_MOST_AROUND_BODY = 4 * _SHORT + 20  # the target, names and lengths


def chunks(items: Sequence[Mapping[str, Any]], batch_size: int) -> Iterator[list[dict[str, Any]] | AgentdError]:
    """Yield the messages in parts that each fit a call, and in its place the error of one that fits none."""
    chunk: list[dict[str, Any]] = []
    chunk_bytes = 0
    for item in items:
        size_bytes = _size_bytes(item)
        if isinstance(size_bytes, AgentdError) or len(chunk) >= batch_size or chunk_bytes + size_bytes > BATCH_BYTES:
            if chunk:
                yield chunk
            chunk, chunk_bytes = [], 0
        if isinstance(size_bytes, AgentdError):
            yield size_bytes
        else:
            chunk.append(dict(item))
            chunk_bytes += size_bytes
    if chunk:
        yield chunk


def _size_bytes(item: Mapping[str, Any]) -> int | AgentdError:
    try:
        size_bytes = _quick_size_bytes(item) or len(pack(dict(item)))
    except (TypeError, ValueError):
        return InvalidValue(
            "a message of a batch is a map with `to` and `body`", hint="correct this one; others went on"
        )
    except AgentdError as error:
        return error
    if size_bytes > BATCH_BYTES:
        return OverLimit(f"the message is {size_bytes} bytes long and {BATCH_BYTES} fit in a call", hint="shorten it")
    return size_bytes


def _quick_size_bytes(item: Mapping[str, Any]) -> int:
    """Return what a short plain message takes at most, without packing it twice; 0 for any other."""
    if not isinstance(item, dict) or len(item) != 2:
        return 0
    to, body = item.get("to"), item.get("body")
    if not (isinstance(to, str) and isinstance(body, str) and body.isascii()):
        return 0
    return len(body) + _MOST_AROUND_BODY if len(to) < _SHORT and len(body) < _MOST_QUICK_BYTES else 0


def batch_results(answer: Mapping[str, Any]) -> list[Receipt | AgentdError]:
    """Return each message's receipt or error."""
    return [_error(row["error"]) if "error" in row else receipt(row) for row in answer["results"]]


def rest_of_batch(error: AgentdError, count: int) -> list[Receipt | AgentdError]:
    """Return the error that stopped a batch for each message whose fate it decided."""
    return [error] * count


def _error(values: Mapping[str, Any]) -> AgentdError:
    return from_wire(values["code"], values["message"], values)
