"""`agentd top`: live at a terminal, once everywhere else."""

from __future__ import annotations

import sys

from agentd.cli.output import emit, say, table
from agentd.cli.overview import BORN, HEADS, counted, in_order, row_of, totals
from agentd.cli.session import NO_AGENTS, connection
from agentd.errors import EXIT_OK, Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def top(values: Values) -> int:
    """Show the live view, or print what it would show now."""
    if values["once"] or values["json"] or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return _once(values)
    try:
        from agentd.cli.live import run
    except ImportError as error:
        if (error.name or "").partition(".")[0] not in ("textual", "rich"):
            raise
        raise Conflict(
            "the live view needs textual, which is not installed",
            hint="pip install 'agentd[top]', or see it once: agentd top --once",
        ) from None
    with connection():
        pass  # starts the daemon, or says why it cannot, while there is still a terminal to say it on
    run()
    return EXIT_OK


def _once(values: Values) -> int:
    with connection() as client:
        with client.pipeline() as together:
            calls = [together.call(method) for method in ("agents.list", "daemon.status", "daemon.metrics")]
        listed, status, metrics = (call.result() for call in calls)
    agents = in_order(listed["agents"], "state")
    if values["json"]:
        emit({"agents": agents, "status": status, "metrics": metrics})
        return EXIT_OK
    say(totals(status, BORN, counted(status, metrics)))
    if agents:
        table(HEADS, [row_of(agent) for agent in agents])
    else:
        say(NO_AGENTS)
    return EXIT_OK
