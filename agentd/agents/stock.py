"""What the pool has: its slots, its places and how the profiles boot."""

from __future__ import annotations

from agentd.agents.breaker import Breaker
from agentd.agents.signal import Signal
from agentd.agents.site import Site
from agentd.agents.slots import Place, Slots


class Stock:
    """The state that the rooms of the pool share; `wake` has the pool decide again."""

    def __init__(self) -> None:
        self.slots = Slots()
        self.sites: dict[Place, Site] = {}
        self.breakers: dict[str, Breaker] = {}  # by profile
        self.waiting: set[str] = set()  # slots that wait for their worktree, which has a time limit of its own, or turn
        self.untimed: set[str] = set()  # recycled, or booted under the last daemon: how long that took is not known
        self.wake = Signal()
