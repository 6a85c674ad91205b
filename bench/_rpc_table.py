"""What the parts of `rpc.py` hand in: one row for each figure, with the bar it is held to where there is one."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_HEAD = f"{'':50} {'median':>11} {'lower 1/4':>11} {'upper 1/4':>11} {'bar':>9}"


@dataclass(slots=True)
class Row:
    """A figure, measured once in each round; `least` or `most` is its bar."""

    what: str
    least: float | None = None
    most: float | None = None
    missing: str = ""  # why there are no values
    values: list[float] = field(default_factory=list)

    @property
    def bar(self) -> str:
        """Return the bar as it is printed."""
        if self.least is not None:
            return f">= {self.least:g}"
        return f"<= {self.most:g}" if self.most is not None else ""

    @property
    def verdict(self) -> str:
        """Return what the median is, held to the bar."""
        if not self.bar:
            return ""
        median = statistics.median(self.values)
        met = median >= self.least if self.least is not None else median <= (self.most or 0.0)
        return "met" if met else "NOT MET"


class Rows:
    """The rows of one part, in the order in which they were first named."""

    def __init__(self) -> None:
        self._rows: dict[str, Row] = {}

    def __iter__(self):
        return iter(self._rows.values())

    def add(self, what: str, value: float, *, least: float | None = None, most: float | None = None) -> None:
        """Add one round's value."""
        self._rows.setdefault(what, Row(what, least, most)).values.append(value)

    def lack(self, what: str, why: str) -> None:
        """Say that a figure cannot be had here."""
        self._rows[what] = Row(what, missing=why)


def show(title: str, rows: Iterable[Row]) -> None:
    """Print one part's rows."""
    print(f"\n{title}\n{_HEAD}", flush=True)
    for row in rows:
        if row.missing:
            print(f"{row.what:50} {row.missing}")
            continue
        lower, median, upper = statistics.quantiles(row.values * 2, n=4, method="inclusive")
        figures = " ".join(f"{_short(value):>11}" for value in (median, lower, upper))
        print(f"{row.what:50} {figures} {row.bar:>9}  {row.verdict}".rstrip())


def show_bars(rows: Sequence[Row]) -> None:
    """Print every figure that has a bar, in one table."""
    held = [row for row in rows if row.bar]
    show("all bars", [row for row in rows if row.bar or row.missing])
    met = sum(row.verdict == "met" for row in held)
    print(f"{met} of {len(held)} bars met")


def _short(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
