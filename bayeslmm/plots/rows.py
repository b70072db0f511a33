"""Figures of the rows: observed against fitted, residuals, quantiles, leverage."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtri

from bayeslmm.arrays import Array, Codes
from bayeslmm.plots.columns import column_of
from bayeslmm.plots.style import (
    BLUE,
    FEW,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    RED,
    axes_for,
    bare,
    cloud,
    legend_above,
    named_ticks,
    plain,
    shown,
    smooth,
    spread,
)
from bayeslmm.results.fit import Fit

LABELS = {
    "response": "residual",
    "pearson": "Pearson residual",
    "normalized": "normalized residual",
    "marginal": "residual from the population",
}


def fitted_axes(fit: Fit, level: str = "conditional", ax: Axes | None = None) -> Axes:
    """Observed against fitted values, with the line where they agree."""
    ax = axes_for(ax, 5.2, 5.0)
    values, y = fit.fitted(level), fit.design.y
    cloud(ax, values, y)
    ends = [min(values.min(), y.min()), max(values.max(), y.max())]
    ax.plot(ends, ends, color=INK, linewidth=1, zorder=3, label="observed = fitted")
    legend_above(ax)
    return plain(ax, f"fitted value ({level})", bare(fit.design.spec.formula.response))


def residual_axes(fit: Fit, kind: str = "pearson", against: str | None = None, ax: Axes | None = None) -> Axes:
    """Residuals against fitted values, or against a column of the data, with a local mean that should stay near 0."""
    ax = axes_for(ax)
    residuals = fit.residuals(kind)
    ax.axhline(0.0, color=INK, linewidth=1, zorder=2)
    if against is None:
        x, label = fit.fitted("population" if kind == "marginal" else "conditional"), "fitted value"
    else:
        column = column_of(fit, against, "against")
        if column.levels is not None and len(column.levels) > FEW:
            _many_levels(ax, residuals, column.codes, len(column.levels))
            return plain(ax, f"{len(column.levels):,} levels of {against}, by their medians", LABELS[kind])
        if column.levels is not None:
            boxes(ax, [residuals[column.codes == k] for k in range(len(column.levels))])
            named_ticks(ax, column.levels, vertical=False)
            return plain(ax, against, LABELS[kind])
        x, label = column.values, against
    cloud(ax, spread(x), residuals)
    if len(np.unique(x)) > 5:
        ax.plot(*smooth(x, residuals), color=RED, linewidth=1.8, zorder=3, label="local mean")
        legend_above(ax)
    return plain(ax, label, LABELS[kind])


def _many_levels(ax: Axes, values: Array, codes: Codes, count: int) -> None:
    """Quartiles of each level as a band, in the order of the medians, where boxes would run into one another."""
    order = np.argsort(codes, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(codes, minlength=count))[:-1])
    quartiles = np.array([np.quantile(part, [0.25, 0.5, 0.75]) for part in parts if len(part)])
    quartiles = quartiles[np.argsort(quartiles[:, 1], kind="stable")]
    place = np.arange(len(quartiles))
    ax.fill_between(place, quartiles[:, 0], quartiles[:, 2], color=LIGHT, linewidth=0, zorder=0.9, label="quartiles", rasterized=True)
    ax.plot(place, quartiles[:, 1], color=BLUE, linewidth=1.8, label="median")
    ax.set_xticks([])
    legend_above(ax)


def boxes(ax: Axes, parts: Sequence[Array], color: str = BLUE) -> None:
    """Quartiles of each level, whiskers to the 5th and 95th hundredth, the rest as points."""
    style = {"color": color, "linewidth": 1.2}
    ax.boxplot(
        list(parts),
        positions=np.arange(len(parts)),
        whis=(5, 95),
        widths=0.6,
        boxprops=style,
        whiskerprops=style,
        capprops=style,
        medianprops={"color": RED, "linewidth": 1.8},
        showfliers=max(map(len, parts)) <= 2000,
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": GREY, "alpha": 0.6},
        manage_ticks=False,
    )


def qq_axes(fit: Fit, kind: str = "normalized", ax: Axes | None = None) -> Axes:
    """Ordered residuals against normal quantiles, with the band that 95% of samples of this size stay in at each place."""
    ax = axes_for(ax, 5.2, 5.0)
    return quantiles(ax, fit.residuals(kind), LABELS[kind])


def quantiles(ax: Axes, values: Array, label: str) -> Axes:
    """Normal quantiles of any values, with a line through their quartiles and a pointwise band."""
    n = len(values)
    shares = (np.arange(n) + 0.5) / n
    theory, ordered = ndtri(shares), np.sort(values)
    low, high = np.quantile(ordered, [0.25, 0.75])
    slope = (high - low) / (ndtri(0.75) - ndtri(0.25))
    line = np.median(ordered) + slope * theory
    density = np.exp(-0.5 * theory**2) / np.sqrt(2 * np.pi)
    half = 1.96 * slope * np.sqrt(shares * (1.0 - shares) / n) / density
    kept = np.unique(
        np.concatenate([np.arange(min(n, 300)), np.linspace(0, n - 1, min(n, 3000)).astype(int), np.arange(max(0, n - 300), n)])
    )
    ax.fill_between(theory[kept], (line - half)[kept], (line + half)[kept], color=GREY, alpha=0.2, linewidth=0, label="95% band")
    ax.plot(theory[[0, -1]], line[[0, -1]], color=INK, linewidth=1)
    ax.scatter(theory[kept], ordered[kept], s=float(np.clip(2500.0 / n, 5, 24)), color=BLUE, linewidths=0, zorder=3, rasterized=n > 2000)
    legend_above(ax)
    return plain(ax, "normal quantile", label)


def leverage_axes(fit: Fit, ax: Axes | None = None, label: int = 5) -> Axes:
    """Pearson residuals against leverage; the rows with the largest Cook's distance are named by their index."""
    ax = axes_for(ax)
    found = fit.influence()
    hat, distance = found["hat"].to_numpy(), found["cooks_distance"].to_numpy()
    residuals = fit.residuals("pearson")
    ax.axhline(0.0, color=INK, linewidth=1, zorder=2)
    cloud(ax, hat, residuals)
    top = np.argsort(distance)[::-1][:label]
    ax.scatter(
        hat[top], residuals[top], s=34, facecolors="none", edgecolors=ORANGE, linewidths=1.5, zorder=3, label="largest Cook's distance"
    )
    for row in top:
        ax.annotate(shown(str(found.index[row])), (hat[row], residuals[row]), xytext=(5, 4), textcoords="offset points", fontsize="small")
    legend_above(ax)
    return plain(ax, "leverage", LABELS["pearson"])
