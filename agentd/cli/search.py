"""Commands about searching."""

from __future__ import annotations

import time

from agentd.cli.output import duration, emit, note, say, table
from agentd.cli.session import ask
from agentd.cli.when import when
from agentd.errors import EXIT_OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.cli.grammar import Values


def search(values: Values) -> int:
    """Print the messages, or the passages of transcripts, that answer a query best."""
    answer = ask(
        "messages.search",
        {
            "query": values["query"],
            "in": values["in"],
            "target": values["to"],
            "sender": values["from"],
            "since": when("--since", values["since"]),
            "until": when("--until", values["until"]),
            "limit": values["limit"],
        },
    )
    what, heads, row_of = _TRANSCRIPTS if values["in"] == "transcripts" else _MESSAGES
    rows = answer[f"{what}s"]
    if values["json"]:
        emit(rows)
    elif rows:
        table(heads, [row_of(row) for row in rows], marked=[row["matches"] for row in rows])
    else:
        say(f"no {what} has {values['query']}")
    _say_what_is_missing(answer, "bytes" if what == "passage" else "messages")
    return EXIT_OK


def _message(message: dict[str, Any]) -> Sequence[object]:
    return (message["id"], message["from"], message["to"], _age(message["created_at"]), message["snippet"])


def _passage(passage: dict[str, Any]) -> Sequence[object]:
    return (passage["agent"], passage["offset"], _age(passage["at"]), passage["snippet"])


def _age(at_s: float) -> str:
    return duration(max(0.0, time.time() - at_s))


_MESSAGES = ("message", ("ID", "FROM", "TO", "AGE", "TEXT"), _message)
_TRANSCRIPTS = ("passage", ("AGENT", "OFFSET", "AGE", "TEXT"), _passage)


def _say_what_is_missing(answer: dict[str, Any], what: str) -> None:
    if answer["left_out"]:
        note(
            f"agentd: {answer['left_out']} more do not fit into one answer; narrow the search, with --until for example"
        )
    if answer["indexed_behind"]:
        note(f"agentd: {answer['indexed_behind']} {what} are not indexed yet; search again in a moment")


def reindex(values: Values) -> int:
    """Have the index made again."""
    answer = ask("messages.reindex", {"in": values["in"]})
    if values["json"]:
        emit(answer)
    else:
        what = "bytes" if values["in"] == "transcripts" else "messages"
        say(f"the index is being made again; {answer['indexed_behind']} {what} or more are to be read")
    return EXIT_OK
