"""Two agents of a real program write to each other by MCP, as their built-in profile configures it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from instance import wait_until
from programs import PROGRAMS
from stage import TURN_S, Stage

import agentd.agents
from agentd.doors.told import NOTE

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
EACH = pytest.mark.parametrize("program", list(PROGRAMS), indirect=True)


# Gemini CLI takes settings from its user's home, and from files of root's alone: its user writes what docs/mcp.md says.
BUILT_IN = Path(agentd.agents.__file__).parent / "profiles"
GUIDE = Path(__file__).parents[2] / "docs" / "mcp.md"


@pytest.fixture(autouse=True)
def by_hand(real: Stage) -> None:
    """Do what the program's profile cannot do."""
    if real.program.name == "gemini":
        path = real.home / ".gemini" / "settings.json"
        (entry, *_) = re.findall(r"```json\n(.*?)```", GUIDE.read_text(), re.DOTALL)
        path.write_text(json.dumps({**json.loads(path.read_text()), **json.loads(entry)}))


def directive(text: str) -> str:
    """Return a directive for the model as JSON writes it, so that it ends no directive that it stands in."""
    return f"\\u0028\\u0028{text}\\u0029\\u0029"


def inbox_of(real: Stage, name: str) -> list[dict[str, Any]]:
    with real.whole.client() as client:
        return list(client.call("messages.inbox", target=name, all=True)["messages"])


@EACH
def test_one_asks_another_and_gets_its_answer_without_a_person(real: Stage) -> None:
    real.spawn("bob")
    real.spawn("ann")
    answer = directive('call task_done {\\"result\\": \\"forty-two\\"}')
    first = real.send(f'((call send_message {{"to": "bob", "body": "what is 6 times 7? {answer}"}}))')
    wait_until(lambda: inbox_of(real, "bob"), f"bob to be asked\n{real.screen()}", TURN_S)
    wait_until(lambda: len(inbox_of(real, "ann")) == 2, "ann to be answered", TURN_S)
    (asked,), (_, heard) = inbox_of(real, "bob"), inbox_of(real, "ann")
    assert (asked["from"], heard["from"], heard["body"], heard["reply_to"]) == ("ann", "bob", "forty-two", asked["id"])
    wait_until(lambda: real.message(asked["id"])["state"] == "acked", "bob's task to be acknowledged", TURN_S)
    real.delivered(heard["id"])
    assert real.message(first)["state"] in ("delivered", "acked")
    offered = {name for turn in real.model.main() for name in turn.tools if name.endswith("task_done")}
    assert offered


@pytest.mark.parametrize("program", ["codex"], indirect=True)
def test_a_tool_that_asks_is_let_go_by_approve(real: Stage) -> None:
    """Its menu for tools is another one than that for commands, and takes other keys."""
    text = BUILT_IN.joinpath("codex.toml").read_text()
    asks = text.replace('tools_approval_mode="approve"', 'tools_approval_mode="prompt"')
    assert asks != text
    profiles = real.whole.directory / "profiles"
    profiles.mkdir()
    (profiles / "codex.toml").write_text(asks)
    wait_until(lambda: real.whole.json("profile", "show", "codex")["origin"] != "built-in", "the profile to be read")
    real.spawn("ann")
    real.send('((call send_message {"to": "operator", "body": "hello"}))')
    wait_until(lambda: real.explained()["prompt"], "it to ask", TURN_S)
    real.whole.cli("approve", "ann")
    wait_until(lambda: inbox_of(real, "operator"), "the operator to be written to", TURN_S)
    real.until("idle")


@EACH
def test_what_a_peer_wrote_reaches_its_model_as_data(real: Stage) -> None:
    real.spawn("ann")
    real.spawn("bob")
    real.agent = next(row for row in real.whole.json("ls") if row["name"] == "ann")
    secret = real.send("remember the word heliotrope")
    real.answered(secret)
    real.until("idle")
    asked = real.answered(real.send(f'((call read_message {{"id": "{secret}"}}))'))
    told = wait_until(
        lambda: next((turn for turn in real.model.main() if NOTE[:40] in (turn.result or "")), None),
        "the result",
        TURN_S,
    )
    assert "heliotrope" in told.result
    assert f"[agentd {secret} from operator" in told.result or f'"id":"{secret}"' in told.result.replace(" ", "")
    assert asked
