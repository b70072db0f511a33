"""Simulated residuals: should be uniform, everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from bayeslmm.plots.style import BLUE, GREY, INK, RED, cloud, legend_above, panels, plain, smooth


def simulated_axes(found: Any, ax: Any = None) -> list[Axes]:
    """Left: ordered values against uniform quantiles. Right: values against the rank of the fitted value; their local mean is near 0.5."""
    left, right = panels(ax, 2, width=4.4, height=4.0)
    n = len(found.values)
    shares, ordered = (np.arange(n) + 0.5) / n, np.sort(found.values)
    half = 1.96 * np.sqrt(shares * (1.0 - shares) / n)
    left.fill_between(shares, shares - half, shares + half, color=GREY, alpha=0.2, linewidth=0, label="95% band")
    left.plot([0, 1], [0, 1], color=INK, linewidth=1)
    left.plot(shares, ordered, ".", color=BLUE, markersize=4, rasterized=n > 2000)
    legend_above(left)
    plain(left, "uniform quantile", "simulated residual")
    rank = np.argsort(np.argsort(found.fitted, kind="stable")) / max(n - 1, 1)
    cloud(right, rank, found.values)
    right.axhline(0.5, color=INK, linewidth=1)
    right.plot(*smooth(rank, found.values), color=RED, linewidth=1.8, label="local mean")
    legend_above(right)
    plain(right, "rank of the fitted value", "simulated residual")
    return [left, right]
