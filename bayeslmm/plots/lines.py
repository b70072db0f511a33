"""The data with fitted lines: what the model says of the population, and of some or all levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._arrays import Array
from bayeslmm._validation import require_flag, require_name
from bayeslmm.data.design import Design
from bayeslmm.plots.residuals import PlotColumn, boxes, column_of
from bayeslmm.plots.style import (
    BLUE,
    GREY,
    HISTOGRAM_POINTS,
    PALETTE,
    axes_for,
    bare,
    closes_on_error,
    cloud,
    legend_above,
    named_ticks,
    plain_axes,
    printable_name,
    spread,
)

SHOWN_LINES = 60
"""Levels whose lines are drawn; of more, this many are drawn from evenly over the data."""

GRID_POINTS = 60


@closes_on_error
def lines_axes(
    design: Design,
    fitted: Callable[[], Array],
    population: Callable[[pd.DataFrame], pd.DataFrame],
    x: str,
    by: str | None = None,
    *,
    levels: bool = True,
    level: float = 0.95,
    ax: Axes | None = None,
) -> Axes:
    """Rows against x, the population line with its band, and a thin line for each level of the first grouping factor.

    fitted : the fitted values (n,) given the random effects; population : of new rows, `estimate, conf_low, conf_high` at `level`
    by : a factor of the fixed part (one population line for each of its levels) or a grouping factor (whose levels get the thin lines)
    levels : draw the thin lines; other variables are at their means, factors at their most frequent level
    """
    require_flag(levels, "levels")
    if by is not None:
        require_name(by, "by")
    ax = axes_for(ax, 7.0, 4.6)
    across = column_of(design, x, "x")
    groups = {term.group.name: term for term in design.terms}
    split = column_of(design, by, "by") if by is not None and by not in groups else None
    group = by if by in groups else next(iter(groups), None)
    _points(ax, design.y, across, split)
    if levels and group is not None:
        _thin_lines(ax, fitted(), across, column_of(design, group, "by"), split)
    if x in design.frame.columns:
        _population(ax, design, population, across, split, level)
    if across.levels is not None:
        named_ticks(ax, across.levels, vertical=False)
    if split is not None or (levels and group is not None):
        legend_above(ax, title=None if split is None else printable_name(split.name))
    return plain_axes(ax, x, bare(design.spec.formula.response))


def _color(split: PlotColumn | None, i: int) -> str:
    return BLUE if split is None else PALETTE[i % len(PALETTE)]


def _points(ax: Axes, y: Array, across: PlotColumn, split: PlotColumn | None) -> None:
    if across.levels is not None and len(y) > HISTOGRAM_POINTS:
        boxes(ax, [y[across.codes == k] for k in range(len(across.levels))], GREY)
    elif split is None:
        cloud(ax, spread(across.values), y, GREY)
    else:
        for i in range(len(split.labels)):
            rows = split.codes == i
            cloud(ax, spread(across.values[rows]), y[rows], _color(split, i))


def _thin_lines(ax: Axes, fitted: Array, across: PlotColumn, group: PlotColumn, split: PlotColumn | None) -> None:
    """Conditional fitted values of a level, joined along x (averaged where several rows share an x)."""
    codes = group.codes
    chosen = np.unique(codes)
    if len(chosen) > SHOWN_LINES:
        chosen = chosen[np.linspace(0, len(chosen) - 1, SHOWN_LINES).astype(int)]
    label = f"each {group.name}" if len(chosen) == len(group.labels) else f"{len(chosen)} of {len(group.labels):,} levels of {group.name}"
    ax.plot([], [], color=GREY, alpha=0.6, linewidth=0.8, label=printable_name(label))
    for k in chosen:
        own = np.flatnonzero(codes == k)
        # a level that meets several levels of the split has a line in each
        for part in [-1] if split is None else np.unique(split.codes[own]).tolist():
            rows = own if split is None else own[split.codes[own] == part]
            places, index = np.unique(across.values[rows], return_inverse=True)
            mean = np.bincount(index, fitted[rows]) / np.bincount(index)
            color = GREY if split is None else _color(split, part)
            ax.plot(places, mean, color=color, alpha=0.35, linewidth=0.8, zorder=1.5)


def _population(
    ax: Axes,
    design: Design,
    population: Callable[[pd.DataFrame], pd.DataFrame],
    across: PlotColumn,
    split: PlotColumn | None,
    level: float,
) -> None:
    """The fitted line of the population, one for each level of `split`, with its band."""
    for i, value in enumerate((None,) if split is None else split.labels):
        grid = reference_rows(design, across)
        if split is not None:
            grid[split.name] = _as_in(design, split.name, [value] * len(grid))
        line = population(grid)
        place = np.arange(len(grid), dtype=float) if across.levels is not None else grid[across.name].to_numpy(float)
        color = _color(split, i)
        ax.fill_between(place, line["conf_low"].to_numpy(), line["conf_high"].to_numpy(), color=color, alpha=0.22, linewidth=0, zorder=2)
        ax.plot(
            place,
            line["estimate"].to_numpy(),
            color=color,
            linewidth=2.4,
            zorder=3,
            label=f"population, {level:.0%} band" if split is None else printable_name(str(value)),
        )


def reference_rows(design: Design, across: PlotColumn) -> pd.DataFrame:
    """Rows along x with everything else at its mean or its most frequent level."""
    frame = design.frame
    if across.levels is not None:
        values: Any = _as_in(design, across.name, list(across.levels))
    else:
        values = np.linspace(np.nanmin(across.values), np.nanmax(across.values), GRID_POINTS)
    grid = pd.DataFrame({across.name: values})
    for name in frame.columns:
        if name == across.name:
            continue
        column = frame[name]
        numeric = pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
        typical = float(column.mean()) if numeric else column.mode().iloc[0]
        grid[name] = typical if numeric else _as_in(design, str(name), [typical] * len(grid))
    return grid


def _as_in(design: Design, name: str, values: list[Any]) -> Any:
    """Values of the type that the column has in the data of the fit."""
    column = design.frame[name]
    if isinstance(column.dtype, pd.CategoricalDtype):
        return pd.Categorical(values, categories=column.cat.categories, ordered=column.cat.ordered)
    return pd.Series(values).astype(column.dtype).to_numpy() if not pd.api.types.is_numeric_dtype(column) else values
