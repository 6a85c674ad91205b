"""A question, as the cache knows it: a kind and what it is about."""

from __future__ import annotations

import json
from typing import NamedTuple


class Query(NamedTuple):
    """One question; two that are equal have the same answer. A tuple, because it is hashed at every look."""

    kind: str
    args: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        """Return its key: the same text for the same question, in every process."""
        return json.dumps([self.kind, *self.args], separators=(",", ":"))
