"""Figures of several sources, of priors, of a calibration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bayeslmm.arrays import Array
from bayeslmm.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    LIGHT,
    ORANGE,
    PINK,
    SKY,
    axes_for,
    legend_above,
    legend_of_panels,
    named_ticks,
    panels,
    plain,
)

SOURCES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"), (PINK, "D"), (SKY, "v"), (GREY, "P"))
"""Colour and mark of each source: the marks differ too, for print without colour."""

KEYS = ["effect", "group", "term"]


def comparison_axes(comparison: Any, ax: Axes | None = None) -> Axes:
    """A forest: every parameter on its own scale of posterior sds around the reference, a mark for each source."""
    frame: pd.DataFrame = comparison.frame
    sources = list(dict.fromkeys(frame["source"]))
    parameters = frame[KEYS].fillna("").apply(tuple, axis=1)
    keys = list(dict.fromkeys(parameters))
    ax = axes_for(ax, 7.2, 1.2 + 0.42 * len(keys) * max(1.0, len(sources) / 3))
    ax.axvline(0.0, color=LIGHT, linewidth=1, zorder=0)
    for i in range(1, len(keys), 2):
        ax.axhspan(i - 0.5, i + 0.5, color="#F4F6F8", zorder=-1, linewidth=0)
    for j, source in enumerate(sources):
        color, mark = SOURCES[j % len(SOURCES)]
        for i, key in enumerate(keys):
            rows = frame[(parameters == key).to_numpy()]
            centre, scale = _centre_and_scale(rows)
            own = rows[rows["source"] == source]
            place = np.full(len(own), i - 0.4 + 0.8 * (j + 1) / (len(sources) + 1))
            ends = ((own[["conf_low", "conf_high"]] - centre) / scale).to_numpy(float)
            ax.hlines(place, ends[:, 0], ends[:, 1], color=color, linewidth=1.6)
            ax.plot((own["estimate"] - centre) / scale, place, mark, color=color, markersize=5, label=source)
    named_ticks(ax, [f"{term} | {group}" if group and effect == "ran_pars" else str(term) for effect, group, term in keys])
    ax.set_ylim(len(keys) - 0.4, -0.6)
    legend_above(ax)
    drawn = bool((frame["gap"] == 0.0).any())
    return plain(
        ax, "distance from the posterior mean, in posterior sds" if drawn else "distance from the first source, in standard errors", ""
    )


def _centre_and_scale(rows: pd.DataFrame) -> tuple[float, float]:
    """The reference of a parameter, the first source where there is none, and its widest standard error."""
    reference = rows["estimate"][rows["gap"] == 0.0]
    scale = float(rows["std_error"].max())
    return float((reference if len(reference) else rows["estimate"]).iloc[0]), scale if np.isfinite(scale) and scale > 0 else 1.0


def priors_axes(priors: Any, ax: Any = None) -> list[Axes]:
    """The density of every proper prior, a panel each."""
    curves = {str(label): part for label, part in priors.curves().groupby("label", sort=False)}
    axes = panels(ax, len(curves), width=3.2, height=2.3)
    for place, (label, part) in zip(axes, curves.items(), strict=True):
        value, density = part["value"].to_numpy(float), part["density"].to_numpy(float)
        place.fill_between(value, density, color=ORANGE, alpha=0.25, linewidth=0)
        place.plot(value, density, color=ORANGE, linewidth=1.8)
        place.set_ylim(bottom=0.0)
        place.set_yticks([])
        plain(place, label, "prior density" if place is axes[0] else "")
    return axes


def calibration_axes(distributions: Mapping[str, Array], band: tuple[Array, Array, Array], ax: Any = None) -> list[Axes]:
    """The distribution of the ranks of every quantity minus that of uniform ones, with the simultaneous band; outside it in red.

    distributions : shares of the ranks below each place, quantity by quantity; band : places, lower and upper limits
    """
    x, low, high = band
    axes = panels(ax, len(distributions), width=2.7, height=2.1, columns=4, sharex=True, sharey=True)
    for place, (name, found) in zip(axes, distributions.items(), strict=True):
        outside = bool(((found < low - 1e-12) | (found > high + 1e-12)).any())
        place.fill_between(x, low - x, high - x, color=GREY, alpha=0.2, linewidth=0, step="mid", label="95% of right samplers")
        place.axhline(0.0, color=INK, linewidth=0.8)
        place.step(x, found - x, where="mid", color="#D55E00" if outside else BLUE, linewidth=1.4, label="ranks")
        place.tick_params(labelbottom=True, labelsize="x-small")
        plain(place, "", "ECDF - uniform" if place is axes[0] else "", name)
    across = -(-len(axes) // -(-len(axes) // 4))
    for place in axes[-across:]:
        place.set_xlabel("rank of the truth, as a share", fontsize="small")
    legend_of_panels(axes, ax)
    return axes
