"""Every setting: its default, its check and where its value came from."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from agentd.errors import InvalidValue
from agentd.records import AgentState, MessageState

MAX_SERVERS = 16
SERVERS = ("auto", *(str(count) for count in range(1, MAX_SERVERS + 1)))
MAX_FRAME_LIMIT_BYTES = 16 * 1024 * 1024  # rpc.md: a client may be allowed up to this


def _setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] = (),
    line: bool = False,
) -> Any:
    values = {"doc": doc, "low": low, "high": high, "choices": tuple(choices), "line": line}
    return field(default=default, metadata=values)


@dataclass(frozen=True, slots=True)
class AgentsConfig:
    """Limits on agents."""

    max: int = _setting(1000, "most agents alive at once", low=1, high=4000)
    keep_stopped: int = _setting(1000, "ended agents that stay listed", low=0, high=100_000)
    respawn_pause_s: float = _setting(
        1.0,
        "time until a crashed agent is started again, if its profile wants it; doubled each time",
        low=0,
        high=3600,
    )
    spawnable: tuple[str, ...] = _setting((), "profiles that agents may start by themselves")
    spawn_depth: int = _setting(3, "generations of agents that agents may start", low=1, high=100)
    spawns_per_min: int = _setting(10, "agents that one agent may start in a minute", low=1, high=10_000)
    family_max: int = _setting(20, "most agents alive at once that come of one, through others too", low=1, high=4000)
    boots_cores: float = _setting(
        0.0, "cores that agents may keep busy together while they boot; 0: all of this machine's", low=0, high=1024
    )
    boots_reserve_mb: int = _setting(
        300, "free memory below which no agent is booted beside another", low=0, high=1_000_000
    )
    stop_timeout_s: float = _setting(5.0, "time from asking an agent to end until it is killed", low=0.1, high=300)


@dataclass(frozen=True, slots=True)
class CacheConfig:
    """Answers about tmux kept in memory and on disk; each tier can be turned off by itself."""

    l1: bool = _setting(default=True, doc="keep answers in memory")
    l1_ttl_s: float = _setting(15.0, "how long the first tier serves an answer", low=0.05, high=3600)
    l1_size: int = _setting(2_000, "most answers of the first tier", low=1, high=1_000_000)
    l2: bool = _setting(default=True, doc="keep answers that were asked for ahead of their caller")
    l2_ttl_s: float = _setting(60.0, "how long the second tier serves an answer", low=0.05, high=3600)
    l2_size: int = _setting(5_000, "most answers of the second tier", low=1, high=1_000_000)
    l3: bool = _setting(default=True, doc="keep answers across restarts of the daemon")
    l3_ttl_s: float = _setting(300.0, "how long the third tier serves an answer", low=0.05, high=86_400)
    l3_size: int = _setting(10_000, "most answers of the third tier", low=1, high=1_000_000)
    redis_url: str = _setting("", "keep the third tier there (redis://, rediss://, unix://) instead of in a file")
    negative_ttl_s: float = _setting(2.0, "how long `there is no such session` is served", low=0.05, high=60)
    deaf_ttl_s: float = _setting(1.0, "oldest answer served while tmux's events do not reach us", low=0.0, high=60)
    prefetch: bool = _setting(default=True, doc="ask for what a caller is likely to ask next")
    prefetch_confidence: float = _setting(0.7, "least probability of a next query to ask for it", low=0.01, high=1.0)
    prefetch_precision: float = _setting(0.5, "share of used guesses below which guessing pauses", low=0.0, high=1.0)
    prefetch_per_s: float = _setting(50.0, "most guesses asked for in a second", low=0.1, high=10_000)


@dataclass(frozen=True, slots=True)
class CourierConfig:
    """How messages are typed into agents."""

    batch_messages: int = _setting(100, "most messages in one paste", low=1, high=1000)
    batch_bytes: int = _setting(32_768, "most bytes in one paste", low=256, high=65_536)
    lease_s: float = _setting(30.0, "how long a delivery may take before it is offered again", low=1, high=3600)
    max_attempts: int = _setting(5, "attempts before a message is dead", low=1, high=100)
    backoff_s: float = _setting(1.0, "wait after a failed attempt, doubled each time", low=0.01, high=300)
    confirm_s: float = _setting(5.0, "wait for a paste or an Enter to show on the screen", low=0.1, high=60)


@dataclass(frozen=True, slots=True)
class EventsConfig:
    """What happened, kept for readers that come back."""

    store_mb: float = _setting(
        64.0, "most megabytes of events kept on disk; 0: those in memory only", low=0, high=1_000_000
    )


@dataclass(frozen=True, slots=True)
class HooksConfig:
    """Commands of the user's own that run when something happens."""

    on_state: tuple[str, ...] = _setting(
        (), "run when an agent comes to one of `states`: a line for sh, or a list of words", line=True
    )
    states: tuple[str, ...] = _setting(
        ("waiting", "failed"), "the states that on_state and notify are for", choices=tuple(AgentState)
    )
    on_message: tuple[str, ...] = _setting(
        (), "run when messages come to one of `messages`: a line for sh, or a list of words", line=True
    )
    messages: tuple[str, ...] = _setting(
        ("expired", "dead"), "the states of messages that on_message is for", choices=tuple(MessageState)
    )
    notify: str = _setting(
        "none",
        "tell of `states` on the desktop: by notify-send, or by OSC 9 to the terminals that are attached",
        choices=("none", "notify-send", "osc9"),
    )
    timeout_s: float = _setting(10.0, "time after which a command is killed", low=0.1, high=300)
    at_once: int = _setting(4, "most commands running at once", low=1, high=64)
    queue: int = _setting(200, "most commands waiting for their turn; beyond, they are dropped", low=1, high=10_000)


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What the daemon writes down."""

    level: str = _setting("info", "least important level kept", choices=("debug", "info", "warning", "error"))


@dataclass(frozen=True, slots=True)
class LoopsConfig:
    """What keeps agents from answering each other for ever; the operator's own messages are not limited."""

    enabled: bool = _setting(default=True, doc="refuse messages of agents that go round in a loop")
    max_hops: int = _setting(16, "most agents a chain of answers goes through", low=1, high=10_000)
    trace_messages: int = _setting(200, "most messages that may come of one", low=2, high=1_000_000)
    pair_per_min: int = _setting(10, "answers an agent may send to another in a minute", low=1, high=1_000_000)
    self_per_min: int = _setting(3, "answers an agent may send to itself in a minute", low=1, high=1_000_000)
    broadcast_recipients: int = _setting(100, "most recipients of one message of an agent", low=1, high=4000)
    window_s: float = _setting(
        600.0, "what an agent sends within this time after a message counts as caused by it", low=0.1, high=86_400
    )


