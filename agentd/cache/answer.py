"""What the cache hands out."""

from __future__ import annotations

from typing import Any, NamedTuple


class Answer(NamedTuple):
    """A value that was the truth at some moment of the last `age_ms`; None: there was no such thing.

    The value may be shared with other callers: look, do not change it.
    """

    value: Any
    tier: str  # "l1", "l2", "l3", or "tmux" when it was asked for this call
    age_ms: int  # since before the question was asked, rounded up
    bound_ms: int  # how old the answer could have been to be served here
