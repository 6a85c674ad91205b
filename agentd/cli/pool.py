"""Commands about the warm pool."""

from __future__ import annotations

import os

from agentd.cli.output import emit, say, table, tell_notices
from agentd.cli.session import ask, given
from agentd.errors import EXIT_OK, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from agentd.cli.grammar import Values

MOST = 1000
_HEADS = ("PROFILE", "PLACE", "TARGET", "WARM", "BOOTING", "HITS", "MISSES", "RECYCLED", "WHY")


def ls(values: Values) -> int:
    """List the places in which agents are kept booted."""
    return _show(values, ask("pool.list"))


def set_(values: Values) -> int:
    """Keep agents booted in a place."""
    params = {"profile": values["profile"], "size": _size(values["size"]), "most": values["most"]}
    flags = {name: values[name] or None for name in ("worktree", "trust", "recycle")}
    where = {"cwd": os.path.abspath(values["cwd"] or "."), **flags}
    answer = ask("pool.set", given({**params, **where}))
    tell_notices(answer)
    return _show(values, answer)


def drain(values: Values) -> int:
    """Keep none any more."""
    cwd = os.path.abspath(values["cwd"]) if values["cwd"] else None
    answer = ask("pool.drain", given({"profile": values["profile"], "cwd": cwd}))
    if values["json"]:
        emit(answer)
    else:
        say(f"{answer['ended']} ended, and no more are kept")
    return EXIT_OK


def _size(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= MOST):
        raise UsageError(f"SIZE is {text}; it must be from 0 to {MOST}", hint="for example: agentd pool set claude 3")
    return int(text)


def _show(values: Values, answer: dict[str, Any]) -> int:
    if values["json"]:
        emit(answer["pools"])
    elif answer["pools"]:
        keys = [head.lower() for head in _HEADS]
        table(_HEADS, [[pool[key] for key in keys] for pool in answer["pools"]])
    else:
        say("no agents are kept booted; keep some: agentd pool set PROFILE SIZE")
    return EXIT_OK
