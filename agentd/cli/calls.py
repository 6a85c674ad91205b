"""Commands about the table of calls."""

from __future__ import annotations

import json
import sys
from typing import Any

from agentd.cli.output import emit, say
from agentd.cli.session import connection
from agentd.errors import EXIT_OK, OverLimit, UsageError
from agentd.wire import MAX_FRAME_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agentd.cli.grammar import Values


def call(values: Values) -> int:
    """Make a call and print its answer; a stream's items as JSON Lines."""
    params = _params(values["json|-"])
    with connection() as client:
        if values["method"].endswith(".follow"):
            for item in client.stream(values["method"], params):
                emit(item)
        else:
            emit(client.call(values["method"], params))
    return EXIT_OK


def _params(text: str | None) -> dict[str, Any]:
    if text == "-":
        text = sys.stdin.buffer.read(MAX_FRAME_BYTES + 1).decode(errors="replace")
        if len(text) > MAX_FRAME_BYTES:
            raise OverLimit(f"stdin is over {MAX_FRAME_BYTES} bytes long", hint="send it in parts")
    try:
        params = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the parameters are not JSON: {error}", hint='write them like {"target": "lead"}') from None
    if not isinstance(params, dict):
        raise UsageError("the parameters are not an object", hint='write them like {"target": "lead"}')
    return params


def schema(values: Values) -> int:
    """Print the table of calls, as it is or as an OpenAPI document; on one line with --json."""
    from agentd.wire import calls, openapi

    table = openapi.document() if values["openapi"] else calls.schema()
    if values["json"]:
        emit(table)
    else:
        say(json.dumps(table, indent=2))
    return EXIT_OK
