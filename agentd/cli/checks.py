"""`agentd profile check`: an agent of a profile is booted, sent a line, watched and stopped."""

from __future__ import annotations

import os
import secrets
import time
from contextlib import suppress

from agentd.cli.output import emit, facts, moment, say, table
from agentd.cli.session import connection
from agentd.errors import EXIT_FAILED, EXIT_OK, AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values
    from agentd.client import Client

STEP_S = 120.0
SPAWN_TIMEOUT_S = 120.0
PAUSE_S = 0.03
BEFORE_IT_WORKS_S = 1.0  # an answer may come so fast that nobody sees it work
COMMAND = "echo $((6 * 7))"
QUESTION = "agentd checks that you can be reached. Answer in one short sentence, and use no tool."
STEPS = ("ready", "submitted", "answered", "stopped")


def check(values: Values) -> int:
    """Check one profile with the program itself."""
    limit_s = STEP_S if values["timeout"] is None else values["timeout"]
    with connection() as client:
        profile = client.call("profiles.get", {"name": values["name"]})
        text = values["text"] or (COMMAND if profile["input"]["envelope"] == "none" else QUESTION)
        report = Check(client, _spawn(client, values)).run(text, limit_s)
    if values["json"]:
        emit(report)
    else:
        _print(report)
    return EXIT_OK if report["ok"] else EXIT_FAILED


def _spawn(client: Client, values: Values) -> dict[str, Any]:
    name = f"check-{values['name'][:30]}-{secrets.token_hex(3)}"
    env = dict(pair.split("=", 1) for pair in values["env"])
    params = {"profile": values["name"], "name": name, "cwd": os.path.abspath(values["cwd"] or "."), "env": env}
    agent: dict[str, Any] = client.call("agents.spawn", params, timeout_s=SPAWN_TIMEOUT_S)["agents"][0]
    return agent


class Check:
    """One agent, step by step; each step says what it found."""

    def __init__(self, client: Client, agent: dict[str, Any]) -> None:
        self._client = client
        self._agent = agent
        self._report: dict[str, Any] = {"profile": agent["profile"], "agent": agent["name"], "ok": False}

    def run(self, text: str, limit_s: float) -> dict[str, Any]:
        """Take every step until one fails, stop the agent, and return the report."""
        report = self._report
        try:
            report["boot_s"] = self._until("idle", limit_s)
            report["ready"] = True
            before = self._screen()
            self._submit(text, limit_s)
            self._hear(before, text, limit_s)
        except AgentdError as error:
            report["problem"] = error.message
        finally:
            report["screen"] = self._screen()
            self._stop()
        report["states"] = self._states()
        report["ok"] = all(report.get(step) for step in STEPS)
        return report

    def _until(self, state: str, limit_s: float) -> float:
        """Wait for a state, and no longer than until it asks a person something or ends; return the seconds."""
        begun_s = time.monotonic()
        while (now := self._now())["state"] != state:
            if now["state"] in ("waiting", "failed", "stopped"):
                raise AgentdError(f"it is {now['state']}: {now['reason']}")
            if time.monotonic() > begun_s + limit_s:
                raise AgentdError(f"it was not {state} in {limit_s:g} s; it is {now['state']}: {now['reason']}")
            time.sleep(PAUSE_S)
        return round(time.monotonic() - begun_s, 3)

    def _now(self) -> dict[str, Any]:
        agent: dict[str, Any] = self._client.call("agents.get", {"target": self._agent["id"]})
        return agent

    def _submit(self, text: str, limit_s: float) -> None:
        begun_s = time.monotonic()
        message = self._delivered(self._client.send(self._agent["id"], text).id, limit_s)
        self._report["submitted"] = True
        self._report["delivery_s"] = round(time.monotonic() - begun_s, 3)
        proofs = [entry["detail"] for entry in message["history"] if entry["state"] == "delivered"]
        self._report["proof"] = proofs[0] if proofs else "it acknowledged the line"

    def _delivered(self, id_: str, limit_s: float) -> dict[str, Any]:
        end_s = time.monotonic() + limit_s
        while True:
            message: dict[str, Any] = self._client.call("messages.get", {"id": id_})
            if message["state"] in ("delivered", "acked"):
                return message
            if message["state"] in ("dead", "expired") or time.monotonic() > end_s:
                why = message["history"][-1]["detail"] or message.get("waits_for") or message["state"]
                raise AgentdError(f"the line was not submitted: {why}")
            time.sleep(PAUSE_S)

    def _hear(self, before: str, text: str, limit_s: float) -> None:
        begun_s = time.monotonic()
        with suppress(AgentdError):
            self._until("working", BEFORE_IT_WORKS_S)
        while True:
            self._until("idle", max(0.0, begun_s + limit_s - time.monotonic()))
            new = _new_lines(before, self._screen(), text)
            if new or time.monotonic() > begun_s + limit_s:
                break
            time.sleep(PAUSE_S)
        self._report["answered"] = bool(new)
        self._report["answer_s"] = round(time.monotonic() - begun_s, 3)
        self._report["answer"] = "\n".join(new)

    def _screen(self) -> str:
        try:
            shown = self._client.call("agents.capture", {"target": self._agent["id"], "no_cache": True})
        except AgentdError as error:  # it ended, and left none
            return error.message
        return str(shown["text"]).rstrip()

    def _stop(self) -> None:
        begun_s = time.monotonic()
        answer = self._client.call("agents.stop", {"targets": [self._agent["id"]]}, timeout_s=STEP_S)
        self._report["stopped"] = bool(answer["stopped"])
        self._report["stop_s"] = round(time.monotonic() - begun_s, 3)

    def _states(self) -> list[dict[str, Any]]:
        events = self._client.call("events.list", {"types": ["agent.state"]})["events"]
        mine = [event for event in events if event["data"].get("agent") == self._agent["id"]]
        named = ("state", "rule", "reason", "waits_for")
        return [{"at": event["at"], **{name: event["data"].get(name, "") for name in named}} for event in mine]


def _new_lines(before: str, after: str, text: str) -> list[str]:
    """Return the lines that were not there before, without those that show what was sent."""
    old = {line.strip() for line in before.split("\n")}
    lines = [line.strip() for line in after.split("\n")]
    new = [line for line in lines if line and line not in old]
    sent = "".join(text.split())
    whole = next((line for line in new if sent in "".join(line.split())), None)
    if whole is not None:  # what repeats it further down is an answer
        new.remove(whole)
        return new
    return [line for line in new if "".join(line.split()) not in sent]


def _print(report: dict[str, Any]) -> None:
    table(
        ("TIME", "STATE", "RULE", "REASON"),
        [(moment(row["at"]), row["state"], row["rule"], row["reason"]) for row in report["states"]],
    )
    say()
    names = ("profile", "agent", "boot_s", "delivery_s", "proof", "answer_s", "answer", "stop_s", "problem")
    facts([(name.replace("_s", " s"), report.get(name)) for name in names])
    if not report["ok"]:
        facts([("screen", report["screen"])])
    say(f"{report['profile']} {'works' if report['ok'] else 'does not work'} here")
