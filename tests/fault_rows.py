"""What each row of the fault matrix came to, as lines of JSON that the end of a run prints."""

from __future__ import annotations

import json
import os
from typing import Any, Final

LONG: Final = os.environ.get("AGENTD_FAULTS") == "long"
ROWS: Final[list[str]] = []


def row(id_: str, seed: int, **counts: Any) -> None:
    """Take note of a row that held."""
    ROWS.append(json.dumps({"id": id_, "seed": seed, "verdict": "held", **counts}))
