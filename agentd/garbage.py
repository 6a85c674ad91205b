"""How often the interpreter looks for cycles."""

from __future__ import annotations

import gc
from typing import Final

# A thousand messages on their way are some ten thousand objects without a cycle among them. With the usual 700 the
# collector walks over them again and again: 500 senders at once were a third slower (bench/mailbox.py).
_YOUNG_OBJECTS: Final = 50_000


def collect_rarely() -> None:
    """Leave what is there now out of every collection, and collect once in so many new objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 10, 10)
