"""Figures of levels: the data with fitted lines of the population and of levels, caterpillars, the influence of levels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._arrays import Array, Codes
from bayeslmm._validation import require_flag, require_level, require_name
from bayeslmm.data.design import Design
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.residuals import PlotColumn, boxes, column_of, normal_quantiles, require_few
from bayeslmm.plots.style import (
    BLUE,
    HISTOGRAM_POINTS,
    LABEL_CHARACTERS,
    LABELLED_LEVELS,
    ORANGE,
    PALETTE,
    axes_for,
    caption,
    cloud,
    grey,
    ink,
    legend_above,
    level_label,
    light,
    name_points,
    named_ticks,
    panels,
    paper,
    percent,
    plain_axes,
    printable_name,
    ribbon,
    spread,
)
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import mode_frames, sd_frames
from bayeslmm.results.predict import two_sided_quantile
from bayeslmm.results.response_scale import ResponseScale

SHOWN_LINES = 60
"""Levels whose lines are drawn; of more, this many are drawn from evenly over the data."""

DRAWN_LEVELS = 5_000
"""Levels of a caterpillar that are drawn."""

FEW_PLACES = 6
"""Values of a numeric x that have a tick each."""


def lines_axes(
    design: Design,
    fitted: Callable[[], Array],
    population: Callable[[str | None], tuple[pd.DataFrame, Sequence[str]]],
    x: str,
    by: str | None = None,
    *,
    levels: bool = True,
    points: bool = True,
    conf_level: float = 0.95,
    scale: ResponseScale | None = None,
    label: str,
    ax: Axes | None = None,
) -> Axes:
    """Rows against x, the line of the population with its band, and a thin line for each level of the first grouping factor.

    fitted : the fitted values (n,) given the random effects; population : marginal means along x, of each level of a factor or of all
    by : a factor of the fixed part (one population line for each of its levels) or a grouping factor (whose levels get the thin lines)
    levels, points : draw the thin lines, the rows; scale : that responses and fitted values are taken back from
    """
    require_flag(levels, "levels")
    require_flag(points, "points")
    if by is not None:
        require_name(by, "by")
    require_level(conf_level)
    across = column_of(design, x, "x")
    groups = {term.group.name: term for term in design.terms}
    split = column_of(design, by, "by") if by is not None and by not in groups else None
    group = by if by in groups else next(iter(groups), None)
    if split is not None:
        require_few(split, "by")
    table, notes = population(None if split is None else split.name)
    ax = axes_for(ax, 7.0, 4.6)
    back = scale.back if scale is not None else np.asarray
    if points:
        _points(ax, back(np.asarray(design.y, float)), across, split)
    if levels and group is not None:
        _thin_lines(ax, back(fitted()), across, column_of(design, group, "by"), split)
    _population(ax, table, across, split, conf_level)
    if across.levels is not None:
        named_ticks(ax, across.levels, vertical=False)
    elif len(places := np.unique(across.values)) <= FEW_PLACES:
        ax.set_xticks(places)
    legend_above(ax, title=None if split is None else printable_name(split.name))
    caption(ax, "; ".join(notes))
    return plain_axes(ax, x, label)


def _color(split: PlotColumn | None, i: int) -> str:
    return BLUE if split is None else PALETTE[i % len(PALETTE)]


def _points(ax: Axes, y: Array, across: PlotColumn, split: PlotColumn | None) -> None:
    if across.levels is not None and len(y) > HISTOGRAM_POINTS:
        boxes(ax, [y[across.codes == k] for k in range(len(across.levels))], grey())
    elif split is None or len(y) > HISTOGRAM_POINTS:
        cloud(ax, spread(across.values), y, grey())
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
    order = np.argsort(codes, kind="stable")
    starts, ends = (np.searchsorted(codes[order], chosen, side) for side in ("left", "right"))
    joined = False
    for start, end in zip(starts, ends, strict=True):
        own = order[start:end]
        # a level that meets several levels of the split has a line in each
        for part in [-1] if split is None else np.unique(split.codes[own]).tolist():
            rows = own if split is None else own[split.codes[own] == part]
            places, index = np.unique(across.values[rows], return_inverse=True)
            mean = np.bincount(index, fitted[rows]) / np.bincount(index)
            color = grey() if split is None else _color(split, part)
            ax.plot(places, mean, color=color, alpha=0.35, linewidth=0.8, zorder=1.5)
            joined |= len(places) > 1
    if joined:
        ax.plot([], [], color=grey(), alpha=0.6, linewidth=0.8, label=printable_name(label))


def _population(ax: Axes, table: pd.DataFrame, across: PlotColumn, split: PlotColumn | None, conf_level: float) -> None:
    """The line of the population, one for each level of `split` that the means tell apart, with its band."""
    has_split = split is not None and split.name in table.columns
    for i, value in enumerate(split.labels if split is not None and has_split else (None,)):
        part = table if split is None or not has_split else table[[level_label(v) == level_label(value) for v in table[split.name]]]
        place, rows = _places(part, across)
        middle, low, high = (part[name].to_numpy(float)[rows] for name in ("estimate", "conf_low", "conf_high"))
        color = _color(split, i) if has_split else ink() if split is not None else BLUE
        ax.fill_between(place, low, high, color=color, alpha=ribbon(), linewidth=0, zorder=2)
        shown = f"population, {percent(conf_level)} band" if value is None else printable_name(level_label(value))
        ax.plot(place, middle, color=paper(), linewidth=4.4, alpha=0.8, zorder=2.9)
        ax.plot(place, middle, color=color, linewidth=2.4, zorder=3, label=shown)


def _places(part: pd.DataFrame, across: PlotColumn) -> tuple[Array, Codes]:
    """Where means stand along x, and which rows they are; a mean that x does not move stands all along it."""
    if across.name not in part.columns:
        ends = np.array([across.values.min(), across.values.max()])
        return ends, np.zeros(2, np.int64)
    if across.levels is None:
        place = part[across.name].astype(float).to_numpy()
    else:
        known = {level_label(level): float(i) for i, level in enumerate(across.levels)}
        place = np.array([known.get(level_label(level), np.nan) for level in part[across.name]])
    order = np.argsort(place, kind="stable").astype(np.int64)
    return np.asarray(place[order], float), order


def ranef_axes(fit: Estimates, group: str | None = None, conf_level: float = 0.95, sort: bool = True, ax: Any = None) -> list[Axes]:
    """One panel per random column of a grouping factor: modes with `conf_level` intervals.

    group : the factor, the first by default; sort : by the mode in each panel, otherwise in the order of the levels
    """
    found = mode_frames(fit)
    name = _require_factor(found, group)
    modes, sds = found[name], sd_frames(fit)[name]
    half = float(two_sided_quantile(conf_level)) * sds
    return _panels(name, modes, modes - half, modes + half, sort, ax)


def ranef_of_draws(means: Mapping[str, pd.DataFrame], table: pd.DataFrame, group: str | None, sort: bool, ax: Any) -> list[Axes]:
    """The same of a posterior: means, and a tidy table of them with quantiles."""
    name = _require_factor(means, group)
    table = table[table["group"] == name]
    shape = means[name].shape
    ends = [table[column].to_numpy(float).reshape(shape) for column in ("conf_low", "conf_high")]
    low, high = (pd.DataFrame(values, means[name].index, means[name].columns) for values in ends)
    return _panels(name, means[name], low, high, sort, ax)


def _require_factor(found: Mapping[str, Any], group: str | None) -> str:
    """The factor asked for, or the first. Raises SpecificationError where there is none."""
    if not found:
        raise SpecificationError("the model has no random effects", "plot.ranef", "use plot.residuals() or plot.lines()")
    name = next(iter(found)) if group is None else require_name(group, "group")
    if name not in found:
        raise SpecificationError(f"there is no grouping factor {name!r}", "group", "use one of " + ", ".join(map(repr, found)))
    return name


def _panels(name: str, modes: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame, sort: bool, ax: Any) -> list[Axes]:
    require_flag(sort, "sort")
    labelled = len(modes) <= LABELLED_LEVELS
    long = labelled and max(len(level_label(level)) for level in modes.index) > LABEL_CHARACTERS
    height = float(np.clip((0.3 if long else 0.2) * len(modes) + 0.9, 2.8, 12.0)) if labelled else 5.0
    axes = panels(ax, modes.shape[1], width=5.6 if long else 3.8, height=height)
    for place, column in zip(axes, modes.columns, strict=True):
        values = (modes[column].to_numpy(float), low[column].to_numpy(float), high[column].to_numpy(float))
        caterpillar(place, *values, modes.index.tolist(), sort=sort)
        plain_axes(place, f"random effect of {column}", name if place is axes[0] else "")
    return axes


def caterpillar(ax: Axes, modes: Array, low: Array, high: Array, labels: list[Any], *, sort: bool) -> None:
    """Modes from smallest to largest; intervals that leave 0 out in a second colour."""
    order = np.argsort(modes, kind="stable") if sort else np.arange(len(modes))[::-1]
    count = int(((low > 0.0) | (high < 0.0)).sum())
    # levels beyond what a page can tell apart: every so many, in their order
    place = np.unique(np.linspace(0, len(modes) - 1, min(len(modes), DRAWN_LEVELS)).round().astype(np.int64))
    m, low, high = modes[order[place]], low[order[place]], high[order[place]]
    ax.axvline(0.0, color=ink(), linewidth=1, zorder=1)
    away = (low > 0.0) | (high < 0.0)
    if len(modes) <= LABELLED_LEVELS:
        for part, color in ((~away, grey()), (away, BLUE)):
            ax.hlines(place[part], low[part], high[part], color=color, linewidth=1.4, zorder=2)
            ax.plot(m[part], place[part], "o", color=color, markersize=4, zorder=3)
        named_ticks(ax, [labels[i] for i in order])
    else:
        # hundreds of whiskers make one grey band: draw the band, and the modes as a line of points on it
        ax.fill_betweenx(place, low, high, color=light(), linewidth=0, zorder=0.9, rasterized=True)
        ax.scatter(m, place, s=3, color=np.where(away, BLUE, grey()), linewidths=0, zorder=3, rasterized=True)
        ax.set_yticks([])
        text = f"{len(modes):,} levels,\n{count:,} away from 0"
        ax.annotate(text, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize="small", color=ink())
    ax.set_ylim(-0.8, len(modes) - 0.2)


def ranef_quantiles_axes(modes: Mapping[str, pd.DataFrame], group: str | None, ax: Any = None) -> list[Axes]:
    """Normal quantiles of the conditional modes, a panel for each random column."""
    name = _require_factor(modes, group)
    frame = modes[name]
    axes = panels(ax, frame.shape[1], width=3.8, height=3.6)
    for place, column in zip(axes, frame.columns, strict=True):
        normal_quantiles(place, frame[column].to_numpy(float), f"random effect of {column} ({name})")
    return axes


def ranef_pairs_axes(modes: Mapping[str, pd.DataFrame], group: str | None, ax: Any = None) -> list[Axes]:
    """The conditional modes of every two random columns against each other."""
    name = _require_factor(modes, group)
    frame = modes[name]
    pairs = list(combinations(frame.columns, 2))
    if not pairs:
        raise SpecificationError(f"{name!r} has one random effect", "kind", 'use kind="caterpillar" or kind="qq"')
    axes = panels(ax, len(pairs), width=3.6, height=3.4)
    for place, (first, second) in zip(axes, pairs, strict=True):
        place.axhline(0.0, color=light(), linewidth=1, zorder=0)
        place.axvline(0.0, color=light(), linewidth=1, zorder=0)
        cloud(place, frame[first].to_numpy(float), frame[second].to_numpy(float))
        plain_axes(place, f"random effect of {first}", f"random effect of {second}", name)
    return axes


NAMED_LEVELS = 8
"""Levels that are named where there are too many to name all."""


def influence_axes(found: pd.DataFrame, group: str, ax: Axes | None = None) -> Axes:
    """Cook's distance of the levels, largest at the top; many levels in their order, the largest named. 4 / levels is a rule of thumb."""
    limit = 4.0 / len(found)
    return _few(found, group, limit, ax) if len(found) <= LABELLED_LEVELS else _many(found, group, limit, ax)


