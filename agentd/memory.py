"""How much of the machine's memory the daemon's threads make their own."""

from __future__ import annotations

import ctypes
from typing import Final

ARENAS: Final = 2
_M_ARENA_MAX: Final = -8  # malloc.h of glibc


def bound_arenas() -> None:
    """Have all threads allocate from few arenas; for a daemon that has no threads yet.

    glibc gives each thread its own and returns little of them: after 225 agents whose transcripts tantivy's threads
    had indexed the daemon had 167 MB, with two arenas 107. Other C libraries have no such thing.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
