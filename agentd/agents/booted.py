"""How an agent's program was started, as far as that decides whether it can be another agent's later."""

from __future__ import annotations

import time
from dataclasses import dataclass

from agentd.agents.profile import Profile


@dataclass(frozen=True, slots=True)
class Booted:
    """By which profile, and when by `clock_s`; known only of programs that this very daemon has started."""

    profile: Profile
    at_s: float


def clock_s() -> float:
    """Return the seconds that the system counts a program's start by: since it was booted, asleep or not."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
