"""Figures for a page: made without the state of pyplot, drawn by the room of plots, embedded as SVG images.

As images they can neither run a script nor take part in the page's own names.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bayeslmm.spec.atomic import write_atomically

FONT: Any = {"font.size": 9.5, "axes.edgecolor": "#5b6570", "svg.fonttype": "path", "svg.hashsalt": "bayeslmm"}


def drawn(draw: Callable[[Axes], Any], width: float = 5.6, height: float = 3.9) -> Figure:
    """A figure of one panel; `draw` is given its axes. Sizes are in inches."""
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure.subplots())
    return figure


def panelled(draw: Callable[[list[Axes]], Any], count: int, width: float = 3.6, height: float = 3.6, *, alike: bool = False) -> Figure:
    """A figure of several panels; `draw` is given their axes. alike : on one common scale."""
    columns = min(3, count)
    rows = -(-count // columns)
    with matplotlib.rc_context(FONT):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        axes = list(figure.subplots(rows, columns, squeeze=False, sharex=alike).ravel())
        for extra in axes[count:]:
            figure.delaxes(extra)
        draw(axes[:count])
    return figure


def embedded(figure: Figure) -> str:
    """The figure as an address that holds it; the same figure gives the same text."""
    content = io.BytesIO()
    with matplotlib.rc_context(FONT):
        figure.savefig(content, format="svg", dpi=150, metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(content.getvalue()).decode("ascii")


def save_picture(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=140)
    write_atomically(path, content.getvalue())
    return path
