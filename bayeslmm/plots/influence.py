"""Which levels of a grouping factor the fixed effects rest on."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.plots.style import BLUE, FEW, INK, ORANGE, axes_for, legend_above, named_ticks, plain, shown
from bayeslmm.results.fit import Fit

REFITTED = 300
"""Levels up to which covariance parameters are estimated again without each."""

TOP = 8
"""Levels that are named where there are too many to name all."""


def influence_axes(fit: Fit, group: str, ax: Axes | None = None, *, refit: bool | None = None) -> Axes:
    """Cook's distance of the levels, largest at the top; many levels in their order, the largest named. 4 / levels is a rule of thumb.

    refit : covariance parameters estimated again without each level; None does so up to a few hundred levels
    """
    levels = fit.design.groups.get(group, 0)
    found = fit.influence(group, refit=levels <= REFITTED if refit is None else refit)
    limit = 4.0 / len(found)
    return _few(found, group, limit, ax) if len(found) <= FEW else _many(found, group, limit, ax)


def _few(found: pd.DataFrame, group: str, limit: float, ax: Axes | None) -> Axes:
    found = found.sort_values("cooks_distance", kind="stable")
    distance, place = found["cooks_distance"].to_numpy(float), np.arange(len(found))
    ax = axes_for(ax, 5.6, float(np.clip(0.2 * len(found) + 1.0, 2.8, 12.0)))
    color = np.where(distance > limit, ORANGE, BLUE)
    ax.hlines(place, 0.0, distance, color=color, linewidth=1.6)
    ax.scatter(distance, place, color=color, s=22, zorder=3)
    named_ticks(ax, found["level"].tolist())
    ax.axvline(limit, color=INK, linewidth=1, linestyle=":", label="4 / levels")
    ax.set_xlim(left=0.0)
    legend_above(ax)
    return plain(ax, "Cook's distance", group)


def _many(found: pd.DataFrame, group: str, limit: float, ax: Axes | None) -> Axes:
    distance, place = found["cooks_distance"].to_numpy(float), np.arange(len(found))
    ax = axes_for(ax, 7.0, 4.0)
    color = np.where(distance > limit, ORANGE, BLUE)
    ax.vlines(place, 0.0, distance, color=color, linewidth=0.6, rasterized=True)
    for i in np.argsort(distance)[::-1][:TOP]:
        ax.annotate(
            shown(str(found["level"].iloc[i])), (place[i], distance[i]), xytext=(2, 2), textcoords="offset points", fontsize="small"
        )
    ax.axhline(limit, color=INK, linewidth=1, linestyle=":", label="4 / levels")
    ax.set_ylim(0.0, 1.18 * float(np.nanmax(distance)))
    ax.set_xticks([])
    legend_above(ax)
    return plain(ax, f"{len(found):,} levels of {group}", "Cook's distance")
