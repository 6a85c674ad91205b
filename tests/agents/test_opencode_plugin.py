"""The plugin that opencode is given tells what happens, in order, as hooks of other programs do; run by node."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from panes import BUILT_IN

from agentd.agents.hook_events import hear

OPENCODE = BUILT_IN.get("opencode")
SCRIPT = """
import { Agentd } from "%s"
const messages = [
  { info: { role: "user" }, parts: [{ type: "text", text: "asked" }] },
  { info: { role: "assistant" },
    parts: [{ type: "text", text: "one " }, { type: "tool" }, { type: "text", text: "two" }] },
]
const client = { session: {
  get: async ({ path }) => ({ data: path.id === "child" ? { parentID: "main" } : {} }),
  messages: async () => ({ data: messages }),
} }
const plugin = await Agentd({ client })
const event = (type, properties) => plugin.event({ event: { type, properties } })
await plugin["chat.message"]({ sessionID: "main" })
await plugin["chat.message"]({ sessionID: "child" })
await event("permission.asked", { sessionID: "main", permission: "bash", patterns: ["touch x"] })
await event("permission.replied", { sessionID: "main" })
await event("message.updated", { sessionID: "main" })
await event("session.error", { sessionID: "main", error: { name: "MessageAbortedError" } })
await event("session.error", { sessionID: "main", error: { name: "APIError", data: { message: "no more" } } })
await event("session.idle", { sessionID: "child" })
await event("session.idle", { sessionID: "main" })
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_what_it_tells(tmp_path: Path) -> None:
    plugin, hook, log = tmp_path / "agentd.mjs", tmp_path / "hook", tmp_path / "log"
    plugin.write_text(next(file.text for file in OPENCODE.files if file.name == "agentd.js"))
    hook.write_text(f"#!/bin/sh\n[ $1 = hook ] && cat >> {log} && echo >> {log}\n")
    hook.chmod(0o700)
    words = ["node", "--input-type=module", "-e", SCRIPT % plugin]
    subprocess.run(words, env=os.environ | {"AGENTD_COMMAND": str(hook)}, check=True, timeout=60)
    told = [hear(OPENCODE, "", line, "") for line in log.read_text().splitlines()]
    reports: list[Any] = [heard.report for heard in told]
    assert [(heard.event, report.means) for heard, report in zip(told, reports, strict=True)] == [
        ("chatMessage", "submitted"),
        ("permissionAsked", "permission"),
        ("permissionReplied", "tool"),
        ("sessionError", "error"),
        ("sessionIdle", "done"),
    ]
    assert {report.resume_id for report in reports} == {"main"}
    assert reports[1].asks == "bash: touch x"
    assert reports[3].message == "no more"
    assert reports[4].answer == "one two"


def test_its_settings_are_json_and_name_it() -> None:
    settings = json.loads(next(file.text for file in OPENCODE.files if file.name == "opencode.json"))
    assert settings["plugin"] == ["file://{private}/agentd.js"]
