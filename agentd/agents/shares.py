"""How the slots there may be are shared between places."""

from __future__ import annotations

from collections.abc import Sequence


def shares(floors: Sequence[int], goals: Sequence[int], most: int) -> list[int]:
    """Return how many each place gets of `most`: first the floors, then up to the goals, which are no lower.

    What is short is short for all in proportion: the next one goes to the place that has the smallest part of its own.
    """
    given = [0] * len(goals)
    for wished in (floors, goals):
        _raise(given, wished, most - sum(given))
    return given


def _raise(given: list[int], wished: Sequence[int], left: int) -> None:
    if sum(wished) - sum(given) <= left:
        given[:] = wished
        return
    for _ in range(left):
        short = [index for index, wish in enumerate(wished) if given[index] < wish]
        given[min(short, key=lambda index: given[index] / wished[index])] += 1
