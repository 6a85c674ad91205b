"""Those who wait for a message's state or answer: small records resolved by committed changes, not tasks."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from agentd.records import Change

Wanted = Callable[[Change], bool]


class Waiters:
    """Futures by what they are about: a message, the message it answers, who sent it, or whose inbox it is in."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, list[tuple[Wanted, asyncio.Future[Change]]]] = defaultdict(list)

    def __len__(self) -> int:
        return sum(len(rows) for rows in self._waiting.values())

    @contextmanager
    def expect(self, key: str, wanted: Wanted) -> Iterator[asyncio.Future[Change]]:
        """Give a future of the first wanted change; used before looking, none is missed."""
        future: asyncio.Future[Change] = asyncio.get_running_loop().create_future()
        row = (wanted, future)
        self._waiting[key].append(row)
        try:
            yield future
        finally:
            self._waiting[key].remove(row)
            if not self._waiting[key]:
                del self._waiting[key]
            future.cancel()

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Resolve those who waited for these changes."""
        if not self._waiting:
            return
        for change in changes:
            for key in {change.id, change.reply_to or "", change.sender, change.to}:
                for wanted, future in self._waiting.get(key, ()):
                    if not future.done() and wanted(change):
                        future.set_result(change)