@dataclass(frozen=True, slots=True)
class MailboxConfig:
    """Where messages are kept."""

    shards: int = _setting(2, "files that a new mailbox has; `agentd mailbox reshard N` changes it", low=1, high=16)
    max_body_bytes: int = _setting(262_144, "largest message body", low=1024, high=1_000_000)
    max_inbox_messages: int = _setting(100_000, "most undelivered messages of one inbox", low=10, high=10_000_000)
    max_inbox_mb: int = _setting(256, "most undelivered megabytes of one inbox", low=1, high=1_000_000)
    max_sender_share: float = _setting(
        0.5, "share of max_inbox_messages that one agent may fill with its own", low=0.001, high=1.0
    )
    reserve_mb: int = _setting(64, "free disk space kept for acks; sends are refused below it", low=0, high=100_000)
    group_commit: bool = _setting(default=True, doc="callers that send at one time share a commit; false: one each")
    batch_wait_ms: float = _setting(
        3.0, "longest wait for more messages to commit together, while several callers send", low=0, high=1000
    )
    key_window_s: float = _setting(86_400.0, "how long an idempotency key is remembered, at least", low=1, high=864_000)
    journal: bool = _setting(default=True, doc="keep the unsynced second copy that a damaged shard is rebuilt from")
    keep_days: float = _setting(
        30.0, "days after which messages that are acked or expired are removed; 0: never for that", low=0, high=36_500
    )
    keep_messages: int = _setting(
        100_000, "most acked and expired messages kept of one inbox", low=100, high=1_000_000_000
    )
    keep_mb: int = _setting(1000, "most megabytes of them kept of one inbox", low=1, high=1_000_000)
    keep_dead_days: float = _setting(
        0.0, "days after which dead letters are removed; 0: they are kept", low=0, high=36_500
    )
    archive: bool = _setting(default=True, doc="write messages into a compressed file before they are removed")
    archive_mb: int = _setting(10_000, "most megabytes of such files; the oldest are deleted", low=1, high=100_000_000)


