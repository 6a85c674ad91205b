"""Commands about the loop guard."""

from __future__ import annotations

from agentd.cli.output import duration, emit, say, table
from agentd.cli.session import ask, report_failed
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def ls(values: Values) -> int:
    """List chains and pairs of agents that are near a limit or over it."""
    answer = ask("loops.list")
    if values["json"]:
        emit(answer)
        return EXIT_OK
    if answer["chains"]:
        rows = [(chain["trace"], chain["messages"], chain["hops"], chain["refused"]) for chain in answer["chains"]]
        table(("TRACE", "MESSAGES", "HOPS", "REFUSED"), rows)
    if answer["pairs"]:
        pairs = [(pair["from"], pair["to"], duration(pair["retry_after_ms"] / 1000 + 1)) for pair in answer["pairs"]]
        table(("FROM", "TO", "WAITS"), pairs)
    if not answer["chains"] and not answer["pairs"]:
        say("no loops: no chain of messages between agents is near a limit")
    return EXIT_OK


def reset(values: Values) -> int:
    """Let messages flow again."""
    answer = ask("loops.reset", {"names": values["trace|agent"]})
    if values["json"]:
        emit(answer)
    else:
        for name in answer["done"]:
            say(f"{name}: messages flow again")
    return report_failed(answer["failed"], "id")
