"""`agentd approve` and `agentd deny`."""

from __future__ import annotations

from agentd.cli.output import duration, emit, say, table
from agentd.cli.session import ask, given, report_failed
from agentd.errors import EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def approve(values: Values) -> int:
    """Approve what an agent asks permission for; without a target, list who waits."""
    if values["target"] is not None:
        return _answer(values, "agents.approve")
    if values["prompt"]:
        raise UsageError("`--prompt` needs an agent", hint="for example: agentd approve lead --prompt 0123456789")
    return _list(values)


def deny(values: Values) -> int:
    """Deny what an agent asks permission for."""
    return _answer(values, "agents.deny")


def _list(values: Values) -> int:
    agents = ask("agents.list", {"state": "waiting"})["agents"]
    if values["json"]:
        emit(agents)
    elif agents:
        rows = [
            (agent["name"], duration(agent["since_s"]), agent["waits_for"], agent["prompt"], _asks(agent))
            for agent in agents
        ]
        table(("AGENT", "SINCE", "WAITS FOR", "PROMPT", "ASKS"), rows)
    else:
        say("no agent waits for an answer")
    return EXIT_OK


def _asks(agent: dict[str, object]) -> object:
    return agent["asks"] or agent["reason"]


def _answer(values: Values, method: str) -> int:
    params = {"target": values["target"], "prompt": values["prompt"], "reason": values.get("reason")}
    answer = ask(method, given(params))
    if values["json"]:
        emit(answer)
    else:
        for row in answer["answered"]:
            done = "approved" if row["answer"] == "approve" else "denied"
            say(f"{done} {row['name']}{': ' if row['asks'] else ''}{row['asks']}")
    return report_failed(answer["failed"], "target")
