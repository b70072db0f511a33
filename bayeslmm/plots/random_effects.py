"""The caterpillar: conditional modes of every level with their intervals, in order of size."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from scipy.special import ndtri

from bayeslmm.arrays import Array
from bayeslmm.errors import SpecificationError
from bayeslmm.plots.style import BLUE, FEW, GREY, INK, LIGHT, named_ticks, panels, plain
from bayeslmm.results.fit import Fit


def ranef_axes(fit: Fit, group: str | None = None, level: float = 0.95, sort: bool = True, ax: Any = None) -> list[Axes]:
    """One panel per random column of a grouping factor: modes with `level` intervals.

    group : the factor, the first by default; sort : by the mode in each panel, otherwise in the order of the levels
    """
    found = fit.ranef(se=True)
    if not found:
        raise SpecificationError("the model has no random effects", "plot.ranef", "use plot.residuals() or plot.lines()")
    name = next(iter(found)) if group is None else group
    if name not in found:
        raise SpecificationError(f"there is no grouping factor {name!r}", "group", "use one of " + ", ".join(map(repr, found)))
    modes, sds = found[name]
    few = len(modes) <= FEW
    height = float(np.clip(0.2 * len(modes) + 0.9, 2.8, 12.0)) if few else 5.0
    axes = panels(ax, modes.shape[1], width=3.8, height=height)
    for place, column in zip(axes, modes.columns, strict=True):
        caterpillar(place, modes[column].to_numpy(), sds[column].to_numpy(), modes.index.tolist(), level, sort=sort)
        plain(place, str(column), name if place is axes[0] else "")
    return axes


def caterpillar(ax: Axes, modes: Array, sds: Array, labels: list[Any], level: float, *, sort: bool) -> None:
    """Modes from smallest to largest; intervals that leave 0 out in a second colour."""
    order = np.argsort(modes, kind="stable") if sort else np.arange(len(modes))[::-1]
    place, m = np.arange(len(modes)), modes[order]
    half = ndtri(0.5 + 0.5 * level) * sds[order]
    ax.axvline(0.0, color=INK, linewidth=1, zorder=1)
    away = np.abs(m) > half
    if len(modes) <= FEW:
        for part, color in ((~away, GREY), (away, BLUE)):
            ax.hlines(place[part], (m - half)[part], (m + half)[part], color=color, linewidth=1.4, zorder=2)
            ax.plot(m[part], place[part], "o", color=color, markersize=4, zorder=3)
        named_ticks(ax, [labels[i] for i in order])
    else:
        # hundreds of whiskers make one grey band: draw the band, and the modes as a line of points on it
        ax.fill_betweenx(place, m - half, m + half, color=LIGHT, linewidth=0, zorder=1.5, label=f"{level:.0%} intervals")
        ax.scatter(m, place, s=3, color=np.where(away, BLUE, GREY), linewidths=0, zorder=3, rasterized=True)
        ax.set_yticks([])
        told = f"{len(modes):,} levels,\n{int(away.sum()):,} away from 0"
        ax.annotate(told, (0.03, 0.97), xycoords="axes fraction", va="top", fontsize="small", color=INK)
    ax.set_ylim(-0.8, len(modes) - 0.2)
