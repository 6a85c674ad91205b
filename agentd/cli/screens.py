"""Commands about what stands on an agent's screen."""

from __future__ import annotations

import os
import sys
from binascii import a2b_base64, b2a_base64

from agentd.cli.output import clean, emit
from agentd.cli.session import ask, connection, given
from agentd.errors import EXIT_OK, AgentGone, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values


def read(values: Values) -> int:
    """Print the screen, follow what the agent prints, or print its last answer."""
    if values["follow"]:
        return _follow(values)
    if values["answer"]:
        answer = ask("agents.answer", {"target": values["target"]})
    else:
        answer = ask("agents.capture", {name: values[name] or None for name in ("target", "lines", "raw")})
    if values["json"]:
        emit(answer)
    else:
        write(answer["text"].rstrip("\n") + "\n", raw=values["raw"])
    return EXIT_OK


def _follow(values: Values) -> int:
    """Print the screen as it is and then what is added, until the agent ends."""
    first = True
    with connection() as client:
        for item in client.stream("agents.follow", given({"target": values["target"], "raw": values["raw"] or None})):
            if first and values["lines"]:
                _cut(item, values["lines"])
            first = False
            if values["json"]:
                emit(item)
            else:
                show_part(item)
    return EXIT_OK


def _cut(item: dict[str, Any], lines: int) -> None:
    """Leave only the last lines of an item."""
    if "data" in item:
        kept = b"".join(a2b_base64(item["data"]).splitlines(keepends=True)[-lines:])
        item["data"] = b2a_base64(kept, newline=False).decode("ascii")
    else:
        item["text"] = "".join(item["text"].splitlines(keepends=True)[-lines:])


def show_part(part: dict[str, Any]) -> None:
    """Write a part of what an agent printed: clean text, or with --raw the bytes as they were."""
    if "data" in part:
        sys.stdout.flush()
        sys.stdout.buffer.write(a2b_base64(part["data"]))
        sys.stdout.buffer.flush()
    else:
        write(part["text"])


def write(text: str, *, raw: bool = False) -> None:
    """Write a text as it is; only the user's own --raw lets control sequences through."""
    sys.stdout.write(text if raw else clean(text.replace("\r\n", "\n")))
    sys.stdout.flush()


def attach(values: Values) -> int:
    """Hand the terminal to the agent; with --json only tell the command that does it."""
    if not values["json"] and not (sys.stdin.isatty() and sys.stdout.isatty()):
        hint = f"run it in one, or see the screen with: agentd read {values['target']}"
        raise UsageError("attach needs a terminal", hint=hint)
    agent = ask("agents.get", {"target": values["target"]})
    if not agent["attach"]:
        raise AgentGone(f"{agent['name']} is {agent['state']}", hint=f"agentd respawn {agent['name']}")
    if values["json"]:
        emit({"id": agent["id"], "name": agent["name"], "attach": agent["attach"]})
        return EXIT_OK
    import subprocess

    environ = {name: text for name, text in os.environ.items() if name not in ("TMUX", "TMUX_PANE")}
    return subprocess.run(agent["attach"], env=environ, check=False).returncode
