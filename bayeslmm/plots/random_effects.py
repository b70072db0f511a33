"""Caterpillar plots of random effects, and the influence of levels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm._arrays import Array
from bayeslmm._validation import require_flag, require_name
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.style import (
    BLUE,
    GREY,
    INK,
    LABELLED_LEVELS,
    LIGHT,
    ORANGE,
    axes_for,
    closes_on_error,
    legend_above,
    named_ticks,
    panels,
    plain_axes,
    printable_name,
)
from bayeslmm.results.estimates import Estimates
from bayeslmm.results.fitted import mode_frames, sd_frames
from bayeslmm.results.predict import two_sided_quantile


@closes_on_error
def ranef_axes(fit: Estimates, group: str | None = None, level: float = 0.95, sort: bool = True, ax: Any = None) -> list[Axes]:
    """One panel per random column of a grouping factor: modes with `level` intervals.

    group : the factor, the first by default; sort : by the mode in each panel, otherwise in the order of the levels
    """
    found = mode_frames(fit)
    name = _known(found, group)
    modes, sds = found[name], sd_frames(fit)[name]
    half = float(two_sided_quantile(level)) * sds
    return _panels(name, modes, modes - half, modes + half, sort, ax)


def ranef_of_draws(means: Mapping[str, pd.DataFrame], table: pd.DataFrame, group: str | None, sort: bool, ax: Any) -> list[Axes]:
    """The same of a posterior: means, and a tidy table of them with quantiles."""
    name = _known(means, group)
    table = table[table["group"] == name]
    shape = means[name].shape
    ends = [table[column].to_numpy(float).reshape(shape) for column in ("conf_low", "conf_high")]
    low, high = (pd.DataFrame(values, means[name].index, means[name].columns) for values in ends)
    return _panels(name, means[name], low, high, sort, ax)


def _known(found: Mapping[str, Any], group: str | None) -> str:
    """The factor asked for, or the first. Raises SpecificationError where there is none."""
    if not found:
        raise SpecificationError("the model has no random effects", "plot.ranef", "use plot.residuals() or plot.lines()")
    name = next(iter(found)) if group is None else require_name(group, "group")
    if name not in found:
        raise SpecificationError(f"there is no grouping factor {name!r}", "group", "use one of " + ", ".join(map(repr, found)))
    return name


def _panels(name: str, modes: pd.DataFrame, low: pd.DataFrame, high: pd.DataFrame, sort: bool, ax: Any) -> list[Axes]:
    require_flag(sort, "sort")
    few = len(modes) <= LABELLED_LEVELS
    height = float(np.clip(0.2 * len(modes) + 0.9, 2.8, 12.0)) if few else 5.0
    axes = panels(ax, modes.shape[1], width=3.8, height=height)
    for place, column in zip(axes, modes.columns, strict=True):
        values = (modes[column].to_numpy(float), low[column].to_numpy(float), high[column].to_numpy(float))
        caterpillar(place, *values, modes.index.tolist(), sort=sort)
        plain_axes(place, f"random effect of {column}", name if place is axes[0] else "")
    return axes


def caterpillar(ax: Axes, modes: Array, low: Array, high: Array, labels: list[Any], *, sort: bool) -> None:
    """Modes from smallest to largest; intervals that leave 0 out in a second colour."""
    order = np.argsort(modes, kind="stable") if sort else np.arange(len(modes))[::-1]
    place, m, low, high = np.arange(len(modes)), modes[order], low[order], high[order]
    ax.axvline(0.0, color=INK, linewidth=1, zorder=1)
    away = (low > 0.0) | (high < 0.0)
    if len(modes) <= LABELLED_LEVELS:
        for part, color in ((~away, GREY), (away, BLUE)):
            ax.hlines(place[part], low[part], high[part], color=color, linewidth=1.4, zorder=2)
            ax.plot(m[part], place[part], "o", color=color, markersize=4, zorder=3)
        named_ticks(ax, [labels[i] for i in order])
    else:
        # hundreds of whiskers make one grey band: draw the band, and the modes as a line of points on it
        ax.fill_betweenx(place, low, high, color=LIGHT, linewidth=0, zorder=0.9, rasterized=True)
        ax.scatter(m, place, s=3, color=np.where(away, BLUE, GREY), linewidths=0, zorder=3, rasterized=True)
        ax.set_yticks([])
        told = f"{len(modes):,} levels,\n{int(away.sum()):,} away from 0"
        ax.annotate(told, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize="small", color=INK)
    ax.set_ylim(-0.8, len(modes) - 0.2)


NAMED_LEVELS = 8
"""Levels that are named where there are too many to name all."""


@closes_on_error
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
    ax.axvline(limit, color=INK, linewidth=1, linestyle=":", label="4 / levels")
    ax.set_xlim(left=0.0)
    legend_above(ax)
    return plain_axes(ax, "Cook's distance", group)


def _many(found: pd.DataFrame, group: str, limit: float, ax: Axes | None) -> Axes:
    distance, place = found["cooks_distance"].to_numpy(float), np.arange(len(found))
    ax = axes_for(ax, 7.0, 4.0)
    color = np.where(distance > limit, ORANGE, BLUE)
    ax.vlines(place, 0.0, distance, color=color, linewidth=0.6, rasterized=True)
    for i in np.argsort(distance)[::-1][:NAMED_LEVELS]:
        ax.annotate(
            printable_name(str(found["level"].iloc[i])),
            (place[i], distance[i]),
            xytext=(2, 2),
            textcoords="offset points",
            fontsize="small",
        )
    ax.axhline(limit, color=INK, linewidth=1, linestyle=":", label="4 / levels")
    ax.set_ylim(0.0, 1.18 * float(np.nanmax(distance)))
    ax.set_xticks([])
    legend_above(ax)
    return plain_axes(ax, f"{len(found):,} levels of {group}", "Cook's distance")
