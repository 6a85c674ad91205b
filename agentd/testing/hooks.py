"""Hooks of the demo agent, run and read the way Claude Code does it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

TIMEOUT_S = 10.0


class Hooks:
    """The commands of a settings file, by event; without a file there are none."""

    def __init__(self, settings: str, session: str) -> None:
        self._commands: dict[str, Any] = json.loads(Path(settings).read_text())["hooks"] if settings else {}
        self._session = session

    def begin_anew(self, session: str) -> None:
        """Speak for another session from now on."""
        self._session = session

    def run(self, event: str, **values: Any) -> str:
        """Run an event's commands; return the text that their output brings to the agent."""
        payload = json.dumps({"hook_event_name": event, "session_id": self._session, **values})
        return "\n".join(filter(None, (_brought(_output(command, payload)) for command in self._of(event))))

    def _of(self, event: str) -> list[str]:
        return [hook["command"] for group in self._commands.get(event, ()) for hook in group["hooks"]]


def _output(command: str, payload: str) -> dict[str, Any]:
    done = subprocess.run(
        command, shell=True, input=payload, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode == 2:
        return {"decision": "block", "reason": done.stderr}
    values: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 and done.stdout.strip() else {}
    return values


def _brought(output: dict[str, Any]) -> str:
    if output.get("decision") == "block":
        return str(output["reason"])
    return str(output.get("hookSpecificOutput", {}).get("additionalContext", ""))
