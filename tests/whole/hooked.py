"""An agent that runs hooks as Claude Code does: the demo agent with settings that are made for it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from instance import Instance

EVENTS = {
    "SessionStart": "ready",
    "UserPromptSubmit": "submitted",
    "PostToolUse": "tool",
    "PermissionRequest": "permission",
    "Stop": "done",
}
CARRIES = {"PostToolUse": "context", "Stop": "block"}


def add_hooked(
    whole: Instance,
    name: str = "hooked",
    *,
    delivery: str = "both",
    carries: dict[str, str] | None = None,
    more: str = "",
) -> None:
    """Give an instance, before its daemon starts, a profile of such agents."""
    demo = resources.files("agentd.agents").joinpath("profiles/demo.toml").read_text()
    command = {"hooks": [{"type": "command", "command": "{agentd} hook"}]}
    settings = json.dumps({"hooks": {event: [command] for event in EVENTS}})
    text = (
        demo.replace(
            '"agentd.testing.demo_agent"]', '"agentd.testing.demo_agent", "--settings", "{private}/settings.json"]'
        ).replace('delivery = "type"', f'delivery = "{delivery}"\n{more}')
        + _table("signals.events", EVENTS)
        + _table("signals.carries", CARRIES if carries is None else carries)
        + f"[[files]]\nname = 'settings.json'\ntext = '{settings}'\n"
        + '[resume]\nargs = ["--resume", "{session}"]\n'
    )
    profiles = whole.directory / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / f"{name}.toml").write_text(text)


def _table(name: str, values: dict[str, str]) -> str:
    return f"[{name}]\n" + "".join(f'{key} = "{value}"\n' for key, value in values.items())


def type_in(whole: Instance, name: str, text: str) -> None:
    """Type a prompt as a person would."""
    with whole.client() as client:
        client.call("agents.keys", target=name, keys=[*text, "Enter"])


def environ_of(whole: Instance, agent: dict[str, Any]) -> dict[str, str]:
    """Return what makes a program speak as an agent."""
    token = whole.directory / "agents" / agent["id"] / "token"
    return {"AGENTD_SOCKET": str(whole.directory / "agentd.sock"), "AGENTD_TOKEN_FILE": str(token)}


def bodies(log: Path) -> list[str]:
    """Return what an agent wrote down of each message that it read, in order."""
    return [json.loads(line)["body"] for line in log.read_text().splitlines()] if log.exists() else []