@dataclass(frozen=True, slots=True)
class PoolConfig:
    """Agents that are kept booted for whoever asks next."""

    enabled: bool = _setting(default=True, doc="keep agents booted where `agentd pool set` or pool.size says so")
    size: int = _setting(
        0, "agents kept booted wherever one was asked for within the last hour, without being set", low=0, high=100
    )
    max_slots: int = _setting(32, "most agents kept booted in all places together", low=0, high=1000)
    boots_at_once: int = _setting(2, "most of them booting at the same time", low=1, high=64)
    boots_per_min: int = _setting(60, "most of them begun in a minute", low=1, high=100_000)
    max_boot_s: float = _setting(300.0, "time after which one that is not ready is given up", low=0.1, high=3600)
    max_age_s: float = _setting(14_400.0, "time after which one is replaced by a fresh one", low=1, high=2_592_000)
    grace_s: float = _setting(60.0, "time between two that are ended because fewer are asked for", low=0.1, high=86_400)
    slot_mb: int = _setting(300, "memory that one of them is taken to need", low=1, high=100_000)
    reserve_mb: int = _setting(500, "free memory below which none is booted", low=0, high=1_000_000)
    load_max: float = _setting(3.0, "load per core from which on none is booted", low=0.1, high=10_000)


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """Limits of the socket."""

    max_frame_bytes: int = _setting(
        1_048_576, "largest frame a client may send", low=65_536, high=MAX_FRAME_LIMIT_BYTES
    )
    max_connections: int = _setting(
        10_000, "most connections at once; fewer where file descriptors are few", low=16, high=60_000
    )
    max_in_flight: int = _setting(1024, "most calls of one connection in flight", low=1, high=65_536)
    max_in_flight_total: int = _setting(16_384, "the same of all connections together", low=16, high=1_000_000)
    max_output_bytes: int = _setting(
        16 * 1024 * 1024, "unread output before a connection is cut", low=262_144, high=1 << 30
    )
    agent_calls_per_s: float = _setting(10_000.0, "calls a second of one agent; 0: no limit", low=0, high=1_000_000)
    operator_calls_per_s: float = _setting(0.0, "the same of the operator", low=0, high=1_000_000)
    call_s: float = _setting(30.0, "most time of a call that is neither a wait nor long", low=0.1, high=86_400)
    wait_s: float = _setting(300.0, "longest that a call waits for what is to happen", low=0.1, high=86_400)
    long_s: float = _setting(
        7200.0, "most time of a call that starts or ends programs or rewrites files", low=0.1, high=604_800
    )
    frame_timeout_s: float = _setting(30.0, "how long half a frame may stay unfinished", low=0.1, high=3600)
    drain_s: float = _setting(5.0, "time calls get to finish when the daemon stops", low=0.1, high=60)


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The full-text index of messages; derived from them, so that it can be turned off and on at any time."""

    enabled: bool = _setting(default=True, doc="keep an index of messages for `agentd search`")
    engine: str = _setting(
        "auto", "what makes the index; auto: tantivy where it is installed", choices=("auto", "tantivy", "fts5")
    )
    pace_s: float = _setting(0.5, "shortest time from one look for new messages to the next", low=0.01, high=60)


@dataclass(frozen=True, slots=True)
class TmuxConfig:
    """Our own tmux server."""

    binary: str = _setting("tmux", "program name or path")
    width: int = _setting(200, "columns of an agent's pane", low=20, high=1000)
    height: int = _setting(50, "lines of an agent's pane", low=5, high=500)
    history_limit: int = _setting(500, "lines of scrollback kept by tmux for each pane", low=0, high=100_000)
    command_timeout_s: float = _setting(5.0, "longest wait for tmux to answer a command", low=0.1, high=300)
    control_mode: bool = _setting(default=True, doc="commands over open connections; false: a tmux process for each")
    connections: int = _setting(2, "connections for commands to each server; two more listen", low=1, high=20)
    parallel_spawn: bool = _setting(default=True, doc="start agents side by side; false: one after the other")
    servers: str = _setting(
        "auto", "tmux servers the agents are spread over; auto: as many as agents_per_server asks for", choices=SERVERS
    )
    agents_per_server: int = _setting(128, "agents of one server before `auto` starts the next", low=1, high=4000)


@dataclass(frozen=True, slots=True)
class TranscriptsConfig:
    """What agents printed, and how long it is kept."""

    enabled: bool = _setting(default=True, doc="keep everything that agents print")
    keep_days: float = _setting(
        30.0, "days after which what was printed is removed; 0: never for that", low=0, high=36_500
    )
    agent_mb: float = _setting(100.0, "most megabytes kept of one agent, compressed", low=1, high=1_000_000)
    total_mb: float = _setting(5000.0, "most megabytes kept of all; the oldest are removed", low=1, high=100_000_000)
    reserve_mb: int = _setting(128, "free disk space below which nothing more is kept", low=0, high=100_000)
    search: bool = _setting(default=True, doc="keep an index of them for `agentd search --in transcripts`")


@dataclass(frozen=True, slots=True)
class WatchConfig:
    """Measures what each switch buys, and turns one off that costs more than it gives."""

    enabled: bool = _setting(default=True, doc="turn a switch off whose measured benefit is negative")
    period_s: float = _setting(10.0, "time between two looks at what was measured", low=0.1, high=3600)


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one daemon."""

    agents: AgentsConfig = field(default_factory=AgentsConfig)
    cache: CacheConfig = field(default_factory=CacheConfig)
    courier: CourierConfig = field(default_factory=CourierConfig)
    events: EventsConfig = field(default_factory=EventsConfig)
    hooks: HooksConfig = field(default_factory=HooksConfig)
    log: LogConfig = field(default_factory=LogConfig)
    loops: LoopsConfig = field(default_factory=LoopsConfig)
    mailbox: MailboxConfig = field(default_factory=MailboxConfig)
    pool: PoolConfig = field(default_factory=PoolConfig)
    rpc: RpcConfig = field(default_factory=RpcConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    tmux: TmuxConfig = field(default_factory=TmuxConfig)
    transcripts: TranscriptsConfig = field(default_factory=TranscriptsConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)
    origins: Mapping[str, str] = field(default_factory=dict)  # "tmux.width" -> where its value came from

    def rows(self) -> list[dict[str, Any]]:
        """Return one row per setting: key, value, default, origin, doc."""
        rows = []
        for section in _SECTIONS:
            part = getattr(self, section)
            for item in fields(part):
                key = f"{section}.{item.name}"
                rows.append(
                    {
                        "key": key,
                        "value": getattr(part, item.name),
                        "default": item.default,
                        "origin": self.origins.get(key, "default"),
                        "doc": item.metadata["doc"],
                    }
                )
        return rows


_SECTIONS: dict[str, type] = {
    "agents": AgentsConfig,
    "cache": CacheConfig,
    "courier": CourierConfig,
    "events": EventsConfig,
    "hooks": HooksConfig,
    "log": LogConfig,
    "loops": LoopsConfig,
    "mailbox": MailboxConfig,
    "pool": PoolConfig,
    "rpc": RpcConfig,
    "search": SearchConfig,
    "tmux": TmuxConfig,
    "transcripts": TranscriptsConfig,
    "watch": WatchConfig,
}


_KINDS: dict[type, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    tuple: "a text or a list of texts",
}


def load(path: str, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Config:
    """Return the configuration from defaults, the file, AGENTD_SECTION__KEY variables and `--set`, later ones win.

    A missing file is an empty one. Raises InvalidValue with one line: which key, from where, and what is allowed.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in _SECTIONS}
    origins: dict[str, str] = {}
    for key, value, origin in [*_from_file(path), *_from_environ(environ), *_from_overrides(overrides)]:
        section, name = _split(key, origin)
        values[section][name] = _checked(section, name, value, origin)
        origins[key] = origin
    parts = {section: cls(**values[section]) for section, cls in _SECTIONS.items()}
    return Config(**parts, origins=origins)


def _from_file(path: str) -> list[tuple[str, Any, str]]:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  the caller has a string
            tables = tomllib.load(file)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InvalidValue(f"cannot read {path}: {error.strerror}", hint="check its permissions") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidValue(f"{path} is not TOML: {error}", hint="mend the file; no setting was taken from it") from None
    found = []
    for section, table in tables.items():
        if not isinstance(table, dict):
            raise InvalidValue(
                f"{path}: `{_shown(section)}` stands outside a section", hint="write it below a line like [tmux]"
            )
        found += [(f"{section}.{name}", value, path) for name, value in table.items()]
    return found


def _from_environ(environ: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    found = []
    for variable in sorted(environ):
        if variable.startswith("AGENTD_") and "__" in variable:
            section, _, name = variable.removeprefix("AGENTD_").partition("__")
            found.append((f"{section.lower()}.{name.lower()}", environ[variable], f"${variable}"))
    return found


def _from_overrides(overrides: Sequence[str]) -> list[tuple[str, Any, str]]:
    found = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidValue(f"--set {text}: it has no `=`", hint="write --set section.key=value")
        found.append((key.strip(), value.strip(), f"--set {key.strip()}"))
    return found


def _split(key: str, origin: str) -> tuple[str, str]:
    section, _, name = key.partition(".")
    if section not in _SECTIONS:
        raise InvalidValue(
            f"{origin}: no section `{_shown(section)}` in the configuration", hint=f"sections: {', '.join(_SECTIONS)}"
        )
    known = [item.name for item in fields(_SECTIONS[section])]
    if name not in known:
        raise InvalidValue(f"{origin}: no setting `{_shown(key)}`", hint=f"[{section}] has {', '.join(known)}")
    return section, name


def _shown(key: str) -> str:
    # TOML allows any text as a key, and an error is one line.
    return key if key.isprintable() else ascii(key)[1:-1]


def _checked(section: str, name: str, value: Any, origin: str) -> Any:
    item = next(item for item in fields(_SECTIONS[section]) if item.name == name)
    wanted = type(item.default)
    low, high, choices = (item.metadata[k] for k in ("low", "high", "choices"))
    if wanted is tuple:
        typed: Any = _words(value, line=item.metadata["line"])
    else:
        typed = str(value) if choices and type(value) is int else _typed(value, wanted)  # 4 where a word may be
    if typed is None:
        allowed = _KINDS[wanted]
    elif choices and not set(typed if wanted is tuple else [typed]) <= set(choices):
        allowed = f"{'some' if wanted is tuple else 'one'} of {', '.join(choices)}"
    elif (low is not None and typed < low) or (high is not None and typed > high):
        allowed = f"from {low:.15g} to {high:.15g}"
    else:
        return typed
    raise InvalidValue(
        f"{origin}: {section}.{name} is {value!r}; it must be {allowed}",
        hint="correct it; nothing was started",
    )


def _words(value: Any, *, line: bool) -> tuple[str, ...] | None:
    """Return words from a list, or from text: a line for the shell, else words with commas between."""
    if isinstance(value, str):
        words = [word.strip() for word in value.split(",")]
        value = ["/bin/sh", "-c", value] if line and value.strip() else [word for word in words if word and not line]
    if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
        return None
    return tuple(value)


def _typed(value: Any, wanted: type) -> Any:
    """Return the value as the wanted type, from TOML's own types or from text; None when it cannot be."""
    if isinstance(value, str) and wanted is not str:
        return _from_text(value, wanted)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is wanted and value == value else None  # nan differs from itself


def _from_text(text: str, wanted: type) -> Any:
    if wanted is bool:
        return {
            "true": True,
            "1": True,
            "yes": True,
            "on": True,
            "false": False,
            "0": False,
            "no": False,
            "off": False,
        }.get(text.lower())
    try:
        number = wanted(text)
    except ValueError:
        return None
    return None if number != number else number


def template(config: Config | None = None) -> str:
    """Return a configuration file with every setting commented out at its default."""
    lines = ["# agentd configuration. Every line below is a default; remove the # to change it.", ""]
    section = ""
    for row in (config or Config()).rows():
        head, _, name = row["key"].partition(".")
        if head != section:
            lines += ["", f"[{head}]"] if section else [f"[{head}]"]
            section = head
        value = json.dumps(row["default"])  # what there is of it is written the same way in TOML
        lines += [f"# {row['doc']}", f"#{name} = {value}"]
    return os.linesep.join(lines) + os.linesep
