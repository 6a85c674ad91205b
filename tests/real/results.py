"""What the real programs did, for the table at the end of a run."""

from __future__ import annotations

from typing import Any

from programs import Program

COLUMNS = ("boot_s", "delivered", "answered", "permission_ms", "claim_ms", "warm_s", "cold_s")
_found: dict[str, dict[str, Any]] = {}


def note(program: Program, **values: Any) -> None:
    """Keep what was measured."""
    _found.setdefault(f"{program.name} {program.version}", {}).update(values)


def table() -> list[str]:
    """Return the lines of the table."""
    rows = [[name, *(str(values.get(column, "-")) for column in COLUMNS)] for name, values in sorted(_found.items())]
    return [" ".join(f"{cell:<18}" for cell in row).rstrip() for row in [["program", *COLUMNS], *rows]] if rows else []
