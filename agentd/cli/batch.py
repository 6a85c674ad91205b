"""`agentd send --batch`: JSON Lines in, one receipt line out per input line, in bounded memory."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Iterator
from typing import Any

from agentd.calling import chunks
from agentd.cli.output import as_json
from agentd.cli.progress import Progress
from agentd.cli.session import connection
from agentd.client import Client
from agentd.errors import EXIT_OK, EXIT_PARTIAL, AgentdError, InvalidValue, NotFound, OverLimit

MAX_LINE_BYTES = 2 * 1024 * 1024  # a body at its limit, every character of it escaped
BUFFER_BYTES = 4 * 1024 * 1024  # lines read and not yet sent
READ_BYTES = 65_536
LINGER_S = 0.02  # how long a slow writer is waited for before what has come is sent
PRIORITIES = ("high", "normal", "low")
FIELDS = ("to", "body", "key", "priority", "ttl_s", "reply_to", "headers")

Line = bytes | AgentdError | None  # None: nothing more has come for the moment
Item = dict[str, Any] | AgentdError


def send_file(name: str, batch_size: int) -> int:
    """Send the messages of a file and print a receipt for each line; returns the exit code."""
    descriptor = _open(name)
    try:
        with connection() as client:
            return _Batch(client, batch_size).run(descriptor)
    finally:
        if name != "-":
            os.close(descriptor)


def _open(name: str) -> int:
    if name == "-":
        return sys.stdin.fileno()
    try:
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFound(f"no file {name}", hint="nothing was sent") from None
    except OSError as error:
        raise InvalidValue(f"cannot read {name}: {error.strerror}", hint="nothing was sent") from None
    if os.path.isdir(name):
        os.close(descriptor)
        raise InvalidValue(f"cannot read {name}: it is a directory", hint="nothing was sent")
    return descriptor


class _Batch:
    """The lines that wait to be sent, and what became of those before them."""

    def __init__(self, client: Client, size: int) -> None:
        self._client = client
        self._size = size
        self._waiting: list[tuple[int, Item]] = []
        self._waiting_bytes = 0
        self._done = self._refused = 0
        self._progress = Progress()

    def run(self, descriptor: int) -> int:
        """Send everything that can be read."""
        number = 0
        for line in read_lines(descriptor):
            if line is None:
                self._flush()
                continue
            number += 1
            if isinstance(line, bytes) and not line.strip():
                continue
            self._waiting.append((number, parse_line(line) if isinstance(line, bytes) else line))
            self._waiting_bytes += len(line) if isinstance(line, bytes) else 0
            if len(self._waiting) >= self._size or self._waiting_bytes >= BUFFER_BYTES:
                self._flush()
        self._flush()
        self._progress.end()
        return EXIT_PARTIAL if self._refused else EXIT_OK

    def _flush(self) -> None:
        """Send what waits, in one commit where it fits a call, and print its receipts."""
        good = [item for _, item in self._waiting if isinstance(item, dict)]
        answers = self._answers(good)
        for number, item in self._waiting:
            row = {"error": item.as_json()} if isinstance(item, AgentdError) else next(answers)
            self._refused += "error" in row
            print(as_json({"line": number, **row}))
            self._done += 1
        sys.stdout.flush()
        bad = f", {self._refused} refused" if self._refused else ""
        self._progress.show(f"{self._done} lines{bad}, {self._done / self._progress.elapsed_s:.0f}/s")
        self._waiting, self._waiting_bytes = [], 0

    def _answers(self, items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for chunk in chunks(items, self._size):
            if isinstance(chunk, AgentdError):
                yield {"error": chunk.as_json()}
                continue
            yield from self._sent(chunk)

    def _sent(self, chunk: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = self._client.call("messages.send_batch", {"messages": chunk})["results"]
        except AgentdError as error:
            sys.stdout.flush()
            self._progress.end()
            after = f"{self._done} lines have their receipt; send the rest again, lines with a key cannot double"
            error.hint = f"{error.hint}; {after}" if error.hint else after
            raise
        return rows


def read_lines(descriptor: int) -> Iterator[Line]:
    """Yield whole lines; None when no more come for the moment; an error in the place of one that is too long."""
    rest = b""
    too_long = False
    while True:
        if not select.select([descriptor], [], [], LINGER_S)[0]:
            yield None
            select.select([descriptor], [], [])
        data = os.read(descriptor, READ_BYTES)
        if not data:
            break
        *lines, rest = (rest + data).split(b"\n") if b"\n" in data else [rest + data]
        for line in lines:
            yield _too_long() if too_long or len(line) > MAX_LINE_BYTES else line
            too_long = False
        if len(rest) > MAX_LINE_BYTES:
            too_long, rest = True, b""
    if too_long or rest:
        yield _too_long() if too_long else rest


def _too_long() -> OverLimit:
    return OverLimit(f"the line is over {MAX_LINE_BYTES} bytes long", hint="write it to a file and send its path")


def parse_line(line: bytes) -> Item:
    """Return a line's message, or the error that stands in its receipt."""
    try:
        value = json.loads(line.decode(), parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        return InvalidValue(f"the line is not UTF-8 (byte {error.start})", hint="convert the file")
    except RecursionError:
        return InvalidValue("the line is nested too deep", hint="a message is one flat object")
    except ValueError as error:
        return InvalidValue(f"the line is not JSON: {error}", hint='write {"to": ..., "body": ...} on one line')
    if not isinstance(value, dict):
        return InvalidValue("the line is not an object", hint='write {"to": ..., "body": ...}')
    try:
        return _checked(value)
    except InvalidValue as error:
        return error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _checked(value: dict[str, Any]) -> dict[str, Any]:
    unknown = [name for name in value if name not in FIELDS]
    if unknown:
        raise InvalidValue(f"no field `{unknown[0]}`", hint=f"fields: {', '.join(FIELDS)}", field=unknown[0])
    item = {name: field for name, field in value.items() if field is not None}
    for name in ("to", "body"):
        if name not in item:
            raise InvalidValue(f"`{name}` is missing", hint="`to` and `body` are needed", field=name)
    for name in ("to", "body", "key", "reply_to"):
        if not isinstance(item.get(name, ""), str):
            raise InvalidValue(f"`{name}` is not a text", hint='write it in "quotes"', field=name)
    if item.get("priority", "normal") not in PRIORITIES:
        raise InvalidValue("`priority` is unknown", hint=f"it is one of {', '.join(PRIORITIES)}", field="priority")
    _check_ttl(item.get("ttl_s", 1))
    _check_headers(item.get("headers", {}))
    return item


def _check_ttl(ttl_s: Any) -> None:
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, int | float) or not 0 < ttl_s <= 31_536_000:
        raise InvalidValue("`ttl_s` is not a number of seconds", hint="from 0 to 31536000", field="ttl_s")


def _check_headers(headers: Any) -> None:
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise InvalidValue("`headers` is not an object of texts", hint='write {"name": "text"}', field="headers")
