"""Drawing the panels of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from reproduction.report import Panel

COLUMNS = 2
HEIGHT, HEIGHT_OF_NAME = 3.4, 0.22
"""Inches: of a panel, and of what it gives a name."""


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels side by side, two in a row, into an SVG file that is the same for the same panels."""
    rows = -(-len(panels) // COLUMNS)
    with mpl.rc_context({"svg.hashsalt": "kerasbn", "font.size": 8}):
        heights = [max(map(_height, panels[COLUMNS * row : COLUMNS * (row + 1)])) for row in range(rows)]
        figure = Figure(figsize=(10, sum(heights)), layout="constrained")
        places = figure.subplots(rows, COLUMNS, squeeze=False, height_ratios=heights)
        for panel, axes in zip(panels, places.flat, strict=False):
            (_draw_by_name if panel.names else _draw)(panel, axes)
        for axes in figure.axes[len(panels) :]:
            axes.remove()
        figure.savefig(path, metadata={"Date": None})


def _height(panel: Panel) -> float:
    return max(HEIGHT, HEIGHT_OF_NAME * (len(panel.names) + 4))


def _draw_by_name(panel: Panel, axes: mpl.axes.Axes) -> None:
    """Points with their intervals, a name below the other."""
    for number, line in enumerate(panel.lines):
        places = [x + 0.3 * ((number + 0.5) / len(panel.lines) - 0.5) for x in line.x]
        axes.plot(line.y, places, ".", label=line.name)
        if len(line.low):
            axes.hlines(places, line.low, line.high, colors=axes.lines[-1].get_color(), linewidth=1.2)
    axes.set_yticks(range(len(panel.names)), panel.names)
    axes.invert_yaxis()
    axes.set(title=panel.title, xlabel=panel.y)
    axes.grid(alpha=0.3)
    axes.legend()


def _draw(panel: Panel, axes: mpl.axes.Axes) -> None:
    for line in panel.lines:
        axes.plot(line.x, line.y, label=line.name, marker="." if len(line.x) < 15 else None, linewidth=1.2)
        if len(line.low):
            axes.fill_between(line.x, line.low, line.high, alpha=0.2)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    axes.set(**{f"{axis}scale": "log" for axis in panel.log})
    axes.grid(alpha=0.3)
    axes.legend()
