"""A picture of a bench: how what it measures grows with a size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pygal
from pygal.style import Style

_COLOURS = ("#1b7f5c", "#3b6fb6", "#c26a1b", "#9a3b5f")


def draw(path: Path, title: str, sizes: Sequence[int], ways: Mapping[str, list[float]], note: str, unit: str) -> None:
    """Write an SVG with a line for each way over the sizes; values are logarithmic."""
    style = Style(
        background="white",
        plot_background="white",
        colors=_COLOURS,
        font_family="sans-serif",
        label_font_size=14,
        legend_font_size=14,
        title_font_size=18,
    )
    chart = pygal.Line(
        style=style,
        logarithmic=True,
        width=900,
        height=520,
        x_title=note,
        y_title=unit,
        legend_at_bottom=True,
        legend_at_bottom_columns=2,
        truncate_legend=-1,
        js=(),
        disable_xml_declaration=False,
        no_prefix=True,
        value_formatter=lambda value: f"{float(f'{value:.3g}'):g}",
    )
    chart.title = title
    chart.y_labels = _powers([value for values in ways.values() for value in values])
    chart.x_labels = [str(size) for size in sizes]
    for name, values in ways.items():
        chart.add(name, values)
    chart.render_to_file(str(path))


def _powers(values: Sequence[float]) -> list[float]:
    """Return the powers of ten around some values."""
    least, most = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return [10.0**power for power in range(least, most + 1)]
