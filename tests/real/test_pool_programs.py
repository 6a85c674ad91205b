"""A real program from the pool: booted before it is asked for, with a name and its tools once it is."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import results
from instance import wait_until
from programs import PROGRAMS
from stage import BOOT_S, TURN_S, Stage

import agentd.agents

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
BUILT_IN = Path(agentd.agents.__file__).parent / "profiles"


@pytest.fixture(autouse=True)
def _environment_in_the_profile(real: Stage) -> None:
    """A spawn with an environment is never warm, so the profile has it."""
    name = real.program.name
    text = (BUILT_IN / f"{name}.toml").read_text()
    lines = "\n".join(
        f"{key} = {json.dumps(value)}" for key, value in real.environment.items() if f"\n{key} =" not in text
    )
    text, count = re.subn(r"^\[env\]$", f"[env]\n{lines}", text, flags=re.MULTILINE)
    profiles = real.whole.directory / "profiles"
    profiles.mkdir(exist_ok=True)
    tables = text.index("\n[boot]")
    (profiles / f"{name}.toml").write_text(text if count else f"{text[:tables]}\n[env]\n{lines}\n{text[tables:]}")
    wait_until(lambda: real.whole.json("profile", "show", name)["origin"] != "built-in", "the profile to be read")


def begun(real: Stage, *, cold: bool) -> tuple[dict[str, Any], float, float]:
    """Start one with a prompt; return it, and the seconds until the answer and until the prompt was submitted."""
    before_ns = time.time_ns()
    with real.whole.client() as client:
        params = {"profile": real.program.name, "cwd": str(real.cwd), "prompt": "hello", "cold": cold}
        (agent,) = client.call("agents.spawn", params, timeout_s=BOOT_S)["agents"]
        answered_s = (time.time_ns() - before_ns) / 1e9
        (message,) = client.call("messages.inbox", target=agent["id"], all=True)["messages"]
        client.call("messages.wait", {"id": message["id"], "until": "delivered", "timeout_s": BOOT_S}, timeout_s=BOOT_S)
        history = client.call("messages.get", id=message["id"])["history"]
    at_s = next(step["at"] for step in history if step["state"] == "delivered")
    return agent, answered_s, at_s - before_ns / 1e9


@pytest.mark.parametrize("program", list(PROGRAMS), indirect=True)
def test_one_from_the_pool_takes_its_first_prompt_at_once_and_knows_its_name(real: Stage) -> None:
    cold, _, cold_s = begun(real, cold=True)
    assert not cold["warm"]
    with real.whole.client() as client:
        client.call("pool.set", profile=real.program.name, size=1, cwd=str(real.cwd))
    wait_until(lambda: real.whole.json("pool")[0]["warm"] == 1, f"a slot: {real.whole.json('pool')}", BOOT_S)
    warm, answered_s, warm_s = begun(real, cold=False)
    assert warm["warm"]
    results.note(real.program, claim_ms=round(answered_s * 1000, 1), warm_s=round(warm_s, 3), cold_s=round(cold_s, 3))
    assert warm_s < cold_s
    real.agent = warm
    real.until("idle")
    real.send("((call whoami {}))")
    real.until("idle")
    said = wait_until(
        lambda: next((t for t in real.model.main() if f'"name":"{warm["name"]}"' in _plain(t.result)), None),
        f"its tools to know its name\n{real.screen()}",
        TURN_S,
    )
    assert said


def _plain(result: str | None) -> str:
    return (result or "").replace(" ", "").replace("\\", "")
