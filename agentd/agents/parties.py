"""Which callers' agents are being started at this moment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from agentd.agents.line import Party


class Parties:
    """The parties of the calls under way."""

    def __init__(self) -> None:
        self._open: list[Party] = []

    @contextmanager
    def open(self, names: Sequence[str], pid: int) -> Iterator[Party]:
        """Give a caller's process the party of the agents it asks for, until its call is answered."""
        party = Party(names, pid)
        self._open.append(party)
        try:
            yield party
        finally:
            self._open.remove(party)

    def of(self, pid: int) -> list[Party]:
        """Return the parties that a process asked for."""
        return [party for party in self._open if party.pid == pid]
