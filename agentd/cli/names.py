"""Names to complete: of what runs, as the daemon says it, and of what lies on the disk.

A TAB never starts a daemon, waits for one no longer than a moment, and never complains: no daemon, no names.
"""

from __future__ import annotations

import os

from agentd.client import connect
from agentd.errors import AgentdError
from agentd.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

_TIMEOUT_S = 1.0
_EVENTS_BACK = 2000  # how far back messages are looked for; a message makes about four events
_KEYS = (
    *("Enter", "Escape", "Tab", "BTab", "BSpace", "Space", "Up", "Down", "Left", "Right"),
    *("Home", "End", "PageUp", "PageDown", "C-c", "C-d", "C-l", "C-u", "C-z"),
)


def names(kind: str, begun: str) -> Sequence[str]:
    """Return the names of a kind that may stand where `begun` is typed; they are not all filtered by it."""
    find = _KINDS.get(kind)
    return _unique(find(begun)) if find else ()


def _targets(begun: str) -> Iterable[str]:
    agents, teams = _ask(("agents.list", {}), ("teams.list", {}))
    rows = agents.get("agents", ())
    called = [row["name"] for row in rows]
    if begun[:1] not in ("", "@", "%") and not _any_begins(called, begun):
        called += [row["id"] for row in rows]
    yield from called
    yield from (f"@{name}" for name in _team_names(rows, teams.get("teams", ())))
    if begun.startswith("@"):
        yield from (f"@{row['team']}/{row['role']}" for row in rows if row.get("team") and row.get("role"))
    if begun.startswith("%"):
        yield from (f"%{row['profile']}" for row in rows)
    yield "all"


def _inboxes(begun: str) -> Iterable[str]:
    yield from _targets(begun)
    yield "operator"


def _agents(begun: str) -> Iterable[str]:
    """Return one agent each: those that run, and where none begins so, those that ended and ids."""
    live, stopped = _ask(("agents.list", {}), ("agents.list", {"state": "stopped"}))
    called = [row["name"] for row in live.get("agents", ())]
    if _any_begins(called, begun):
        return called
    rows = [*live.get("agents", ()), *stopped.get("agents", ())]
    return [row["name"] for row in rows] + [row["id"] for row in rows if begun]


def _in_state(*states: str) -> Callable[[str], Iterable[str]]:
    def find(_begun: str) -> Iterable[str]:
        answers = _ask(*(("agents.list", {"state": state}) for state in states))
        return [row["name"] for answer in answers for row in answer.get("agents", ())]

    return find


def _teams(_begun: str) -> Iterable[str]:
    agents, teams = _ask(("agents.list", {}), ("teams.list", {}))
    return _team_names(agents.get("agents", ()), teams.get("teams", ()))


def _team_names(agents: Iterable[dict[str, Any]], teams: Iterable[dict[str, Any]]) -> list[str]:
    return _unique([*(team["name"] for team in teams), *(agent["team"] for agent in agents if agent.get("team"))])


def _roles(_begun: str) -> Iterable[str]:
    (answer,) = _ask(("agents.list", {}))
    return [row["role"] for row in answer.get("agents", ()) if row.get("role")]


def _profiles(_begun: str) -> Iterable[str]:
    """Return the profiles that the daemon has; without one those whose files lie where it would read them."""
    (answer,) = _ask(("profiles.list", {}))
    if answer:
        return [row["name"] for row in answer["profiles"]]
    import agentd

    shipped = os.path.join(os.path.dirname(agentd.__file__), "agents", "profiles")
    return sorted({*_toml_files(shipped), *_toml_files(Paths.find(os.environ).profiles_dir)})


def _toml_files(directory: str) -> list[str]:
    try:
        return [name[:-5] for name in os.listdir(directory) if name.endswith(".toml")]
    except OSError:
        return []


def _pooled(_begun: str) -> Iterable[str]:
    (answer,) = _ask(("pool.list", {}))
    return [row["profile"] for row in answer.get("pools", ())]


def _messages(_begun: str) -> Iterable[str]:
    """Return the messages that something happened to lately, the newest first; looking at an inbox would read it."""
    (newest,) = _ask(("events.list", {"limit": 1}))
    if not newest:
        return []
    since = max(0, newest["last"] - _EVENTS_BACK)
    (answer,) = _ask(("events.list", {"since": since, "types": ["message.*"], "limit": _EVENTS_BACK}))
    return [id_ for event in reversed(answer.get("events", ())) for id_ in event["data"].get("ids", ())]


def _dead(_begun: str) -> Iterable[str]:
    (answer,) = _ask(("messages.dead", {}))
    return [message["id"] for message in answer.get("messages", ())]


def _methods(_begun: str) -> Iterable[str]:
    (answer,) = _ask(("schema", {}))
    if answer:
        return list(answer["calls"])
    from agentd.wire.calls import CALLS  # 40 ms, as any command that needs it; a running daemon spares them

    return list(CALLS)


def _settings(_begun: str) -> Iterable[str]:
    from agentd.config import Config

    return [f"{row['key']}=" for row in Config().rows()]


def _event_types(begun: str) -> Iterable[str]:
    """Return the types for the last of several with commas between."""
    from agentd.records import EVENT_TYPES

    before = begun[: begun.rfind(",") + 1]
    nouns = _unique(type_.partition(".")[0] + ".*" for type_ in EVENT_TYPES)
    return [before + type_ for type_ in (*EVENT_TYPES, *nouns)]


_KINDS: dict[str, Callable[[str], Iterable[str]]] = {
    "targets": _targets,
    "inboxes": _inboxes,
    "agents": _agents,
    "ended": _in_state("stopped", "failed"),
    "running": _in_state("starting", "idle", "working", "waiting"),
    "asking": _in_state("waiting"),
    "teams": _teams,
    "roles": _roles,
    "profiles": _profiles,
    "pooled": _pooled,
    "messages": _messages,
    "dead": _dead,
    "methods": _methods,
    "settings": _settings,
    "types": _event_types,
    "keys": lambda _: _KEYS,
}


def _ask(*asked: tuple[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the running daemon's answers, in one round trip; an empty one where it gives none."""
    try:
        with connect(autostart=False, timeout_s=_TIMEOUT_S) as client:
            with client.pipeline() as together:
                calls = [together.call(method, params) for method, params in asked]
            return [call.result() for call in calls]
    except AgentdError:
        return [{} for _ in asked]


def _any_begins(words: Iterable[str], begun: str) -> bool:
    return any(word.startswith(begun) for word in words)


def _unique(words: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(words))
