"""What a full-text index does, whichever engine does it: of messages, and of passages of transcripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from agentd.index.query import Query

FORMAT: Final = 1  # a new number with other fields, or with another notion of a word: the index is made again
MOST_MARKS: Final = 16  # watermarks of one index
FIRST_SEQ: Final = 0
LAST_SEQ: Final = (1 << 62) - 1


class IndexDamaged(Exception):
    """Raised when an index cannot be read or written; it is made again from what it is of."""


class Entry(NamedTuple):
    """What an index takes in of a text; `seq` is its name and its place in time."""

    seq: int
    to: str  # whose inbox, or whose transcript
    sender: str
    words: Sequence[str]


class Hit(NamedTuple):
    """A text that a query found; a higher score is better, within one answer."""

    seq: int
    score: float


@dataclass(frozen=True, slots=True)
class Within:
    """Which texts a search looks at; empty means all."""

    to: Sequence[str] = ()  # inboxes, or agents
    senders: Sequence[str] = ()
    of: str = ""  # sent or received by this one
    since_seq: int = FIRST_SEQ
    until_seq: int = LAST_SEQ  # this one too


class Index(Protocol):
    """A full-text index in a directory of its own; each method blocks and may raise IndexDamaged.

    One thread at a time adds, commits and closes; one more may search meanwhile.
    """

    @property
    def watermarks(self) -> Mapping[int, int]:
        """Return how far each shard was looked at, as committed; a shard is a number below MOST_MARKS."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in texts; they are found after the next commit."""

    def commit(self, watermarks: Mapping[int, int]) -> None:
        """Put on disk what was added together with how far that goes: both or neither survive a crash."""

    def search(self, query: Query, within: Within, limit: int) -> list[Hit]:
        """Return the best texts, best first."""

    def close(self) -> None:
        """Let go of the files; what was not committed is forgotten."""
