"""Commands about what happens: events and metrics."""

from __future__ import annotations

from agentd.cli.output import as_json, cell, emit, moment, say, table
from agentd.cli.session import ask, connection, given
from agentd.errors import EXIT_FAILED, EXIT_OK

TEST_TIMEOUT_S = 1000.0  # three commands, 300 s each at most

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values


def events(values: Values) -> int:
    """Print kept events, or follow."""
    types = [type_ for type_ in (values["types"] or "").split(",") if type_]
    params = given({"since": values["since"], "types": types})
    if values["follow"]:
        with connection() as client:
            for event in client.events(follow=True, since=values["since"], types=types):
                _print(values, event)
        return EXIT_OK
    answer = ask("events.list", params)
    for event in answer["events"]:
        _print(values, event)
    if not answer["events"] and not values["json"]:
        say("no events are kept; follow what happens with `agentd events --follow`")
    return EXIT_OK


def _print(values: Values, event: dict[str, Any]) -> None:
    if values["json"]:
        emit(event)
        return
    data = " ".join(f"{name}={_short(value)}" for name, value in event["data"].items() if value not in (None, "", []))
    print(cell(f"{moment(event['at'])}  {event['id']:>6}  {event['type']:<18}  {data}".rstrip()), flush=True)


def _short(value: Any) -> str:
    if isinstance(value, str) and value and " " not in value:
        return value
    text = as_json(value)
    return text if len(text) <= 100 else text[:99] + "…"


def notify_test(values: Values) -> int:
    """Run the user's hooks once, with an example."""
    with connection() as client:
        rows = client.call("notify.test", timeout_s=TEST_TIMEOUT_S)["hooks"]
    if values["json"]:
        emit(rows)
    elif rows:
        table(
            ("HOOK", "ENDED", "TOOK", "COMMAND", "OUTPUT"),
            [
                (row["hook"], row["error"] or "well", f"{row['took_ms']} ms", " ".join(row["command"]), row["output"])
                for row in rows
            ],
        )
    else:
        say("no hook is set; see [hooks] in `agentd config show`")
    return EXIT_FAILED if any(row["error"] for row in rows) else EXIT_OK


def metrics(values: Values) -> int:
    """Print counters and gauges."""
    answer = ask("daemon.metrics")
    if values["json"]:
        emit(answer)
    else:
        table(("METRIC", "VALUE"), [(name, f"{value:g}") for name, value in answer.items()])
    return EXIT_OK
