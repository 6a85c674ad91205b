"""Commands about dead letters."""

from __future__ import annotations

from agentd.cli.messages import change, print_messages
from agentd.cli.session import ask
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def ls(values: Values) -> int:
    """List dead letters."""
    answer = ask("messages.dead", {"target": values["target"], "limit": values["limit"]})
    print_messages(values, answer, "no dead letters")
    return EXIT_OK


def retry(values: Values) -> int:
    """Offer dead letters again."""
    return change(values, "messages.retry", {"ids": values["id"]}, "offered again")


def drop(values: Values) -> int:
    """Delete dead letters."""
    return change(values, "messages.drop", {"ids": values["id"]}, "deleted")
