"""Moments as people write them."""

from __future__ import annotations

import time

from agentd.errors import UsageError

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DAY_FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M")


def when(option: str, text: str | None) -> float | None:
    """Return the unix time that a text means: a while ago (2h, 3d), a day, a day and time, or the number itself."""
    if text is None:
        return None
    number, unit = (text[:-1], _UNITS_S[text[-1]]) if text[-1:] in _UNITS_S else (text, 0)
    if number.replace(".", "", 1).isdecimal() and number.isascii():
        return max(0.0, time.time() - float(number) * unit) if unit else float(number)
    for form in _DAY_FORMATS:
        try:
            return max(0.0, time.mktime(time.strptime(text, form)))
        except (ValueError, OverflowError):
            continue
    raise UsageError(f"{option} cannot be `{text}`", hint="write 90s, 20m, 2h, 3d, 1w, 2026-01-31 or 2026-01-31T14:00")
