"""The audit: who answered which prompt, and how, in a file that only grows, and as events."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import anyio.to_thread
import msgspec

from agentd.agents.asking import Answer, Answered
from agentd.agents.directory import Directory
from agentd.errors import StorageError
from agentd.events import Events
from agentd.logs import Log
from agentd.private import open_private

SCREEN_CHARS = 1_000  # of the screen's end, where nobody says what is asked


class Audit:
    """Writes each answer down before a key is pressed, and afterwards what became of it."""

    def __init__(self, descriptor: int, path: str, directory: Directory, events: Events, log: Log) -> None:
        self._descriptor = descriptor
        self._path = path
        self._directory = directory
        self._events = events
        self._log = log

    @classmethod
    @contextmanager
    def open(cls, path: str, directory: Directory, events: Events, log: Log) -> Iterator[Audit]:
        """Open the file, 0600, and close it at the end."""
        descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            yield cls(descriptor, path, directory, events, log)
        finally:
            os.close(descriptor)

    async def decided(self, agent_id: str, answer: Answer) -> None:
        """Put an answer on disk that is about to be given; raises StorageError when that is not possible."""
        line = {"step": "decided", **self._row(agent_id, answer), **_asked(answer)}
        try:
            await anyio.to_thread.run_sync(self._append_surely, line)
        except OSError as error:
            raise StorageError(
                f"the answer could not be written down in {self._path} ({error.strerror}), so nothing was pressed",
                hint="make room on the disk, or answer with agentd keys",
            ) from None

    def answered(self, answered: Answered) -> None:
        """Write down and tell what became of an answer."""
        answer = answered.answer
        row = self._row(answered.agent_id, answer)
        ended = (
            {"step": "failed", "error": answered.error} if answered.error else {"step": "given", "then": answered.then}
        )
        self._events.emit("agent.permission", **row, asks=answer.prompt.asks, **ended)
        try:
            self._append({**ended, **row})
        except OSError as error:  # it is given; its first line is on disk
            self._log.error("could not write the audit", path=self._path, error=str(error), **row)

    def _row(self, agent_id: str, answer: Answer) -> dict[str, Any]:
        agent = self._directory.entry(agent_id).agent
        who = {"pid": answer.pid, "uid": answer.uid} if answer.pid else {}
        return {
            "agent": agent_id,
            "name": agent.name,
            "team": agent.team,
            "profile": agent.profile,
            "answer": answer.decision,
            "by": answer.by,
            **who,
            "prompt": answer.prompt.id,
            "reason": answer.reason,
        }

    def _append_surely(self, line: dict[str, Any]) -> None:
        self._append(line)
        os.fsync(self._descriptor)

    def _append(self, line: dict[str, Any]) -> None:
        data = msgspec.json.encode({"at": time.time(), **line}) + b"\n"
        if os.write(self._descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _asked(answer: Answer) -> dict[str, str]:
    prompt = answer.prompt
    return {"asks": prompt.asks} if prompt.asks else {"screen": prompt.words[-SCREEN_CHARS:]}