def _few(found: pd.DataFrame, group: str, limit: float, ax: Axes | None) -> Axes:
    found = found.sort_values("cooks_distance", kind="stable")
    distance, place = found["cooks_distance"].to_numpy(float), np.arange(len(found))
    ax = axes_for(ax, 5.6, float(np.clip(0.2 * len(found) + 1.0, 2.8, 12.0)))
    color = np.where(distance > limit, ORANGE, BLUE)
    ax.hlines(place, 0.0, distance, color=color, linewidth=1.6)
    ax.scatter(distance, place, color=color, s=22, zorder=3)
    named_ticks(ax, found["level"].tolist())
    ax.axvline(limit, color=ink(), linewidth=1, linestyle=":", label="4 / levels")
    ax.set_xlim(left=0.0)
    legend_above(ax)
    return plain_axes(ax, "Cook's distance", group)


def _many(found: pd.DataFrame, group: str, limit: float, ax: Axes | None) -> Axes:
    distance, place = found["cooks_distance"].to_numpy(float), np.arange(len(found))
    ax = axes_for(ax, 7.0, 4.0)
    color = np.where(distance > limit, ORANGE, BLUE)
    ax.vlines(place, 0.0, distance, color=color, linewidth=0.6, rasterized=True)
    ax.axhline(limit, color=ink(), linewidth=1, linestyle=":", label="4 / levels")
    ax.set_ylim(0.0, 1.18 * float(np.nanmax(distance)))
    ax.set_xlim(-0.01 * len(found), 1.01 * len(found))
    top = np.argsort(distance)[::-1][:NAMED_LEVELS]
    name_points(ax, place[top].astype(float), distance[top], [found["level"].iloc[i] for i in top])
    ax.set_xticks([])
    legend_above(ax)
    return plain_axes(ax, f"{len(found):,} levels of {group}", "Cook's distance")
