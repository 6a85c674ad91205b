"""Commands about the mailbox itself."""

from __future__ import annotations

import os
from contextlib import contextmanager

from agentd.cli.output import duration, emit, megabytes, note, say, table
from agentd.cli.progress import Progress
from agentd.cli.session import ask, connection
from agentd.errors import EXIT_FAILED, EXIT_OK, AlreadyExists, UsageError
from agentd.paths import Paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from agentd.cli.grammar import Values
    from agentd.mailbox.resharding import Resharded

COMPACT_S = 3600.0  # rewriting a file takes as long as the disk takes


def stats(values: Values) -> int:
    """Say how much each shard holds."""
    answer = ask("mailbox.stats")
    if values["json"]:
        emit(answer)
        return EXIT_OK
    rows = answer["shards"]
    columns = ("inboxes", "waiting", "delivered", "ended", "dead")
    shown = [
        (
            row["shard"],
            row["health"],
            *(row[name] for name in columns),
            duration(row["oldest_waiting_s"]),
            *(megabytes(row[name]) for name in _SIZES),
        )
        for row in rows
    ]
    sums = [sum(row[name] for row in rows) for name in columns]
    total = ("all", "", *sums, "", *(megabytes(sum(row[name] for row in rows)) for name in _SIZES))
    heads = ("SHARD", "HEALTH", *(name.upper() for name in columns), "OLDEST", "FILE", "LOG", "JOURNAL", "ARCHIVE")
    table(heads, [*shown, total])
    return EXIT_OK


_SIZES = ("file_bytes", "log_bytes", "journal_bytes", "archive_bytes")


def compact(values: Values) -> int:
    """Rewrite the files without their gaps, one after the other."""
    done, progress = [], Progress()
    with connection() as client:
        shards = [row["shard"] for row in client.call("mailbox.stats")["shards"]]
        for shard in shards:
            progress.show(f"compacting shard {shard} of {len(shards)}")
            done.append(client.call("mailbox.compact", {"shard": shard}, timeout_s=COMPACT_S))
    progress.end()
    if values["json"]:
        emit({"shards": done})
        return EXIT_OK
    for row in done:
        say(f"shard {row['shard']}: {megabytes(row['before_bytes'])} before, {megabytes(row['after_bytes'])} now")
    return EXIT_OK


def verify(values: Values) -> int:
    """Look for damage; fails when there is any."""
    if values["dir"] and values["offline"]:
        raise UsageError("--dir does not go with --offline", hint="--dir names a copy, --offline is this instance")
    rows = _verified_offline(values["dir"]) if values["dir"] or values["offline"] else _verified_live()
    sound = not any(_faults(row) for row in rows)
    if values["json"]:
        emit({"ok": sound, "shards": rows})
    else:
        for row in rows:
            _print_verdict(row)
    return EXIT_OK if sound else EXIT_FAILED


def _faults(row: dict[str, Any]) -> list[str]:
    """Return what is wrong with a shard, a line each."""
    faults = [f"{id_} is damaged" for id_ in row["damaged"]]
    faults += [f"{id_} does not stand where it should" for id_ in row["misplaced"]]
    if row["wrong_keys"]:
        faults.append(f"{row['wrong_keys']} idempotency keys name another message")
    if row["structure"] not in ("ok", "not looked at"):
        faults.append(row["structure"])
    return faults


def _print_verdict(row: dict[str, Any]) -> None:
    faults = _faults(row)
    say(f"shard {row['shard']}: {row['messages']} messages, {len(faults) or 'nothing'} wrong")
    for fault in faults:
        say(f"  {fault}")


def _verified_live() -> list[dict[str, Any]]:
    """Have the daemon check itself step by step; SQLite's own check of a file would keep its messages waiting."""
    rows, progress, seen = [], Progress(), 0
    with connection() as client:
        for shard in [row["shard"] for row in client.call("mailbox.stats")["shards"]]:
            row: dict[str, Any] = {"shard": shard, "structure": "not looked at", "messages": 0, "wrong_keys": 0}
            row |= {"damaged": [], "misplaced": []}
            cursor: str | None = ""
            while cursor is not None:
                step = client.call("mailbox.verify", {"shard": shard, "cursor": cursor})
                cursor = step.pop("cursor")
                for name, value in step.items():
                    row[name] += value
                seen += step["messages"]
                progress.show(f"{seen} messages checked, {seen / progress.elapsed_s:.0f}/s")
            rows.append(row)
    progress.end()
    return rows


def _verified_offline(directory: str | None) -> list[dict[str, Any]]:
    from contextlib import nullcontext
    from dataclasses import asdict
    from pathlib import Path

    from agentd.mailbox import verification

    paths, progress, seen = Paths.find(os.environ), Progress(), 0

    def tell(messages: int) -> None:
        nonlocal seen
        seen += messages
        progress.show(f"{seen} messages checked, {seen / progress.elapsed_s:.0f}/s")

    with nullcontext() if directory else _stopped(paths, "verified offline"):
        verdicts = verification.verify(Path(directory or paths.mailbox_dir), tell)
    progress.end()
    rows = [{"shard": n, "structure": one.structure, **asdict(one.checked)} for n, one in enumerate(verdicts)]
    return [{name: value for name, value in row.items() if name != "cursor"} for row in rows]


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
