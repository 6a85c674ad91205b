"""What a transaction tells the journal of messages that changed their state: one record for all that did alike."""

from __future__ import annotations

from agentd.mailbox import journal


class Moved:
    """Messages by the state they went to, in an order in which each one's states follow each other."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, str], tuple[int, list[int]]] = {}  # by state and detail: the group's number, seqs
        self._last: dict[int, int] = {}  # by seq, the number of the group it was added to last
        self._closed: list[tuple[int, str, list[int]]] = []

    def add(self, seq: int, state: int, detail: str) -> None:
        """Take in that a message went to a state, by its number on disk."""
        group = self._groups.get((state, detail))
        if group is None:
            group = self._groups[state, detail] = (len(self._groups), [])
        elif self._last.get(seq, -1) > group[0]:
            self._close()
            group = self._groups[state, detail] = (0, [])
        group[1].append(seq)
        self._last[seq] = group[0]

    def records(self, at_ns: int) -> list[bytes]:
        """Return the journal records of what was added, and forget it."""
        self._close()
        records = [journal.moved(seqs, state, at_ns, detail) for state, detail, seqs in self._closed]
        self._closed.clear()
        return records

    def clear(self) -> None:
        """Forget what was added."""
        self._groups.clear()
        self._last.clear()
        self._closed.clear()

    def _close(self) -> None:
        self._closed += [(state, detail, seqs) for (state, detail), (_, seqs) in self._groups.items()]
        self._groups.clear()
        self._last.clear()
