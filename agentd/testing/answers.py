"""What the demo agent does with a prompt: echoes every message to its sender and acknowledges it."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from agentd.agents.text import Envelope, PlainText, parse
from agentd.errors import AgentdError
from agentd.records import Receipt
from agentd.testing.composer import one_line

if TYPE_CHECKING:
    from agentd.client import Client

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
SHOWN_CHARS = 120

T = TypeVar("T")


class Answers:
    """Answers prompts through the daemon, as patiently as it takes; without a daemon it only says what it read."""

    def __init__(self, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._environ = environ
        self._log = environ.get("AGENTD_DEMO_LOG", "")
        self._connects = bool(environ.get("AGENTD_SOCKET"))
        self._say = say
        self._client: Client | None = None

    def answer(self, prompt: str) -> None:
        """Deal with every message of a prompt; plain text is only echoed to the screen."""
        found = parse(prompt)
        envelopes = [item for item in found if isinstance(item, Envelope)]
        try:
            read = [self._fetched(envelope) for envelope in envelopes]
            self._write_down(read)
            if self._connects and read:
                self._reply([envelope for envelope in read if envelope.reply_to is None])
                self._ack([envelope.id for envelope in read])
        except AgentdError as error:
            self._say(f"demo: not answered: {one_line(error.message)}")
            return
        for body in [*(item.body for item in read), *(item.text for item in found if isinstance(item, PlainText))]:
            self._say(f"echo: {one_line(body[:SHOWN_CHARS])}")

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _fetched(self, envelope: Envelope) -> Envelope:
        if envelope.pointer_bytes is None or not self._connects:
            return envelope
        row = self._patiently(lambda client: client.call("messages.get", id=envelope.id))
        return replace(envelope, body=row["body"])

    def _write_down(self, envelopes: Sequence[Envelope]) -> None:
        if not self._log or not envelopes:
            return
        rows = [
            json.dumps({"id": item.id, "from": item.sender, "body": item.body, "at": time.time()}) for item in envelopes
        ]
        with Path(self._log).open("a", encoding="utf-8") as file:
            file.write("".join(row + "\n" for row in rows))

    def _reply(self, envelopes: Sequence[Envelope]) -> None:
        """Echo each to its sender, never an answer: two demo agents would echo each other for ever."""
        items = [
            {"to": item.sender, "body": f"echo: {item.body}", "reply_to": item.id, "key": f"reply-{item.id}"}
            for item in envelopes
        ]
        for pause_s in _pauses():
            results = self._patiently(functools.partial(_send, items))
            errors = [(i, result) for i, result in zip(items, results, strict=True) if isinstance(result, AgentdError)]
            for item, error in errors:
                if not error.retryable:
                    self._say(f"demo: no answer to {item['to']}: {one_line(error.message)}")
            items = [item for item, error in errors if error.retryable]
            if not items:
                return
            time.sleep(pause_s)

    def _ack(self, ids: Sequence[str]) -> None:
        left = list(ids)
        for pause_s in _pauses():
            done = self._patiently(functools.partial(_ack, left))
            left = [row["id"] for row in done["failed"] if row["error"].get("retryable")]
            if not left:
                return
            time.sleep(pause_s)

    def _patiently(self, action: Callable[[Client], T]) -> T:
        """Do it, again and again while the daemon is away; keys make a repeated call harmless."""
        pauses = _pauses()
        while True:
            try:
                return action(self._connected())
            except AgentdError as error:
                if not error.retryable:
                    raise
            time.sleep(next(pauses))

    def _connected(self) -> Client:
        if self._client is None:
            from agentd.client import connect

            self._client = connect(autostart=False, environ=self._environ)
        return self._client


def _pauses() -> Iterator[float]:
    """Yield how long to wait before each further try, without end."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(pause_s * 2, LONGEST_PAUSE_S)


def _send(items: Sequence[Mapping[str, Any]], client: Client) -> list[Receipt | AgentdError]:
    return client.send_batch(items)


def _ack(ids: Sequence[str], client: Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.call("messages.ack", ids=ids)
    return answer
