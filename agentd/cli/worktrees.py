"""Commands about the git worktrees of agents."""

from __future__ import annotations

from agentd.cli.output import emit, say, table
from agentd.cli.session import ask, report_failed
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def ls(values: Values) -> int:
    """List worktrees, and what is in each."""
    answer = ask("worktrees.list")
    if values["json"]:
        emit(answer["worktrees"])
    elif answer["worktrees"]:
        rows = [
            (row["agent"], row["state"], row["branch"], row["own_commits"] or "", row["work"] or "-", row["path"])
            for row in answer["worktrees"]
        ]
        table(("AGENT", "STATE", "BRANCH", "COMMITS", "NOT COMMITTED", "PATH"), rows)
    else:
        say("no agent has a worktree; start one with: agentd spawn PROFILE --worktree")
    return EXIT_OK


def clean(values: Values) -> int:
    """Remove the worktrees of ended agents."""
    answer = ask("worktrees.clean", {"targets": values["target"], "force": values["force"] or None})
    if values["json"]:
        emit(answer)
    else:
        for row in answer["done"]:
            say(f"{row['agent']}: removed{'; ' + row['kept'] if row['kept'] else ''}")
        if not answer["done"] and not answer["failed"]:
            say("there is nothing to remove")
    return report_failed(answer["failed"], "agent")
