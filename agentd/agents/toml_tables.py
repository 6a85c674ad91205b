"""TOML of others, read so that whatever is wrong with it is one kind of error."""

from __future__ import annotations

import tomllib
from typing import Any


def tables_of(text: str) -> dict[str, Any]:
    """Return what a TOML text says; raises ValueError saying why it says nothing."""
    try:
        return tomllib.loads(text)  # a ValueError of its own, or of int() for a number of thousands of digits
    except RecursionError:
        raise ValueError("its values are nested too deeply") from None
