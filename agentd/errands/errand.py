"""Which of the user's commands an event sets off, and what each is given. Pure."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentd.agents.text import sanitise
from agentd.config import HooksConfig
from agentd.records import Event

MOST_ITEMS = 1_000  # of a list in an event; a batch may have ten thousand messages
TEXT_CHARS = 300
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM")
DESKTOP = ("DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS")
KEPT_STARTS = ("LC_", "XDG_")


@dataclass(frozen=True, slots=True)
class Errand:
    """One command to run, or one line to show."""

    hook: str  # on_state, on_message or notify
    event: Event
    argv: Sequence[str] = ()
    line: str = ""  # for the terminals that are attached, where there is no command


def errands_of(config: HooksConfig, event: Event) -> list[Errand]:
    """Return what an event sets off."""
    noun, _, verb = event.type.partition(".")
    if event.type == "agent.state" and event.data.get("state") in config.states:
        command = [Errand("on_state", event, config.on_state)] if config.on_state else []
        return command + _notification(config.notify, event)
    if noun == "message" and verb in config.messages and config.on_message:
        return [Errand("on_message", event, config.on_message)]
    return []


def samples_of(config: HooksConfig, made: Event) -> list[Errand]:
    """Return one errand for each hook that is set, with an example; `made` gives it its number and its time."""
    agent = {"agent": "0000000000", "name": "example", "team": "", "reason": "this is an example", "example": True}
    state = {**agent, "state": next(iter(config.states), "waiting"), "waits_for": "", "prompt": "", "asks": ""}
    message = {"ids": ["m000000000"], "to_name": "example", "from_name": "operator", "example": True}
    states = Event(made.id, "agent.state", made.at_ns, state)
    changed = Event(made.id, f"message.{next(iter(config.messages), 'dead')}", made.at_ns, message)
    return [*errands_of(config, states), *errands_of(config, changed)]


def payload(event: Event) -> bytes:
    """Return the event as a command reads it on its standard input: one line of JSON."""
    row = {"id": event.id, "type": event.type, "at": event.at_ns / 1e9, "data": _bounded(event.data)}
    return json.dumps(row).encode() + b"\n"


def environment(environ: Mapping[str, str], event: Event, socket: str) -> dict[str, str]:
    """Return what a command gets of the daemon's environment: what finds programs, the user and the desktop."""
    kept = {
        name: value
        for name, value in environ.items()
        if name in KEPT or name in DESKTOP or name == "AGENTD_DIR" or name.startswith(KEPT_STARTS)
    }
    return {**kept, "AGENTD_SOCKET": socket, "AGENTD_EVENT": event.type}


def _notification(how: str, event: Event) -> list[Errand]:
    title, text = _said(event.data)
    if how == "notify-send":
        argv = ["notify-send", "--app-name=agentd", "--", title, html.escape(text, quote=False)]
        return [Errand("notify", event, argv)]
    return [Errand("notify", event, line=f"{title}: {text}")] if how == "osc9" else []


def _said(data: Mapping[str, Any]) -> tuple[str, str]:
    """Return title and text about an agent's state, each one line that can act on no terminal."""
    wants = f" for {data['waits_for']}" if data.get("waits_for") else ""
    title = f"{data.get('name', '')} is {data.get('state', '')}{wants}"
    return _one_line(title), _one_line(str(data.get("asks") or data.get("reason") or ""))


def _one_line(text: str) -> str:
    line = " ".join(sanitise(text).split())
    return line if len(line) <= TEXT_CHARS else line[: TEXT_CHARS - 1] + "…"


def _bounded(data: Mapping[str, Any]) -> dict[str, Any]:
    lists = {name: value for name, value in data.items() if isinstance(value, list) and len(value) > MOST_ITEMS}
    cut = {name: value[:MOST_ITEMS] for name, value in lists.items()}
    left_out = {f"{name}_left_out": len(value) - MOST_ITEMS for name, value in lists.items()}
    return {**data, **cut, **left_out}
