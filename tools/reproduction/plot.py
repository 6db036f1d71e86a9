"""Drawing the panels of a report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from reproduction.report import Panel

COLUMNS = 2


def draw(panels: Sequence[Panel], path: Path) -> None:
    """Draw panels side by side, two in a row, into an SVG file that is the same for the same panels."""
    rows = -(-len(panels) // COLUMNS)
    with mpl.rc_context({"svg.hashsalt": "kerasbn", "font.size": 8}):
        figure = Figure(figsize=(10, 3.4 * rows), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(rows, COLUMNS, squeeze=False).flat, strict=False):
            _draw(panel, axes)
        for axes in figure.axes[len(panels) :]:
            axes.remove()
        figure.savefig(path, metadata={"Date": None})


def _draw(panel: Panel, axes: mpl.axes.Axes) -> None:
    for line in panel.lines:
        axes.plot(line.x, line.y, label=line.name, marker="." if len(line.x) < 15 else None, linewidth=1.2)
        if len(line.low):
            axes.fill_between(line.x, line.low, line.high, alpha=0.2)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    axes.set(**{f"{axis}scale": "log" for axis in panel.log})
    axes.grid(alpha=0.3)
    axes.legend()
