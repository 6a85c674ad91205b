"""What the disk has lately done to a shard, and when it is tried again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from agentd.errors import StorageError

CALM_S: Final = 10.0  # a failure after so long is the first one again
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
OK: Final = "ok"
READ_ONLY: Final = "read-only"
QUARANTINED: Final = "quarantined"


class Standing(NamedTuple):
    """How a shard is.

    `read-only`: what writes is refused until the disk takes it again. `quarantined`: it works, rebuilt from its
    journal; its damaged files were `kept` and are there to be looked at.
    """

    name: str
    state: str
    since_ns: int | None = None
    reason: str = ""
    kept: tuple[str, ...] = ()


class Health:
    """Whether a shard may be written to; used by the shard's thread."""

    def __init__(self, path: Path, wall_ns: Callable[[], int]) -> None:
        self._path = path
        self._wall_ns = wall_ns
        self._since_ns: int | None = None  # of the first failure that was not made good; None: it may be written to
        self._reason = ""
        self._failed_s = float("-inf")
        self._pause_s = 0.0

    @property
    def sound(self) -> bool:
        """Tell whether the shard may be written to."""
        return self._since_ns is None

    def failed(self, error: Exception) -> None:
        """Take note of a failure: the first one may be made good at once, those that follow after growing pauses."""
        now_s = time.monotonic()
        calm = now_s - self._failed_s > CALM_S
        self._pause_s = 0.0 if calm else min(max(2 * self._pause_s, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self._failed_s = now_s
        self._reason = str(error)
        if self._since_ns is None:
            self._since_ns = self._wall_ns()

    def recovered(self) -> None:
        """Take note that the disk takes writes again."""
        self._since_ns = None

    def due_in_s(self) -> float:
        """Return in how long the disk is to be tried again, should it have failed."""
        return max(self._failed_s + self._pause_s - time.monotonic(), 0.0)

    def standing(self) -> Standing:
        """Return what to tell people."""
        name = self._path.name
        kept = tuple(sorted(path.name for path in self._path.parent.glob(f"{name}.damaged-*")))
        if self._since_ns is not None:
            return Standing(name, READ_ONLY, self._since_ns, self._reason, kept)
        return Standing(name, QUARANTINED if kept else OK, kept=kept)

    def refusal(self) -> StorageError:
        """Return the error for what cannot be done meanwhile."""
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime((self._since_ns or 0) // 10**9))
        return StorageError(
            f"{self._path.name} cannot be written since {since} UTC ({self._reason}); nothing of this was done,"
            " and what was accepted before is kept",
            hint=f"check the disk; it is tried again every {LONGEST_PAUSE_S:g} s, without a restart",
            retry_after_ms=int(LONGEST_PAUSE_S * 1000),
        )
