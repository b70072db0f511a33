"""Marginal means with their intervals and, on request, arrows whose overlap says which pairs differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.optimize import nnls

from bayeslmm.arrays import Array, Codes
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.style import BLUE, ORANGE, PALETTE, axes_for, label_of, legend_above, named_ticks, panels, plain, shown

MARKS = "os^Dv"
"""One for each line, so that they differ without colours too."""


def emmeans_axes(means: Any, comparisons: bool = False, adjust: str = "tukey", x: str | None = None, ax: Any = None) -> list[Axes]:
    """One panel for each level of `by`: means, confidence intervals, and with `comparisons` arrows: two that do not overlap differ.

    x : one of the variables, to go along the axis in one panel: a joined line for every combination of the others (arms over visits)

    The lengths of arrows agree best with the pairwise limits under `adjust`; confidence intervals alone say nothing of pairs.
    """
    if x is not None:
        return [_along(means, x, ax)]
    frame = means.frame
    if means.by:
        parts = [(" ".join(map(label_of, np.ravel(key))), part) for key, part in frame.groupby(list(means.by), sort=False, observed=True)]
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
        named_ticks(place, _labels(part, means.specs)[::-1])
        place.set_ylim(-0.7, len(part) - 0.3)
        plain(place, f"marginal mean ({means.conf_level:.0%} interval)", " ".join(means.specs) if place is axes[0] else "", title)
    return axes


def _labels(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    if not names:
        return ["overall"] * len(frame)
    return [" ".join(map(label_of, row)) for row in frame[list(names)].itertuples(index=False)]


def _along(means: Any, x: str, ax: Axes | None) -> Axes:
    """Means with their intervals along x, moved apart a little so that intervals do not hide one another."""
    frame, names = means.frame, [*means.specs, *means.by]
    if x not in names:
        raise SpecificationError(f"the means have no variable {x!r}", "x", "use one of " + ", ".join(map(repr, names)))
    others = [name for name in names if name != x]
    numeric = pd.api.types.is_numeric_dtype(frame[x])
    levels = list(dict.fromkeys(frame[x]))
    places = {level: float(level) if numeric else float(i) for i, level in enumerate(levels)}
    lines = _labels(frame, others) if others else [""] * len(frame)
    drawn = list(dict.fromkeys(lines))
    gap = float(np.diff(sorted(places.values())).min()) if len(places) > 1 else 1.0
    ax = axes_for(ax, 6.4, 4.2)
    for j, label in enumerate(drawn):
        part = frame[[line == label for line in lines]]
        at = np.array([places[level] for level in part[x]]) + 0.06 * gap * (j - 0.5 * (len(drawn) - 1))
        color = PALETTE[j % len(PALETTE)]
        ax.vlines(at, part["conf_low"], part["conf_high"], color=color, linewidth=1.6, alpha=0.8)
        ax.plot(
            at, part["estimate"], MARKS[j % len(MARKS)], color=color, linestyle="-", markersize=5, linewidth=1.6, label=shown(label) or None
        )
    if numeric:
        ax.set_xticks(sorted(places.values()))
    else:
        named_ticks(ax, levels, vertical=False)
    legend_above(ax, title=shown(" ".join(others)) or None)
    return plain(ax, x, f"marginal mean ({means.conf_level:.0%} interval)")


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
