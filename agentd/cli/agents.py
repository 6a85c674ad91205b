"""Commands about agents that run."""

from __future__ import annotations

from agentd.cli.output import duration, emit, facts, megabytes, moment, say, table
from agentd.cli.session import NO_AGENTS, ask, ask_once, connection, given, report_failed
from agentd.errors import EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.cli.grammar import Values

_HEADS = ("NAME", "STATE", "FOR", "INBOX", "PROFILE", "TEAM", "ROLE", "ID", "CWD")


def print_agents(agents: Sequence[dict[str, Any]]) -> None:
    """Print one line per agent."""
    rows = [
        (
            *(agent["name"], state_of(agent), duration(agent["since_s"]), agent["inbox"] or ""),
            *(agent["profile"], agent["team"], agent["role"], agent["id"], agent["cwd"]),
        )
        for agent in agents
    ]
    table(_HEADS, rows)


def state_of(agent: dict[str, Any]) -> str:
    """Return an agent's state, with what it waits for."""
    return f"{agent['state']}: {agent['waits_for']}" if agent.get("waits_for") else str(agent["state"])


def ls(values: Values) -> int:
    """List agents."""
    answer = ask_once("agents.list", {"target": values["target"], "state": values["state"]})
    if values["json"]:
        emit(answer["agents"])
    elif answer["agents"]:
        print_agents(answer["agents"])
    elif values["state"]:
        say(f"no agent is {values['state']}; see `agentd ls`")
    else:
        say(NO_AGENTS)
    return EXIT_OK


def show(values: Values) -> int:
    """Show everything about one agent."""
    agent = ask("agents.get", {"target": values["target"]})
    if values["json"]:
        emit(agent)
        return EXIT_OK
    messages = ", ".join(f"{count} {state}" for state, count in (agent.get("messages") or {}).items() if count)
    env = "\n".join(f"{name}={text}" for name, text in (agent.get("env") or {}).items())
    facts(
        [
            *((name, agent.get(name)) for name in ("name", "id", "profile", "team", "role")),
            ("state", f"{state_of(agent)} for {duration(agent['since_s'])}"),
            *(
                (name, agent.get(name))
                for name in ("reason", "asks", "prompt", "cwd", "pane", "session", "socket", "pid")
            ),
            ("exit status", agent.get("exit_status")),
            ("resume id", agent.get("resume_id")),
            ("trusted", "its directory" if agent.get("trusted") else ""),
            ("started by", agent.get("started_by")),
            ("branch", agent.get("branch")),
            ("created", moment(agent.get("created_at"))),
            ("messages", messages),
            ("usage", agent.get("usage")),
            ("transcript", _transcript(agent)),
            ("own log", agent.get("log_path")),
            ("environment", env),
        ]
    )
    return EXIT_OK


def _transcript(agent: dict[str, Any]) -> str:
    """Return how much is kept of what the agent printed, and how to see it."""
    kept = agent.get("transcript")
    return f"{megabytes(kept['size_bytes'])}, agentd transcript {agent['name']}" if kept and kept["size_bytes"] else ""


def explain(values: Values) -> int:
    """Say why an agent is thought to be in its state."""
    answer = ask("agents.explain", {"target": values["target"]})
    if values["json"]:
        emit(answer)
        return EXIT_OK
    facts(
        [
            ("agent", f"{answer['name']} ({answer['id']})"),
            ("state", f"{state_of(answer)} for {duration(answer['since_s'])}"),
            ("reason", answer["reason"]),
            ("source", answer["source"]),
            ("rule", answer["rule"]),
            ("evidence", answer["evidence"]),
            ("asks", answer.get("asks")),
            ("prompt", answer.get("prompt")),
            ("seen", f"{duration(answer['age_s'])} ago"),
            ("draft", "half-typed text stands in its composer" if answer["draft"] else ""),
            ("would change", answer["would_change"]),
        ]
    )
    return EXIT_OK


def wait(values: Values) -> int:
    """Wait for a state, a message, or the end."""
    if not values["for"]:
        raise UsageError("`agentd wait` needs --for", hint=f"for example: agentd wait {values['target']} --for idle")
    params = given({"target": values["target"], "until": values["for"], "timeout_s": values["timeout"]})
    with connection() as client:
        answer = client.call("agents.wait", params)
    if values["json"]:
        emit(answer)
    elif "message" in answer:
        say(answer["message"]["body"])
    else:
        say(f"{answer['agent']['name']} is {answer['agent']['state']}")
    return EXIT_OK


def keys(values: Values) -> int:
    """Press keys."""
    answer = ask("agents.keys", {"target": values["target"], "keys": values["key"]})
    return _done(values, answer, f"pressed {' '.join(values['key'])}")


def interrupt(values: Values) -> int:
    """Interrupt an agent."""
    answer = ask("agents.interrupt", {"target": values["target"]})
    idle = f"{values['target']} is idle; there is nothing to interrupt"
    return _done(values, answer, f"interrupted {values['target']}" if answer["pressed"] else idle)


def stop(values: Values) -> int:
    """Stop agents."""
    answer = ask("agents.stop", {"targets": values["target"], "force": values["force"]})
    if values["json"]:
        emit(answer)
    else:
        print_stopped(answer["stopped"])
    return report_failed(answer["failed"], "target")


def print_stopped(stopped: Sequence[dict[str, Any]]) -> None:
    """Print one line per agent that ended, with the messages that wait for its return."""
    for row in stopped:
        kept = f"; {row['kept']} messages are kept" if row["kept"] else ""
        say(f"{row['name']} is {row['state']}{kept}")


def respawn(values: Values) -> int:
    """Start an ended agent again."""
    answer = ask("agents.respawn", {"target": values["target"], "fresh": values["fresh"] or None})
    return _done(values, answer, f"{answer['agent']['name']} is {answer['agent']['state']}")


def rotate_token(values: Values) -> int:
    """Give an agent a new token."""
    answer = ask("agents.rotate_token", {"target": values["target"]})
    return _done(values, answer, f"{answer['name']} has a new token; the old one is refused")


def whoami(values: Values) -> int:
    """Say who the caller is."""
    answer = ask("agents.whoami")
    return _done(values, answer, f"{answer['name']} ({answer['id'] or answer['role']})")


def _done(values: Values, answer: Any, sentence: str) -> int:
    if values["json"]:
        emit(answer)
    else:
        say(sentence)
    return EXIT_OK
