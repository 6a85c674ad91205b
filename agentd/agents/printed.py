"""What a program prints, for those who follow it."""

from __future__ import annotations

import codecs
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from agentd.agents.text import sanitise

KEPT_CHUNKS = 1000  # of a follower that does not read; the rest is left out and said so
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[ -/]*[0-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[[0-?]*[ -/]*|\][^\x07\x1b]{0,4096}\x1b?|[PX^_][^\x1b]{0,4096}\x1b?|[ -/]*)?$")


class Printed:
    """Hands a program's output to its followers; nothing is kept when there is none."""

    def __init__(self) -> None:
        self._followers: list[tuple[MemoryObjectSendStream[bytes], list[int]]] = []

    @property
    def followed(self) -> bool:
        """Tell whether anybody follows, so that nobody decodes in vain."""
        return bool(self._followers)

    def add(self, data: bytes) -> None:
        """Give output to every follower; one that is too slow misses it and is told."""
        for stream, missed in self._followers:
            try:
                stream.send_nowait(data)
            except anyio.WouldBlock:
                missed[0] += len(data)

    def close(self) -> None:
        """End every follower's stream."""
        for stream, _ in self._followers:
            stream.close()

    async def follow(self, *, raw: bool) -> AsyncIterator[str]:
        """Yield output as text; without `raw`, escape sequences are taken out and control characters replaced."""
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        held = ""
        with self._stream() as (receive, missed):
            async for data in receive:
                text = decode(data)
                if not raw:
                    text, held = _plain(held + text)
                if missed[0]:
                    text += f"\n[{missed[0]} bytes were left out: the reader was too slow]\n"
                    missed[0] = 0
                if text:
                    yield text

    @contextmanager
    def _stream(self) -> Iterator[tuple[MemoryObjectReceiveStream[bytes], list[int]]]:
        send, receive = anyio.create_memory_object_stream[bytes](KEPT_CHUNKS)
        follower = (send, [0])
        self._followers.append(follower)
        try:
            with receive:
                yield receive, follower[1]
        finally:
            self._followers.remove(follower)
            send.close()


def _plain(text: str) -> tuple[str, str]:
    """Return printable text, and an escape sequence that has begun and is not whole yet."""
    unfinished = _UNFINISHED.search(text)
    held = ""
    if unfinished and len(text) - unfinished.start() < 4096:
        text, held = text[: unfinished.start()], text[unfinished.start() :]
    return sanitise(_ESCAPES.sub("", text).replace("\r\n", "\n").replace("\r", "\n").replace("\b", "")), held
