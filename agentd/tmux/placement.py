"""Which server a new agent goes to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

AUTO = "auto"
AUTO_SERVERS = 8  # beyond it another server costs memory and buys no speed (tmux.md §3)


def bounds(servers: str, agents_per_server: int) -> tuple[Sequence[int], int]:
    """Return which servers the setting allows, and from how many agents on a server another one is started."""
    if servers == AUTO:
        return range(AUTO_SERVERS), agents_per_server
    return range(int(servers)), 1


def wanted(loads: Mapping[int, int], more: int, allowed: Sequence[int], full: int) -> list[int]:
    """Return the servers to start, at once, for so many more agents: none of them is to wait for the one before."""
    agents = sum(load for index, load in loads.items() if index in allowed) + more
    need = min(len(allowed), -(-agents // full))
    missing = [index for index in allowed if index not in loads]
    return missing[: max(0, need - sum(index in allowed for index in loads))]


def place(loads: Mapping[int, int], resting: Collection[int], allowed: Sequence[int], full: int) -> int:
    """Return the index of the server for one more agent; one that is not in `loads` has to be started.

    `loads` are the agents of every server there is or that is being started. One that rests is passed over: it has just
    died, or could not be started; while one of the latter rests no other is started, as it would hardly fare better.
    """
    usable = {index: load for index, load in loads.items() if index in allowed and index not in resting}
    new = [index for index in allowed if index not in loads]
    may_start = new and not any(index in resting for index in new)
    if may_start and (not usable or min(usable.values()) >= full):
        return new[0]
    if usable:
        return min(usable, key=lambda index: (usable[index], index))
    return allowed[0]
