"""Marginal means with their intervals and, on request, arrows whose overlap says which pairs differ."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import nnls

from bayeslmm.arrays import Array, Codes
from bayeslmm.plots.style import BLUE, ORANGE, named_ticks, panels, plain


def emmeans_axes(means: Any, comparisons: bool = False, adjust: str = "tukey", ax: Any = None) -> list[Axes]:
    """One panel for each level of `by`: means, confidence intervals, and with `comparisons` arrows: two that do not overlap differ.

    The lengths of arrows agree best with the pairwise limits under `adjust`; confidence intervals alone say nothing of pairs.
    """
    frame = means.frame
    if means.by:
        parts = [(" ".join(map(str, np.ravel(key))), part) for key, part in frame.groupby(list(means.by), sort=False, observed=True)]
    else:
        parts = [("", frame)]
    height = 1.1 + 0.36 * max(len(part) for _, part in parts)
    axes = panels(ax, len(parts), width=4.0, height=max(height, 2.2), sharex=True)
    lengths = arrow_lengths(means, adjust) if comparisons else None
    for place, (title, part) in zip(axes, parts, strict=True):
        rows = np.arange(len(part))[::-1]
        place.hlines(rows, part["conf_low"], part["conf_high"], color=BLUE, alpha=0.35, linewidth=7, zorder=1)
        place.plot(part["estimate"], rows, "o", color=BLUE, markersize=6, zorder=3)
        if lengths is not None:
            _arrows(place, part["estimate"].to_numpy(float), lengths[frame.index.get_indexer(part.index)], rows)
        labels = (
            [" ".join(map(str, row)) for row in part[list(means.specs)].itertuples(index=False)] if means.specs else ["overall"] * len(part)
        )
        named_ticks(place, labels[::-1])
        place.set_ylim(-0.7, len(part) - 0.3)
        plain(place, f"marginal mean ({means.conf_level:.0%} interval)", " ".join(means.specs) if place is axes[0] else "", title)
    return axes


def _arrows(ax: Axes, center: Array, length: Array, rows: Codes) -> None:
    for middle, half, row in zip(center, length, rows, strict=True):
        for sign in (-1.0, 1.0):
            if np.isfinite(half) and half > 0:
                style = {"arrowstyle": "-|>", "color": ORANGE, "linewidth": 1.6, "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
                ax.annotate("", (middle + sign * half, row), (middle, row), arrowprops=style, zorder=4)


def arrow_lengths(means: Any, adjust: str) -> Array:
    """Half-lengths r with r_i + r_j near to the least significant difference, near pairs counting most; NaN where not estimable."""
    pairs = means.pairs(adjust)
    out = np.full(len(means.frame), np.nan)
    groups = means.frame.groupby(list(means.by), sort=False, observed=True).indices.values() if means.by else [np.arange(len(means.frame))]
    begin = 0
    for rows in groups:
        k = len(rows)
        count = k * (k - 1) // 2
        own = pairs.iloc[begin : begin + count]
        begin += count
        i, j = np.triu_indices(k, 1)
        least = 0.5 * (own["conf_high"] - own["conf_low"]).to_numpy(float)
        gap = np.abs(own["estimate"].to_numpy(float))
        fine = np.isfinite(least)
        if k < 2 or not fine.any():
            continue
        # a pair far apart, or far too near, is told right by any length: those at the border decide
        weight = 1.0 / (1e-3 * least.max() + np.abs(gap - least))[fine]
        A = np.zeros((count, k))
        A[np.arange(count), i], A[np.arange(count), j] = 1.0, 1.0
        ridge = 1e-3 * weight.max() * np.eye(k)
        target = np.concatenate([weight * least[fine], ridge.diagonal() * 0.5 * np.nanmean(least)])
        out[np.asarray(rows)] = nnls(np.vstack([A[fine] * weight[:, None], ridge]), target)[0]
    return out
