"""Figures of intervals: profiles, forests of limits, histograms of replicates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.interpolate import PchipInterpolator
from scipy.special import ndtri

from bayeslmm.plots.style import BLUE, INK, LIGHT, ORANGE, axes_for, few_ticks, legend_of_panels, named_ticks, panels, plain
from bayeslmm.results.fit import Fit

METHODS = {"wald": "Wald"}
LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)


def profile_axes(profile: Any, absolute: bool = False, ax: Any = None) -> list[Axes]:
    """zeta of every parameter against its value: a straight line where a Wald interval is right. Vertical lines are limits at 50 to 99 %.

    absolute : the size of zeta, as a valley
    """
    terms = list(dict.fromkeys(profile.frame["term"]))
    axes = panels(ax, len(terms))
    for place, term in zip(axes, terms, strict=True):
        own = profile.frame[profile.frame["term"] == term].sort_values("value")
        own = own[np.isfinite(own["zeta"])].drop_duplicates("zeta")
        value, zeta = own["value"].to_numpy(), own["zeta"].to_numpy()
        smooth = PchipInterpolator(value, zeta) if len(value) > 2 and np.all(np.diff(value) > 0) else None
        grid = np.linspace(value[0], value[-1], 200)
        curve = smooth(grid) if smooth is not None else np.interp(grid, value, zeta)
        for level in LEVELS:
            reach = float(ndtri(0.5 + 0.5 * level))
            inside = grid[np.abs(curve) <= reach]
            for end, sign in ((inside.min(), -1.0), (inside.max(), 1.0)) if len(inside) else ():
                if abs(abs(np.interp(end, grid, curve)) - reach) < 0.1:
                    top = reach if absolute else sign * reach
                    place.plot([end, end], [0.0, top], color=LIGHT, linewidth=1, zorder=1)
        place.axhline(0.0, color=INK, linewidth=0.8, zorder=1)
        place.plot(grid, np.abs(curve) if absolute else curve, color=BLUE, linewidth=1.8, zorder=2)
        few_ticks(place)
        plain(place, term, ("|ζ|" if absolute else "ζ, signed root of the deviance") if place is axes[0] else "")
    return axes


def forest_axes(
    fit: Fit, method: str = "wald", level: float = 0.95, intercept: bool = False, ax: Axes | None = None, **options: Any
) -> Axes:
    """Fixed effects with their limits, first at the top; the line is 0."""
    limits = fit.confint(method, level, **options)
    names = [name for name in fit.design.coef_names if intercept or name != "Intercept"] or list(fit.design.coef_names)
    table = limits.set_index("term").reindex(names).assign(estimate=fit.fixef.reindex(names))
    return forest(
        axes_for(ax, 6.4, 0.8 + 0.32 * max(len(names), 3)), table, f"estimate with {level:.0%} limits ({METHODS.get(method, method)})"
    )


def forest(ax: Axes, table: pd.DataFrame, label: str) -> Axes:
    """Rows of `estimate, conf_low, conf_high`, the first at the top."""
    place = np.arange(len(table))[::-1]
    ax.axvline(0.0, color=INK, linewidth=1, zorder=1)
    ax.hlines(place, table["conf_low"].to_numpy(float), table["conf_high"].to_numpy(float), color=BLUE, linewidth=2, zorder=2)
    ax.plot(table["estimate"].to_numpy(float), place, "o", color=BLUE, markersize=6, zorder=3)
    named_ticks(ax, list(table.index)[::-1])
    ax.set_ylim(-0.7, len(table) - 0.3)
    return plain(ax, label, "")


def bootstrap_axes(boot: Any, level: float = 0.95, ax: Any = None) -> list[Axes]:
    """A histogram of the replicates of every parameter, with the estimate and percentile limits."""
    limits = boot.confint(level).set_index("term")
    axes = panels(ax, len(boot.frame.columns))
    for place, term in zip(axes, boot.frame.columns, strict=True):
        values = boot.frame[term].to_numpy(float)
        values = values[np.isfinite(values)]
        place.hist(values, bins=min(60, max(10, int(np.sqrt(len(values)) * 1.5))), color=BLUE, alpha=0.55, linewidth=0)
        place.axvline(boot.estimate[term], color=INK, linewidth=1.6, label="estimate")
        for end in limits.loc[term, ["conf_low", "conf_high"]]:
            place.axvline(end, color=ORANGE, linewidth=1.4, linestyle="--", label=f"{level:.0%} limits")
        few_ticks(place)
        plain(place, term, "replicates" if place is axes[0] else "")
    legend_of_panels(axes, ax)
    return axes
