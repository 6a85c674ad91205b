"""What a program's hook says: its event and its JSON, read as far as they can be, and never trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from agentd.agents.profile import Means, Profile, Shape, valid_session
from agentd.agents.reports import Report
from agentd.agents.text import sanitise

ASKED_CHARS = 4_000
MESSAGE_CHARS = 500
PATH_CHARS = 4_096
NAME_CHARS = 100
_KINDS = ("notification_type", "tool_name", "error", "source")  # what an event is further told apart by
_SIDE_ARGUMENTS = {"description", "timeout"}  # of a tool; they do nothing

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Heard:
    """What one event says."""

    event: str
    report: Report | None = None  # None: the profile does not know the event, or it is about something else
    shape: Shape | None = None  # of the answer that can bring messages; None: it can bring none
    again: bool = False  # this turn went on before because of such an answer


def hear(profile: Profile, event: str, payload: str, session: str) -> Heard:
    """Return what a hook's event says of an agent whose session is known as `session`.

    The event's name stands in the JSON when it is not given. What cannot be read, or is of another type than it should
    be, is as if it were not there.
    """
    values = _values(payload)
    name = event or _line(values, NAME_CHARS, "hook_event_name", "type")
    means = _means(profile, name, values)
    if means is None or _of_another_thread(values, session):
        return Heard(name)
    within_another = bool(_line(values, NAME_CHARS, "agent_id"))  # of an agent that the program's agent started itself
    return Heard(
        name,
        _report(name, means, values),
        None if within_another else profile.signals.carries.get(name),
        values.get("stop_hook_active") is True,
    )


def answer_text(event: str, shape: Shape, text: str) -> str:
    """Return a hook's output that brings a text to the program's agent."""
    answer: dict[str, Any] = {"decision": "block", "reason": text}
    if shape == "context":
        answer = {"hookSpecificOutput": {"hookEventName": event, "additionalContext": text}}
    return msgspec.json.encode(answer).decode()


def _values(payload: str) -> Values:
    try:
        decoded = msgspec.json.decode(payload.encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError):
        return {}
    return {key.replace("-", "_"): value for key, value in decoded.items()} if isinstance(decoded, dict) else {}


def _means(profile: Profile, name: str, values: Values) -> Means | None:
    events = profile.signals.events
    for kind in _KINDS:
        special = events.get(f"{name}:{_line(values, NAME_CHARS, kind)}")
        if special is not None:
            return special
    return events.get(name)


def _of_another_thread(values: Values, session: str) -> bool:
    """Tell whether it is of a thread beside the session: Codex gives each session a title in one of its own."""
    return "thread_id" in values and values["thread_id"] != session


def _report(name: str, means: Means, values: Values) -> Report:
    wanted = _asks(values) if means in ("permission", "question") else ""
    failed = means in ("error", "rate_limit", "login")
    answer = _text(values, "last_assistant_message", "prompt_response")
    said = _cut(_folded(answer), MESSAGE_CHARS) if failed else ""
    said = said or _line(values, MESSAGE_CHARS, "message", "error_details", "error_message", "error")
    # A session that was never spoken to cannot be resumed.
    spoken_to = means not in ("ready", "ended", "ignore") or values.get("source") == "resume"
    return Report(
        means,
        f"hook {name}",
        message=said or _cut(_folded(wanted), MESSAGE_CHARS),
        resume_id=_session(values) if spoken_to else "",
        log_path=_path(values),
        answer="" if failed else answer,
        # What is not seen whole must not be matched.
        asks=wanted if means == "permission" and len(wanted) <= ASKED_CHARS else "",
    )


def _asks(values: Values) -> str:
    """Return tool and arguments; one argument that is a text is written as it is, any others as JSON."""
    details = values.get("details")
    tool, arguments = _line(values, NAME_CHARS, "tool_name"), values.get("tool_input")
    if not tool and isinstance(details, dict):
        tool, arguments = _line(details, NAME_CHARS, "type"), details
    if not isinstance(arguments, dict):
        return tool
    telling = [value for key, value in arguments.items() if key not in _SIDE_ARGUMENTS]
    plain = len(telling) == 1 and isinstance(telling[0], str)
    return f"{tool}: {sanitise(telling[0] if plain else msgspec.json.encode(arguments).decode())}"


def _session(values: Values) -> str:
    found = values.get("session_id", values.get("thread_id"))
    return found if isinstance(found, str) and valid_session(found) else ""


def _path(values: Values) -> str:
    path = values.get("transcript_path")
    fits = isinstance(path, str) and path.startswith("/") and len(path) <= PATH_CHARS and path.isprintable()
    return str(path) if fits else ""


def _text(values: Values, *keys: str) -> str:
    return next((sanitise(value) for key in keys if isinstance(value := values.get(key), str)), "")


def _line(values: Values, most_chars: int, *keys: str) -> str:
    return _cut(_folded(_text(values, *keys)), most_chars)


def _folded(text: str) -> str:
    return " ".join(text.split())


def _cut(text: str, most_chars: int) -> str:
    return text if len(text) <= most_chars else text[: most_chars - 1] + "…"
