"""Commands about the mailbox itself."""

from __future__ import annotations

import os
from contextlib import contextmanager

from agentd.cli.output import emit, note, say
from agentd.cli.progress import Progress
from agentd.errors import EXIT_OK, AlreadyExists
from agentd.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentd.cli.grammar import Values
    from agentd.mailbox.resharding import Resharded


def reshard(values: Values) -> int:
    """Spread the messages over another number of shards, while no daemon runs."""
    from pathlib import Path

    from agentd import config
    from agentd.mailbox.resharding import reshard as spread

    paths = Paths.find(os.environ)
    progress = Progress()
    settings = config.load(paths.config_file, os.environ)
    with _stopped(paths, "resharded"):
        done = spread(
            Path(paths.mailbox_dir),
            int(values["n"]),
            settings.mailbox,
            lambda what, count, of: progress.show(f"{what}: {count} of {of} messages"),
        )
    progress.end()
    _print_resharded(values, done)
    return EXIT_OK


@contextmanager
def _stopped(paths: Paths, what: str) -> Iterator[None]:
    """Keep a daemon from starting, or say that one runs."""
    from agentd.doors.listening import AlreadyRunning, InstanceLock

    lock = InstanceLock(paths)
    try:
        lock.acquire()
    except AlreadyRunning as running:
        raise AlreadyExists(
            f"{running.message}: the mailbox cannot be {what} while it runs; nothing was changed",
            hint="`agentd down` first; agents stay alive",
        ) from None
    try:
        yield
    finally:
        lock.release()


def _print_resharded(values: Values, done: Resharded) -> None:
    kept = None if done.kept is None else str(done.kept)
    if values["json"]:
        emit({"before": done.before, "after": done.after, "messages": done.messages, "kept": kept})
        return
    for report in done.reports:
        note(report)
    if kept is None:
        say(f"the mailbox has {done.after} shards already")
    else:
        say(f"{done.messages} messages are in {done.after} shards now; the {done.before} old ones were kept in {kept}")
