"""The command about what agents printed."""

from __future__ import annotations

import time

from agentd.cli.output import emit
from agentd.cli.screens import show_part, write
from agentd.cli.session import connection, given
from agentd.cli.when import when
from agentd.client import connect
from agentd.errors import EXIT_OK, Unavailable, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from agentd.cli.grammar import Values

BACK_S = 20.0  # how long a daemon may take to come back before a follower gives up
_LOOK_S = 0.2
_BEGINNINGS = ("since", "offset", "lines")


def transcript(values: Values) -> int:
    """Print a transcript, and follow it."""
    chosen = [f"--{name}" for name in _BEGINNINGS if values[name] is not None]
    if len(chosen) > 1:
        raise UsageError(f"{chosen[0]} and {chosen[1]} both say where to begin", hint="give one of them")
    if values["own"]:
        return _own(values, chosen)
    ended = True  # the last line that was printed
    for part in _parts(values):
        if values["json"]:
            emit(part)
        else:
            show_part(part)
            ended = "data" in part or part["text"].endswith("\n") or (ended and not part["text"])
    if not ended:
        write("\n")
    return EXIT_OK


def _parts(values: Values) -> Iterator[dict[str, Any]]:
    """Yield what is kept, and with --follow what is printed from then on."""
    target, raw = values["target"], values["raw"] or None
    begin = {"since": when("--since", values["since"]), "offset": values["offset"], "lines": values["lines"]}
    with connection() as client:
        part = client.call("agents.transcript", given({"target": target, "raw": raw, **begin}))
        end = part["end"]  # of an agent that prints without end, no more than there was
        yield part
        while part["next"] < end and part["next"] > part["offset"]:
            part = client.call("agents.transcript", given({"target": target, "raw": raw, "offset": part["next"]}))
            yield part
    if values["follow"]:
        yield from _following(given({"target": part["id"], "raw": raw, "offset": part["next"]}))


def _following(params: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is printed, through restarts of the daemon: each time from where the last part ended."""
    seen_s = time.monotonic()
    while True:
        try:
            with connect(autostart=False) as client:  # whoever stopped it does not want it back for our sake
                seen_s = time.monotonic()
                for part in client.stream("agents.follow", params):
                    params["offset"] = part["next"]
                    yield part
                    seen_s = time.monotonic()
        except Unavailable:
            if time.monotonic() - seen_s > BACK_S:
                raise
            time.sleep(_LOOK_S)
        else:
            return


def _own(values: Values, chosen: list[str]) -> int:
    """Print the file in which the agent's program itself keeps its session."""
    if values["follow"] or [name for name in chosen if name != "--offset"]:
        raise UsageError("--own takes --offset and --raw alone", hint="leave out the others")
    params = given({"target": values["target"], "raw": values["raw"] or None, "offset": values["offset"]})
    with connection() as client:
        while True:
            part = client.call("agents.own_log", params)
            emit(part) if values["json"] else show_part(part)
            if part["next"] >= part["end"] or part["next"] <= part["offset"]:
                return EXIT_OK
            params["offset"] = part["next"]
