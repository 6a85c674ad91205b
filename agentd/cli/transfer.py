"""`agentd mailbox export` and `import`: messages as JSON Lines, a page or a batch at a time."""

from __future__ import annotations

import gzip
import json
import os
import sys
import time
from contextlib import contextmanager

from agentd.calling import chunks
from agentd.cli.output import complain, emit, note, say
from agentd.cli.progress import Progress
from agentd.cli.session import connection
from agentd.errors import EXIT_OK, EXIT_PARTIAL, AgentdError, AlreadyExists, InvalidValue, NotFound, from_wire
from agentd.paths import Paths
from agentd.private import open_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, BinaryIO

    from agentd.cli.grammar import Values
    from agentd.client import Client

MAX_LINE_BYTES = 4 * 1024 * 1024
BATCH = 500  # lines read before they are sent


def export(values: Values) -> int:
    """Write what is stored, the archive first, so that a line that is in both is taken from there."""
    since_s = time.time() - values["since"] if values["since"] is not None else 0.0
    params = {"states": values["state"], "since": since_s}
    if values["agent"]:
        params["target"] = values["agent"]
    count, damaged, progress = 0, 0, Progress()
    with connection() as client, _written(values["file|-"]) as out:
        for lines, broken in _pages(client, params, archive=values["archive"]):
            out.write(b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines))
            count, damaged = count + len(lines), damaged + len(broken)
            for id_ in broken:
                note(f"{id_} is damaged and was left out")
            progress.show(f"{count} messages, {count / progress.elapsed_s:.0f}/s")
    progress.end()
    if values["file|-"] not in (None, "-"):
        _say(values, {"exported": count, "damaged": damaged}, f"{count} messages are in {values['file|-']}")
    return EXIT_PARTIAL if damaged else EXIT_OK


def _pages(
    client: Client, params: dict[str, Any], *, archive: bool
) -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    answer = client.call("mailbox.export", params)
    if archive:
        yield from ((lines, []) for lines in _archived(answer["inboxes"], params))
    while answer["cursor"]:
        yield answer["messages"], answer["damaged"]
        answer = client.call("mailbox.export", {**params, "cursor": answer["cursor"]})


def _archived(inboxes: list[str] | None, params: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    from pathlib import Path

    from agentd.mailbox import archive

    for path in archive.files(Path(Paths.find(os.environ).mailbox_dir, "archive")):
        for text in archive.read(path):
            line = json.loads(text)
            wanted = inboxes is None or line["to"] in inboxes
            wanted = wanted and (not params["states"] or line["state"] in params["states"])
            if wanted and line["created_ns"] >= params["since"] * 1e9:
                yield [line]


@contextmanager
def _written(name: str | None) -> Iterator[BinaryIO]:
    """Give a file that appears under its name when it is whole."""
    if name in (None, "-"):
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.lexists(name):
        raise AlreadyExists(f"{name} is there and was left alone", hint="choose another name")
    partial = f"{name}.partial"
    directory = os.path.dirname(name) or "."
    if not os.path.isdir(directory):
        raise NotFound(f"no directory {directory}", hint="make it, or choose another; nothing was exported")
    if not os.access(directory, os.W_OK | os.X_OK):
        raise InvalidValue(f"you may not write to {directory}", hint="choose another place; nothing was exported")
    descriptor = open_private(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        if name.endswith(".gz"):
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as compressed:
                yield compressed  # type: ignore[misc]  # it is written to like any file
        else:
            yield file
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, name)


def import_(values: Values) -> int:
    """Bring back what a file holds, and say of each line that is refused why."""
    done, progress = {"added": 0, "known": 0, "refused": 0}, Progress()
    with connection() as client, _read(values["file|-"]) as file:
        for number, result in _results(client, file):
            if isinstance(result, AgentdError):
                progress.end()
                result.message = f"line {number}: {result.message}"
                complain(result)
            done["refused" if isinstance(result, AgentdError) else "added" if result else "known"] += 1
            progress.show(f"{number} lines, {number / progress.elapsed_s:.0f}/s")
    progress.end()
    _say(
        values,
        done,
        f"{done['added']} messages added, {done['known']} were there already, {done['refused']} refused"
        + ("; `agentd mailbox reindex` lets search find them" if done["added"] else ""),
    )
    return EXIT_PARTIAL if done["refused"] else EXIT_OK


@contextmanager
def _read(name: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield sys.stdin.buffer
        return
    try:
        with open(name, "rb") as file:
            yield gzip.GzipFile(fileobj=file) if name.endswith(".gz") else file  # type: ignore[misc]  # likewise
    except FileNotFoundError:
        raise NotFound(f"no file {name}", hint="nothing was imported") from None
    except (OSError, EOFError) as error:
        raise InvalidValue(
            f"cannot read {name}: {error}", hint="what was read before is imported; import it again from a whole file"
        ) from None


def _results(client: Client, file: BinaryIO) -> Iterator[tuple[int, bool | AgentdError]]:
    """Yield the number of each line and what became of it."""
    waiting: list[tuple[int, dict[str, Any]]] = []
    for number, item in _items(file):
        if isinstance(item, AgentdError):
            yield number, item
            continue
        waiting.append((number, item))
        if len(waiting) >= BATCH:
            yield from _sent(client, waiting)
            waiting = []
    yield from _sent(client, waiting)


def _items(file: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | AgentdError]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InvalidValue(f"line {number} is over {MAX_LINE_BYTES} bytes long", hint="is it an export?")
        if line.strip():
            yield number, _parsed(line)


def _parsed(line: bytes) -> dict[str, Any] | AgentdError:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return InvalidValue(f"the line is not JSON: {error}", hint="import what `agentd mailbox export` wrote")
    if not isinstance(value, dict):
        return InvalidValue("the line is not an object", hint="import what `agentd mailbox export` wrote")
    return value


def _sent(client: Client, waiting: list[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, bool | AgentdError]]:
    numbers = iter([number for number, _ in waiting])
    for chunk in chunks([item for _, item in waiting], BATCH):
        if isinstance(chunk, AgentdError):
            yield next(numbers), chunk
            continue
        for row in client.call("mailbox.import", {"messages": chunk})["results"]:
            error = row.get("error")
            yield next(numbers), from_wire(error["code"], error["message"], error) if error else row["added"]


def _say(values: Values, answer: dict[str, Any], text: str) -> None:
    if values["json"]:
        emit(answer)
    else:
        say(text)
