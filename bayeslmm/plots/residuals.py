"""Figures of residuals: against fitted values, quantiles, leverage, autocorrelation, simulated residuals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from scipy.special import ndtri

from bayeslmm._arrays import Array, Codes
from bayeslmm._types import Level, ResidualKind
from bayeslmm._validation import require_count, require_name
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.style import (
    BLUE,
    HISTOGRAM_POINTS,
    LABELLED_LEVELS,
    ORANGE,
    RED,
    axes_for,
    cloud,
    grey,
    has_local_line,
    ink,
    legend_above,
    light,
    local_line,
    name_points,
    named_ticks,
    panels,
    plain_axes,
    spread,
)
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import fitted_values, residuals
from bayeslmm.results.response_scale import scale_name


@dataclass(frozen=True, slots=True, eq=False)
class PlotColumn:
    """A column of the rows of a fit: its values (n,) on an axis; its levels, or None for numbers."""

    name: str
    values: Array
    levels: tuple[Any, ...] | None

    @property
    def codes(self) -> Codes:
        """Level of every row; distinct numbers count as levels."""
        return np.unique(self.values, return_inverse=True)[1] if self.levels is None else self.values.astype(np.int64)

    @property
    def labels(self) -> tuple[Any, ...]:
        """What the levels are called."""
        return tuple(np.unique(self.values).tolist()) if self.levels is None else self.levels


def column_of(design: Design, name: str, argument: str) -> PlotColumn:
    """A column that the model of a fit or a posterior reads, or one of its grouping factors (`batch:cask` too).

    Raises SpecificationError for another name.
    """
    require_name(name, argument)
    for term in design.terms:
        if term.group.name == name:
            return PlotColumn(name, term.group.codes.astype(float), tuple(term.group.levels.tolist()))
    frame = design.own_frame.copy
    if name not in frame.columns:
        near = get_close_matches(str(name), [str(c) for c in frame.columns], 1)
        remedy = f"did you mean {near[0]!r}?" if near else "use one of " + ", ".join(map(str, frame.columns[:12]))
        raise SpecificationError(f"the data of the fit have no column {name!r}", argument, remedy)
    return plot_column_from(name, frame[name])


def require_few(column: PlotColumn, argument: str) -> None:
    """Raise SpecificationError for a column of more levels than can be told apart."""
    count = len(column.labels)
    if count > LABELLED_LEVELS:
        what = f"{column.name!r} has {count:,} values, more than lines or panels can be told apart"
        raise SpecificationError(what, argument, "name a factor of fewer levels, or cut numbers into classes")


def plot_column_from(name: str, series: pd.Series[Any]) -> PlotColumn:
    """Numbers as they are, everything else by its levels: categories in their order, others sorted."""
    if pd.api.types.is_numeric_dtype(series) and not pd.api.types.is_bool_dtype(series):
        return PlotColumn(name, series.to_numpy(float), None)
    if isinstance(series.dtype, pd.CategoricalDtype):
        present = [level for level in series.cat.categories if (series == level).any()]
    else:
        present = sorted(series.astype(str).unique())
        series = series.astype(str)
    places = {level: float(i) for i, level in enumerate(present)}
    return PlotColumn(name, np.array([places[value] for value in series]), tuple(present))


RESIDUAL_LABELS = {
    "response": "residual",
    "pearson": "Pearson residual",
    "normalized": "normalized residual",
    "marginal": "residual from the population",
}


def fitted_axes(fit: Estimates, level: Level = "conditional", ax: Axes | None = None) -> Axes:
    """Observed against fitted values, with the line where they agree."""
    ax = axes_for(ax, 5.2, 5.0)
    values, y = fitted_values(fit, level), fit.design.y
    cloud(ax, values, y)
    ends = [min(values.min(), y.min()), max(values.max(), y.max())]
    many = len(y) > HISTOGRAM_POINTS
    ax.plot(ends, ends, color=RED if many else ink(), linewidth=1.6 if many else 1.0, zorder=3, label="observed = fitted")
    legend_above(ax)
    return plain_axes(ax, f"fitted value ({level})", scale_name(fit.design))


def residual_axes(fit: Estimates, kind: ResidualKind = "pearson", against: str | None = None, ax: Axes | None = None) -> Axes:
    """Residuals against fitted values, or against a column of the data, with a local mean that should stay near 0."""
    ax = axes_for(ax)
    errors = residuals(fit, kind)
    ax.axhline(0.0, color=ink(), linewidth=1, zorder=2)
    if against is None:
        x, label = fitted_values(fit, "population" if kind == "marginal" else "conditional"), "fitted value"
    else:
        column = column_of(fit.design, against, "against")
        if column.levels is not None and len(column.levels) > LABELLED_LEVELS:
            _many_levels(ax, errors, column.codes, len(column.levels))
            return plain_axes(ax, f"{len(column.levels):,} levels of {against}, by their medians", RESIDUAL_LABELS[kind])
        if column.levels is not None:
            boxes(ax, [errors[column.codes == k] for k in range(len(column.levels))])
            named_ticks(ax, column.levels, vertical=False)
            return plain_axes(ax, against, RESIDUAL_LABELS[kind])
        x, label = column.values, against
    cloud(ax, spread(x), errors)
    if has_local_line(x):
        ax.plot(*local_line(x, errors), color=RED, linewidth=1.8, zorder=3, label="local mean")
        legend_above(ax)
    return plain_axes(ax, label, RESIDUAL_LABELS[kind])


def _many_levels(ax: Axes, values: Array, codes: Codes, count: int) -> None:
    """Quartiles of each level as a band, in the order of the medians, where boxes would run into one another."""
    order = np.argsort(codes, kind="stable")
    parts = np.split(values[order], np.cumsum(np.bincount(codes, minlength=count))[:-1])
    quartiles = np.array([np.quantile(part, [0.25, 0.5, 0.75]) for part in parts if len(part)])
    quartiles = quartiles[np.argsort(quartiles[:, 1], kind="stable")]
    place = np.arange(len(quartiles))
    ax.fill_between(place, quartiles[:, 0], quartiles[:, 2], color=light(), linewidth=0, zorder=0.9, label="quartiles", rasterized=True)
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
        flierprops={"marker": ".", "markersize": 3, "markeredgecolor": grey(), "alpha": 0.6},
        manage_ticks=False,
    )


def qq_axes(fit: Estimates, kind: ResidualKind = "normalized", ax: Axes | None = None) -> Axes:
    """Ordered residuals against normal quantiles, with the band that 95% of samples of this size stay in at each place."""
    ax = axes_for(ax, 5.2, 5.0)
    return normal_quantiles(ax, residuals(fit, kind), RESIDUAL_LABELS[kind])


MANY_POINTS = 2_000
"""Points that cover a line behind them: it is drawn before them then."""


def normal_quantiles(ax: Axes, values: Array, label: str) -> Axes:
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
    ax.fill_between(theory[kept], (line - half)[kept], (line + half)[kept], color=grey(), alpha=0.2, linewidth=0, label="95% band")
    above = n > MANY_POINTS
    ax.plot(theory[[0, -1]], line[[0, -1]], color=RED if above else ink(), linewidth=1.4 if above else 1.0, zorder=4 if above else 2)
    ax.scatter(theory[kept], ordered[kept], s=float(np.clip(2500.0 / n, 5, 24)), color=BLUE, linewidths=0, zorder=3, rasterized=n > 2000)
    legend_above(ax)
    return plain_axes(ax, "normal quantile", label)


ALIKE = 1e-6
"""Spread of leverages, relative to their size, that is rounding."""


def leverage_axes(fit: Estimates, found: pd.DataFrame, rows: Codes | slice, ax: Axes | None = None, label: int = 5) -> Axes:
    """Pearson residuals against leverage; the rows with the largest Cook's distance are named by their index.

    found : `hat, cooks_distance` of the rows shown
    """
    ax = axes_for(ax)
    hat, distance = found["hat"].to_numpy(), found["cooks_distance"].to_numpy()
    errors = residuals(fit, "pearson")[rows]
    ax.axhline(0.0, color=ink(), linewidth=1, zorder=2)
    cloud(ax, hat, errors)
    ax.ticklabel_format(axis="x", useOffset=False)
    low, high = float(hat.min()), float(hat.max())
    if high - low < ALIKE * max(high, 1e-300):
        # of a balanced design leverages differ in their rounding, which an axis of its own would blow up
        ax.set_xlim(0.5 * low, 1.5 * high)
    top = np.argsort(np.where(np.isnan(distance), -1.0, distance))[::-1][:label]
    ax.scatter(hat[top], errors[top], s=34, facecolors="none", edgecolors=ORANGE, linewidths=1.5, zorder=3, label="largest Cook's distance")
    name_points(ax, hat[top], errors[top], [found.index[row] for row in top])
    legend_above(ax)
    sampled = f" ({len(found):,} of {fit.nobs:,} rows, drawn at random)" if len(found) < fit.nobs else ""
    return plain_axes(ax, f"leverage{sampled}", RESIDUAL_LABELS["pearson"])


def acf_axes(fit: Estimates, kind: ResidualKind = "normalized", lags: int | None = None, ax: Axes | None = None) -> Axes:
    """Autocorrelation of the residuals within subjects by lag, with the band of 95% of white noise; nlme's `plot(ACF(fit))`.

    Subjects are those of the residual structure, else the levels of the innermost grouping factor; their rows follow one another in the
    order of the visits, else in that of the data.
    """
    order, codes = _rows_of_subjects(fit)
    values, pairs = autocorrelation(residuals(fit, kind)[order], codes[order], lags)
    ax = axes_for(ax)
    at = np.arange(len(values))
    half = 1.96 / np.sqrt(pairs[1:])
    ax.fill_between(at[1:], -half, half, color=grey(), alpha=0.2, linewidth=0, label="95% band of white noise")
    ax.axhline(0.0, color=ink(), linewidth=1, zorder=2)
    ax.vlines(at[1:], 0.0, values[1:], color=BLUE, linewidth=1.8, zorder=3)
    ax.plot(at[1:], values[1:], "o", color=BLUE, markersize=5, zorder=3)
    ax.set_xlim(0.4, len(values) - 0.4)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    legend_above(ax)
    return plain_axes(ax, "lag", f"autocorrelation ({RESIDUAL_LABELS[kind]})")


def autocorrelation(values: Array, codes: Codes, lags: int | None = None) -> tuple[Array, Codes]:
    """Autocorrelations at lags 0, 1, ... within subjects, as nlme's ACF, and the pairs that each rests on.

    values : (n,) in order along subjects; codes : (n,) subject of each, rows of a subject together
    """
    longest = int(np.bincount(codes).max())
    most = min(longest - 1, int(10 * np.log10(longest))) if lags is None else min(require_count(lags, "lags"), longest - 1)
    sums, pairs = np.zeros(most + 1), np.zeros(most + 1, dtype=np.int64)
    for lag in range(most + 1):
        together = codes[lag:] == codes[: len(codes) - lag]
        products = values[lag:] * values[: len(values) - lag]
        sums[lag], pairs[lag] = products[together].sum(), int(together.sum())
    return (sums / pairs) / (sums[0] / pairs[0]), pairs


def _rows_of_subjects(fit: Estimates) -> tuple[Codes, Codes]:
    design = fit.design
    if design.residual is not None:
        codes, visit = design.residual.subject.codes, design.residual.visit
    elif design.terms:
        codes, visit = max((term.group for term in design.terms), key=lambda group: group.size).codes, None
    else:
        raise SpecificationError("the model has no subjects along which residuals follow one another", "plot.acf", "use plot.residuals()")
    along = np.arange(len(codes)) if visit is None else visit
    return np.lexsort((along, codes)), np.asarray(codes)


def simulated_axes(found: Any, ax: Any = None) -> list[Axes]:
    """Left: ordered values against uniform quantiles. Right: values against the rank of the fitted value; their local mean is near 0.5."""
    left, right = panels(ax, 2, width=4.4, height=4.0)
    n = len(found.values)
    shares, ordered = (np.arange(n) + 0.5) / n, np.sort(found.values)
    half = 1.96 * np.sqrt(shares * (1.0 - shares) / n)
    left.fill_between(shares, shares - half, shares + half, color=grey(), alpha=0.2, linewidth=0, label="95% band")
    left.plot([0, 1], [0, 1], color=ink(), linewidth=1)
    left.plot(shares, ordered, ".", color=BLUE, markersize=4, rasterized=n > 2000)
    legend_above(left)
    plain_axes(left, "uniform quantile", "simulated residual")
    rank = np.argsort(np.argsort(found.fitted, kind="stable")) / max(n - 1, 1)
    cloud(right, rank, found.values)
    right.axhline(0.5, color=ink(), linewidth=1)
    if has_local_line(rank):
        right.plot(*local_line(rank, found.values), color=RED, linewidth=1.8, label="local mean")
    legend_above(right)
    plain_axes(right, "rank of the fitted value", "simulated residual")
    return [left, right]
