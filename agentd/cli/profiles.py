"""Commands about profiles."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass

from agentd.cli.output import emit, facts, say, table
from agentd.cli.session import ask
from agentd.errors import EXIT_OK, InvalidValue, NotFound
from agentd.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values

MOST_COMMAND_CHARS = 60
MAX_SCREEN_BYTES = 4 * 1024 * 1024
SAVE = "save a screen with: tmux capture-pane -p -e > screen.txt"


@dataclass(frozen=True, slots=True)
class SavedLook:
    """A screen from a file: what a file cannot tell is empty."""

    text: str
    title: str
    dead: bool
    cursor_x: int = 0
    cursor_y: int = 0
    exit_status: int | None = None
    in_mode: bool = False
    command: str = ""


def ls(values: Values) -> int:
    """List profiles."""
    answer = ask("profiles.list")
    if values["json"]:
        emit(answer["profiles"])
        return EXIT_OK
    keys = ("name", "version", "delivery", "command", "origin", "doc")
    rows = [[_shown_command(p[key]) if key == "command" else p[key] for key in keys] for p in answer["profiles"]]
    table(("PROFILE", "FOR", "DELIVERY", "COMMAND", "FROM", "ABOUT"), rows)
    for bad in (p for p in answer["profiles"] if p.get("error")):
        say(f"not taken: {bad['error']}" + (f"; {bad['name']} is in force as it was before" if bad["command"] else ""))
    return EXIT_OK


def _shown_command(words: list[str]) -> str:
    whole = " ".join(words)
    return whole if len(whole) <= MOST_COMMAND_CHARS else f"{whole[:MOST_COMMAND_CHARS]}..."


def show(values: Values) -> int:
    """Show one profile."""
    answer = ask("profiles.get", {"name": values["name"]})
    if values["json"]:
        emit(answer)
    else:
        say(json.dumps(answer, indent=2))
    return EXIT_OK


def classify(values: Values) -> int:
    """Say what a profile's rules make of a saved screen."""
    from agentd.agents.attributes import read
    from agentd.agents.profile import Profiles
    from agentd.agents.screen import classify as verdict_on

    profile = Profiles.load(Paths.find(os.environ).profiles_dir).get(values["name"])
    shown = read(_read(values["file|-"]))
    verdict = verdict_on(profile, SavedLook(shown.plain, values["title"] or "", values["dead"]), shown.solid)
    answer = {
        "state": verdict.state,
        "reason": verdict.reason,
        "rule": verdict.rule,
        "draft": verdict.draft,
        "waits_for": verdict.waits_for,
        "evidence": verdict.evidence,
    }
    if values["json"]:
        emit(answer)
    else:
        facts(list({**answer, "state": verdict.state or "unknown"}.items()))
    return EXIT_OK


def _read(name: str) -> str:
    try:
        if name == "-":
            data = sys.stdin.buffer.read(MAX_SCREEN_BYTES + 1)
        else:
            with open(name, "rb") as file:
                data = file.read(MAX_SCREEN_BYTES + 1)
    except FileNotFoundError:
        raise NotFound(f"no file {name}", hint=SAVE) from None
    except OSError as error:
        raise InvalidValue(f"cannot read {name}: {error.strerror}", hint="give a file, or - for stdin") from None
    if b"\0" in data:
        raise InvalidValue(f"{name} is no saved screen: it holds binary data", hint=SAVE)
    if len(data) > MAX_SCREEN_BYTES:
        raise InvalidValue(f"{name} is over {MAX_SCREEN_BYTES} bytes long", hint="save one screen only")
    return data.decode(errors="replace")
