"""Shows on a terminal what a call under way has come to, asked over a connection of its own."""

from __future__ import annotations

import sys
from contextlib import contextmanager

from agentd.cli.output import cell
from agentd.cli.progress import AFTER_S, Progress
from agentd.client import connect
from agentd.errors import AgentdError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from threading import Event
    from typing import Any

    from agentd.client import Client

    Look = Callable[[Client], str]

EVERY_S = 0.3
LOOK_TIMEOUT_S = 2.0


@contextmanager
def watched(look: Look, *, quiet: bool) -> Iterator[None]:
    """Show every now and then what a look sees while the block runs; nothing where nobody would see it."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    import threading

    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(look, Progress(), done), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join(LOOK_TIMEOUT_S)


def _watch(look: Look, progress: Progress, done: Event) -> None:
    try:
        if not done.wait(AFTER_S):
            with connect(autostart=False, timeout_s=LOOK_TIMEOUT_S) as client:
                _show(look, client, progress, done)
    except AgentdError:  # what goes wrong with the call itself is told by whoever makes it
        pass
    finally:
        progress.end()


def _show(look: Look, client: Client, progress: Progress, done: Event) -> None:
    while not done.wait(EVERY_S):
        if text := look(client):
            progress.show(cell(text))


def starting(client: Client) -> str:
    """Say how far this process's own calls are that start agents."""
    seen = client.call("agents.starting")
    if not seen["asked"]:
        return ""
    said = f"{seen['started']} of {seen['asked']} started, {seen['ready']} ready"
    if not seen["waiting"]:
        return said
    verb = "waits" if seen["waiting"] == 1 else "wait"
    return f"{said}, {seen['waiting']} {verb} for {'its' if verb == 'waits' else 'their'} turn ({seen['why']})"


def reaching(ids: Collection[str], state: str) -> Look:
    """Return a look that says how many of some agents have reached a state."""

    def look(client: Client) -> str:
        rows: list[dict[str, Any]] = client.call("agents.list", {"state": state})["agents"]
        return f"{sum(row['id'] in ids for row in rows)} of {len(ids)} {state}"

    return look
