"""Commands about searching."""

from __future__ import annotations

import time

from agentd.cli.output import duration, emit, note, say, table
from agentd.cli.session import ask
from agentd.errors import EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.cli.grammar import Values

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def search(values: Values) -> int:
    """Print the messages that answer a query best."""
    answer = ask(
        "messages.search",
        {
            "query": values["query"],
            "in": values["in"],
            "target": values["to"],
            "sender": values["from"],
            "since": _moment("--since", values["since"]),
            "until": _moment("--until", values["until"]),
            "limit": values["limit"],
        },
    )
    if values["json"]:
        emit(answer["messages"])
    elif answer["messages"]:
        rows = answer["messages"]
        heads = ("ID", "FROM", "TO", "AGE", "TEXT")
        table(heads, [_row(message) for message in rows], marked=[message["matches"] for message in rows])
    else:
        say(f"no message has {values['query']}")
    _say_what_is_missing(answer)
    return EXIT_OK


def _row(message: dict[str, Any]) -> Sequence[object]:
    age = duration(max(0.0, time.time() - message["created_at"]))
    return (message["id"], message["from"], message["to"], age, message["snippet"])


def _say_what_is_missing(answer: dict[str, Any]) -> None:
    if answer["left_out"]:
        note(
            f"agentd: {answer['left_out']} more do not fit into one answer; narrow the search, with --until for example"
        )
    if answer["indexed_behind"]:
        note(f"agentd: {answer['indexed_behind']} messages are not indexed yet; search again in a moment")


def _moment(option: str, text: str | None) -> float | None:
    """Return the unix time that a text means: a while ago (2h, 3d), a day, a day and time, or the number itself."""
    if text is None:
        return None
    number, unit = (text[:-1], _UNITS_S[text[-1]]) if text[-1:] in _UNITS_S else (text, 0)
    if number.replace(".", "", 1).isdecimal() and number.isascii():
        return max(0.0, time.time() - float(number) * unit) if unit else float(number)
    for form in _DAY_FORMATS:
        try:
            return max(0.0, time.mktime(time.strptime(text, form)))
        except (ValueError, OverflowError):
            continue
    raise UsageError(f"{option} cannot be `{text}`", hint="write 90s, 20m, 2h, 3d, 1w, 2026-01-31 or 2026-01-31T14:00")


def reindex(values: Values) -> int:
    """Have the index made again."""
    answer = ask("messages.reindex")
    if values["json"]:
        emit(answer)
    else:
        say(f"the index is being made again; {answer['indexed_behind']} messages or more are to be read")
    return EXIT_OK
